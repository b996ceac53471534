"""A world for the machines: a heap of timed events, and a seeded generator of trouble.

Nothing here sleeps or opens anything: an hour of the pipeline's life takes a fraction of a second. Everything that
happens is drawn from one `random.Random(seed)`, so that a seed is a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from tests.disk import Disk
from tests.laws import IdleBeside
from tests.nodes import CollectorNode, DistributorNode, WorkerNode
from tests.plans import TROUBLE_SECONDS, draw
from tests.verdict import judge
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.testing.simulation.clock import SimulationError, Stage
from zmqpipeline.testing.simulation.network import Node

Item = tuple[str, int]

__all__ = ["SimulationError", "World"]


@dataclass
class World(Stage):
    """The whole pipeline of one seed. `run()` returns when it is over, or raises SimulationError."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plan = self.weather = draw(self.seed)
        self.disk = Disk() if self.plan.journal else None
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
        self.distributor = DistributorNode(self, "run-1")
        self.collector = CollectorNode(self)
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

    def _draw_fates(self) -> None:
        plan, rng = self.plan, self.rng
        every = [(task, number) for task, count in plan.items.items() for number in range(count)]
        self.raises_left = Counter({one: rng.choice([1, 2, 99]) for one in every if rng.random() < plan.raising})
        self.poison = {one for one in every if rng.random() < plan.poison}
        self.collector_raises = {one for one in every if rng.random() < plan.collector_raises}
        self.broken_sources = {task for task in plan.items if rng.random() < plan.source_raises}
        self.source_ends = {
            task: rng.randint(0, count) if task in self.broken_sources else count for task, count in plan.items.items()
        }
        self.gates = {plan.tasks[0].task_type} if plan.gated else set()

    def payload(self, task: str, number: int) -> bytes:
        """What the source yields in this step; every third step of a task with keys repeats an earlier item."""
        if task in self.plan.keyed and number % 3 == 2:
            return b"%d" % (number * 5 // 7)
        return b"%d" % number

    def _start_all(self) -> None:
        rng, plan = self.rng, self.plan
        starts: list[Callable[[], None]] = [lambda: self.distributor.connect("acks")]
        for task, slots in plan.workers.items():
            for one in slots:
                starts.append(lambda task=task, one=one: self.add_worker(task, one))
        for start in starts:
            self.after(rng.random() * 3, start)
        self.collector.arm()
        self.after(plan.turn, self.trouble)
        for _ in range(plan.drains):
            self.after(1 + rng.random() * 5, self.drain_a_worker)
        for which, role in enumerate(plan.restarts[:-1] if plan.restarts_late else plan.restarts):
            self.after(rng.random() * rng.choice([4.0, 20.0]) + 12.0 * which, self._restarter(role))
        for which, role in enumerate(plan.role_drains):
            self.after(rng.random() * rng.choice([4.0, 20.0]) + 30.0 * which, self._drainer(role))

    # the run's metadata -------------------------------------------------------------------------------------------

    def load_metadata(self, run: str) -> bytes:
        """What the metadata function of a distributor that proposes this run returns: never the same twice."""
        return self._metadata.setdefault(run, b"meta-%d" % self.serial())

    def check_metadata(self, whom: str, run: str, metadata: bytes) -> None:
        """Whoever takes part in a run is told the metadata of its beginning, whoever died since."""
        if metadata != self._metadata.get(run):
            raise SimulationError(f"{whom} was told {metadata!r} of {run}, not {self._metadata.get(run)!r}")

    # items -------------------------------------------------------------------------------------------------------

    def learn(self, task: str, numbers: list[int], payloads: list[bytes]) -> None:
        """These items are executed: of a task with keys, the payload is the key."""
        if task in self.plan.keyed:
            for number, payload in zip(numbers, payloads, strict=True):
                if self._keys.setdefault((task, number), int(payload)) != int(payload):
                    raise SimulationError(f"{task}/{number} stands for two keys")

    def ident(self, task: str, number: int) -> Item:
        """What an item is known by: its number, or its key."""
        return task, self._keys.get((task, number), number)

    def note_collected(self, task: str, number: int, result: bytes) -> Item:
        """The collector's function was called; an item must be the same each time, and the one that was yielded."""
        one = self.ident(task, number)
        self.collected[one] += 1
        self.done[task].add(one)
        if result != self.result(one[1]):
            raise SimulationError(f"{task}/{number} was collected with the result {result!r}")
        return one

    def result(self, number: int) -> bytes:
        """What the worker's function returns for this item."""
        return b"r%d" % number + b"." * (number % 6 * self.plan.result_bytes)

    @property
    def longest_result(self) -> int:
        """How many bytes the largest result may have."""
        return len(self.result(5)) + 8

    def note_failed(self, item: m.FailedItem) -> Item:
        """The `failed` function was called."""
        one = self.ident(item.task, item.number)
        if (item.task in self.plan.keyed) != bool(item.key):
            raise SimulationError(f"{one} failed with the key {item.key!r}")
        self.failed[one] += 1
        self.failed_there[one] += item.stage == "collector"
        self.done[item.task].add(one)
        return one

    def idents(self, task: str) -> list[Item]:
        """All that the source yields."""
        return [(task, int(self.payload(task, step))) for step in range(self.source_ends[task])]

    # the gate ----------------------------------------------------------------------------------------------------

    def ack_data(self) -> bytes:
        """What the collector attaches to an ACK: how many items of the gated task it has done, as its records say."""
        return b"%d" % len(self.done[self.plan.tasks[0].task_type]) if self.plan.ahead else b""

    def check_order(self, before: m.AckNote, after: m.AckNote) -> None:
        """A gate is asked with each ACK, in order; some may be missing where a process has died."""
        assert after.first == after.last > before.last, f"asked with {after} after {before}"
        is_whole = not (self.plan.restarts or self.plan.role_drains)
        assert after.first == before.last + 1 or not is_whole, f"asked with {after} after {before}"

    def is_open(self, task: str, ack: m.AckNote, yielded: int) -> bool:
        """What the gate of this task says before a step, when the source has yielded so many different items."""
        if task not in self.gates:
            return True
        ack_task, count, data = ack.task, ack.last, ack.data
        if not self.plan.ahead:
            # Lock-step: the next item only when every item yielded before is acknowledged.
            return count >= yielded
        if ack_task and not data and self.plan.may_fail:
            # A failed item brings no data, and may be the last: who only went by data would wait for ever.
            return True
        return yielded < int(data or b"0") + self.plan.ahead

    # workers -----------------------------------------------------------------------------------------------------

    def add_worker(self, task: str, slots: int) -> None:
        """One more worker; every second one has the plan's idle time-out."""
        if self.distributor.is_over:
            return
        options = self.options
        if len(self.workers) % 2:
            options = replace(options, idle_timeout=self.plan.idle_timeout)
        worker = WorkerNode(self, f"w{self.serial()}-{task}", task, slots, options)
        self.workers.append(worker)
        worker.connect("workers")
        worker.connect("results")

    def touch(self, worker: WorkerNode) -> None:
        """A fault strikes this worker: it may cost each item that it holds one more execution."""
        ledger = self.distributor.machine.tasks[worker.task].ledger
        touched = worker.held() | set(ledger.held_by(worker.machine._workers.incarnation))
        self.strike(self.ident(worker.task, number) for number in touched)

    def kill_worker(self, worker: WorkerNode) -> None:
        """SIGKILL; another one takes its place."""
        self.touch(worker)
        worker.kill()
        self.replace_worker(worker)

    def replace_worker(self, worker: WorkerNode) -> None:
        """Start another worker like this one, a little later."""
        self.after(0.5 + self.rng.random() * 3, lambda: self.add_worker(worker.task, worker.machine.slots))

    # trouble -----------------------------------------------------------------------------------------------------

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

    # restarts ----------------------------------------------------------------------------------------------------

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
        if self._restarted and not known and self.disk is None:
            return False
        self._restarted = True
        return True

    # drains ------------------------------------------------------------------------------------------------------

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
        self.distributor = DistributorNode(self, f"run-{self.serial()}", is_first=False)
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
        self.collector = CollectorNode(self)
        self.collector.arm()

    # the run -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let it all happen, then judge it."""
        steps = 0
        limit = self.plan.limit
        while self._heap and not self.is_over():
            self.step()
            steps += 1
            if self.now > limit or steps > 2_000_000:
                raise SimulationError(f"the run hangs: {self.describe()}")
            if steps % 64 == 0:
                self.check_bound()
                self._replace_the_ended()
                self._await_the_collector()
        if not self.is_over():
            raise SimulationError(f"nothing happens any more: {self.describe()}")
        judge(self)

    def _await_the_collector(self) -> None:
        """One that has left, having waited for a distributor that cannot reach it, is started again some time later."""
        if self.distributor.machine._last is not None:
            # it has heard the end, and ends itself
            return
        if self.collector.is_over and not self.distributor.is_over and not self._is_awaited:
            if self.plan.is_soon_back and self.collector.ended.reason != "already finished":
                raise SimulationError(f"the collector left before the distributor had heard: {self.describe()}")
            self._is_awaited = True
            self.after(5 + self.rng.random() * 80, self._start_awaited)

    def _start_awaited(self) -> None:
        self._is_awaited = False
        if not self.distributor.is_over:
            self.note("collector again", "collector")
            self._new_collector()

    def is_over(self) -> bool:
        """Both have ended; a collector that was started anew after it had finished waits for the next run."""
        late = (
            bool(self.plan.restarts or self.plan.role_drains or self.plan.may_lose_the_end)
            and self.collector.machine.phase == "empty"
        )
        if self.distributor.is_over and self.left_at is None:
            self.left_at = self.now
        return self.distributor.is_over and (self.collector.is_over or late)

    def _replace_the_ended(self) -> None:
        """A worker that ended by its idle time-out, or has retired, is started again when it is needed."""
        for worker in self.workers:
            if worker.ended and worker.ended.reason == "drained":
                worker.ended = replace(worker.ended, reason="drained, replaced")
                self.replace_worker(worker)

    def describe(self) -> str:
        """Where everybody stands."""
        lines = [f"seed {self.seed}, {self.now:.1f} s", str(self.distributor.machine.snapshot())]
        lines += [str(self.collector.machine.snapshot())]
        lines += [str(one.machine.snapshot()) for one in self.workers if one.running]
        return "\n  ".join(lines)

    def check_bound(self) -> None:
        """Leased and waiting is never more than what the workers may hold, and what comes again after a back-off."""
        for name, task in self.distributor.machine.tasks.items():
            ledger = task.ledger
            served = max(len(self.plan.workers[name]), task.workers) + 1
            bound = self.options.max_held_items * 2 * (served + self.plan.drains)
            if ledger.leased + ledger.waiting > bound + len(ledger._raised):
                raise SimulationError(f"{ledger.leased} leased and {ledger.waiting} waiting of {name}, bound {bound}")
