"""What befalls a world: lost connections, partitions, kills, freezes, restarts and drains, drawn from its seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.support.disk import Disk
from tests.support.invariants import IdleBeside
from tests.support.nodes import CollectorNode, DistributorNode, WorkerNode
from tests.support.scenarios import TROUBLE_SECONDS, Plan, draw
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.testing.simulation.clock import SimulationError, Stage
from zmqpipeline.testing.simulation.network import Node

Item = tuple[str, int]


@dataclass
class TroubledStage(Stage):
    """The state of a world, and its trouble; see `tests.support.harness`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plan = self.weather = self._draw_plan()
        self.disk = self._make_disk()
        self.options = self.plan.options
        self.tried: set[tuple[str, int]] = set()
        """The items that any worker has received on trial."""
        self.executions: Counter[Item] = Counter()
        self.faults: Counter[Item] = Counter()
        self.collected: Counter[Item] = Counter()
        self.failed: Counter[Item] = Counter()
        self.failed_there: Counter[Item] = Counter()
        """How often, of these, the collector's own function had raised."""
        self.reports = 0
        """How often `finished` has returned."""
        self._restart_due = self.plan.restarts[-1] if self.plan.restarts_late else ""
        """Who is killed while it runs."""
        self.forgotten: Counter[Item] = Counter()
        """How often a collector died that had done this item, and nobody else knew."""
        self.results: dict[Item, bytes] = {}
        self.done: dict[str, set[Item]] = {task: set() for task in self.plan.items}
        """What the collector's functions were called for, by task: what its data of an ACK counts."""
        self._keys: dict[Item, int] = {}
        """Of tasks with keys, which key an item has."""
        self._metadata: dict[str, bytes] = {}
        """By run, what its first distributor loaded: each one loads something else."""
        self._draw_fates()
        self.distributor = self._make_distributor("run-1")
        self.collector = self._make_collector()
        self.workers: list[WorkerNode] = []
        self.left_at: float | None = None
        """When the last distributor ended."""
        self._restarted = False
        self._drained_by = 0.0
        """When who was asked to end in good order ends whatever is out."""
        self._is_awaited = False
        """A collector that left in good order is about to be started again, for a distributor that was cut off."""
        self._late_freeze_due = self.plan.late_freeze
        self._last_cut = self.plan.last_cut
        self._last_break = self.plan.last_break
        self._start_all()
        IdleBeside(self)

    def _draw_plan(self) -> Plan:
        return draw(self.seed)

    def _make_disk(self) -> Disk | None:
        return Disk() if self.plan.journal else None

    def _make_distributor(self, run: str, *, is_first: bool = True) -> DistributorNode:
        return DistributorNode(self, run, is_first=is_first)

    def _make_collector(self) -> CollectorNode:
        return CollectorNode(self)

    def trouble(self) -> None:
        """Once in a turn: break, kill, freeze, as the plan has it."""
        plan, rng = self.plan, self.rng
        if self.distributor.is_over:
            return
        self.after(plan.turn, self.trouble)
        self._freeze_late()
        if self.now > TROUBLE_SECONDS:
            return
        for worker in [one for one in self.workers if one.running]:
            if rng.random() < plan.kills * plan.turn:
                self.note("kill", worker.name)
                self.kill_worker(worker)
            elif rng.random() < plan.breaks * plan.turn:
                self.break_one(worker, rng.choice(["workers", "results"]))
            elif rng.random() < plan.freezes * plan.turn and not worker.frozen:
                self.freeze(worker)
        if rng.random() < plan.partitions * plan.turn:
            self.partition(rng.choice(["workers", "results"]), 0.5 + rng.random() * 10)
        if plan.ack_partitions and rng.random() < plan.ack_partitions * plan.turn:
            self.cut_acks(0.5 + rng.random() * 15)
        self._trouble_the_others()

    def _trouble_the_others(self) -> None:
        plan, rng = self.plan, self.rng
        if self.distributor.dealers.get("acks") is not None and rng.random() < plan.breaks * plan.turn / 2:
            self._break_acks()
        for role in (self.distributor, self.collector):
            if rng.random() < plan.breaks * plan.turn / 10:
                self.note("break all", role.name)
                self.touch_all(role)
                for connection in role.connections():
                    connection.cut()
            elif rng.random() < plan.role_freezes * plan.turn and role.running and not role.frozen:
                self.note("freeze role", role.name)
                self.touch_all(role)
                role.freeze(0.5 + rng.random() * 6)

    def touch_all(self, role: Node) -> None:
        """A fault that strikes every worker, if it is the distributor's: a slow collector costs nobody an execution."""
        for worker in self.workers:
            if worker.running and role is self.distributor:
                self.touch(worker)

    def break_one(self, worker: WorkerNode, hop: str) -> None:
        """Break one connection of a worker."""
        self.note(f"break {hop}", worker.name)
        if hop == "workers":
            self.touch(worker)
        connection = worker.dealers.get(hop)
        if connection is not None:
            connection.cut()

    def partition(self, hop: str, seconds: float) -> None:
        """Some workers cannot reach one of the others for a while; nothing arrives, and heartbeats find it out."""
        for worker in self.workers:
            if worker.running and self.rng.random() < 0.5:
                self.note(f"partition {hop}", worker.name)
                if hop == "workers":
                    self.touch(worker)
                worker.cut_off(hop, seconds)

    def cut_acks(self, seconds: float) -> None:
        """Distributor and collector cannot reach each other for a while; it costs nobody an execution."""
        self.note("partition acks", f"{seconds:.1f} s")
        self.distributor.cut_off("acks", seconds)

    def note_finishing(self) -> None:
        """The collector begins to finish the run."""
        seconds, self._last_cut = self._last_cut, 0.0
        if seconds:
            self.cut_acks(seconds)
        if self._restart_due:
            role, self._restart_due = self._restart_due, ""
            self.after(self.rng.random() * self.plan.finish_seconds, self._restarter(role))

    def note_farewell(self) -> None:
        """The distributor has heard that the run is over."""
        times, self._last_break = self._last_break, None
        if times is not None:
            self.after(times * self.plan.delay, self._break_acks)

    def _break_acks(self) -> None:
        acks = self.distributor.dealers.get("acks")
        if acks is not None:
            self.note("break acks", "distributor")
            acks.cut()

    def freeze(self, worker: WorkerNode) -> None:
        """SIGSTOP, and SIGCONT some seconds later: perhaps before, perhaps after it was found out."""
        self.note("freeze", worker.name)
        seconds = 0.5 + self.rng.random() * 7
        self.touch(worker)
        self.after(seconds, lambda: self.touch(worker))
        worker.freeze(seconds)

    def _freeze_late(self) -> None:
        """Freeze somebody when nearly everything is done."""
        if self._late_freeze_due and sum(self.collected.values()) > 0.8 * sum(self.plan.items.values()):
            self._late_freeze_due = False
            running = [one for one in self.workers if one.running and not one.frozen]
            if running:
                self.freeze(self.rng.choice(running))

    def drain_a_worker(self) -> None:
        """SIGTERM; what it runs it finishes, so that this alone makes nobody execute anything again."""
        running = [one for one in self.workers if one.running and not one.frozen]
        if running:
            worker = self.rng.choice(running)
            self.note("drain", worker.name)
            worker.tell(e.Drain(25.0))
            self.after(25.0, lambda: self.touch(worker))
            self.replace_worker(worker)

    def _restarter(self, role: str) -> Callable[[], None]:
        return lambda: self.restart(role)

    def restart(self, role: str) -> None:
        """Kill this role, and start it again without any memory of its own.

        Without a journal not while the other one has only just been started again itself: with both gone, the run is
        lost.
        """
        if not self._may_restart():
            return
        self.note(f"restart {role}", role)
        if role in ("distributor", "everything"):
            self._restart_distributor(0.1 + self.rng.random() * 4)
        if role in ("collector", "everything"):
            self._restart_collector(0.1 + self.rng.random() * 4)
        if role == "everything":
            for worker in self.workers:
                if worker.running:
                    self.kill_worker(worker)

    def _may_restart(self) -> bool:
        phases = self.distributor.machine.phase, self.collector.machine.phase
        is_up = self.distributor.running and self.collector.running
        if not is_up or phases[0] == "farewell":
            return False
        if phases[1] == "finished" and (self.plan.last_cut or self._is_awaited):
            # it may be gone before anybody can reach it, and a finished run with it
            return False
        known = phases[0] in ("running", "finishing") and phases[1] not in ("empty", "draining")
        if self._restarted and not known and not self.plan.journal:
            return False
        self._restarted = True
        return True

    def _drainer(self, role: str) -> Callable[[], None]:
        return lambda: self.drain(role)

    def drain(self, role: str) -> None:
        """SIGTERM for this role, or for all at once; who ended in good order is started again, without any memory."""
        if not self._may_restart() or self.collector.machine.phase in ("finishing", "finished"):
            return
        self.note(f"drain {role}", role)
        seconds = self.rng.choice([1.0, 25.0])
        if role != "collector" and self.distributor.machine.phase == "running":
            self._drained_by = self.now + seconds
        if role == "everything":
            for worker in self.workers:
                if worker.running:
                    worker.tell(e.Drain(seconds))
                    self.after(seconds, self._toucher(worker))
                    self.replace_worker(worker)
        if role != "collector":
            self.distributor.tell(e.Drain(seconds))
        if role != "distributor":
            self.collector.tell(e.Drain(seconds))

    def _toucher(self, worker: WorkerNode) -> Callable[[], None]:
        return lambda: self.touch(worker)

    def distributor_drained(self) -> None:
        """It has handed out nothing more, and waited for what was out: where it did, nobody executes anything again."""
        leased = sum(task.ledger.leased for task in self.distributor.machine.tasks.values())
        if leased and self.now < self._drained_by:
            raise SimulationError(f"the distributor was drained although {leased} items are out")
        self._strike_what_is_out()
        self.after(1.1 + self.rng.random() * 4, self._new_distributor)

    def collector_drained(self) -> None:
        """What it said at the end still arrives, unless it is lost."""
        self.after(1.1 + self.rng.random() * 4, self._start_the_drained)

    def _start_the_drained(self) -> None:
        before = self.forgotten.total()
        self._note_forgotten()
        if self.plan.is_orderly and self.distributor.running and self.forgotten.total() > before:
            raise SimulationError("the collector was drained, and did not say all that it had done")
        self._new_collector()

    def _restart_distributor(self, seconds: float) -> None:
        self._strike_what_is_out()
        self.distributor.kill()
        self.after(seconds, self._new_distributor)

    def _strike_what_is_out(self) -> None:
        for task, state in self.distributor.machine.tasks.items():
            if task not in self.plan.keyed:
                self._strike_what_is_on_its_way(task, state.ledger)
            elif state.ledger.leased:
                # the next one numbers anew what it cannot know to be with workers
                self.strike(set(self.idents(task)))

    def strike(self, items: Iterable[Item]) -> None:
        """A fault that may cost each of these items one more execution."""
        for one in items:
            self.faults[one] += 1

    def _strike_what_is_on_its_way(self, task: str, ledger: Ledger) -> None:
        """It may arrive all the same, after the next distributor was told that it had not."""
        for worker in self.workers:
            if worker.task == task and worker.running:
                leased = ledger.held_by(worker.machine._workers.incarnation)
                self.strike(self.ident(task, number) for number in set(leased) - worker.held())

    def note_sent(self, who: DistributorNode, peer: bytes, task: str, numbers: list[int]) -> None:
        """A later distributor sends these: whoever has not told it what it holds may have them, and do them, too.

        What a worker has told that it holds is not sent to another one, as long as the connection lasts.
        """
        for worker in self.workers:
            connection = worker.dealers.get("workers")
            if worker.task != task or not worker.running or (connection is not None and connection.id == peer):
                continue
            if worker.machine._workers.incarnation not in who.heard:
                self.strike(self.ident(task, number) for number in worker.held().intersection(numbers))

    def _new_distributor(self) -> None:
        self.distributor = self._make_distributor(f"run-{self.serial()}", is_first=False)
        self.distributor.connect("acks")

    def _restart_collector(self, seconds: float) -> None:
        self._note_forgotten()
        self.collector.kill()
        self.after(seconds, self._new_collector)

    def _note_forgotten(self) -> None:
        if self.disk is not None:
            return
        for task in self.plan.items:
            for one in set(self.idents(task)):
                done = self.collected[one] + self.failed[one] - self.failed_there[one]
                self.forgotten[one] += done > self.forgotten[one] + self._known(*one)

    def _known(self, task: str, ident: int) -> int:
        """How often the distributor knows this item to be done: a key that failed may be yielded again."""
        ledger = self.distributor.machine.tasks[task].ledger
        if task in self.plan.keyed:
            key = (b"%d" % ident).rjust(16, b".")
            return (key in ledger.keys.done) + list(ledger.keys.failed.values()).count(key)
        return ident in ledger.collected or ident in ledger.failed

    def _new_collector(self) -> None:
        self.collector = self._make_collector()
        self.collector.arm()
