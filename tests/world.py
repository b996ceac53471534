"""A world for the machines: a heap of timed events, and a seeded generator of trouble.

Nothing here sleeps or opens anything: an hour of the pipeline's life takes a fraction of a second. Everything that
happens is drawn from one `random.Random(seed)`, so that a seed is a run.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.disk import Disk
from tests.nodes import CollectorNode, DistributorNode, WorkerNode
from tests.plans import TROUBLE_SECONDS, SimulationError, draw
from tests.verdict import judge
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m

Item = tuple[str, int]

__all__ = ["SimulationError", "World"]


@dataclass
class World:
    """The whole pipeline of one seed. `run()` returns when it is over, or raises SimulationError."""

    seed: int
    verbose: bool = False
    now: float = 0.0
    notes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.plan = draw(self.seed)
        self.disk = Disk() if self.plan.journal else None
        self.rng = random.Random(self.seed * 7919 + 1)
        self.options = self.plan.options
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self.executions: Counter[Item] = Counter()
        self.faults: Counter[Item] = Counter()
        self.collected: Counter[Item] = Counter()
        self.failed: Counter[Item] = Counter()
        self.forgotten: Counter[Item] = Counter()
        """How often a collector died that had done this item, and nobody else knew."""
        self.results: dict[Item, bytes] = {}
        self._keys: dict[Item, int] = {}
        """Of tasks with keys, which key an item has."""
        self._draw_fates()
        self.distributor = DistributorNode(self, "run-1")
        self.collector = CollectorNode(self)
        self.workers: list[WorkerNode] = []
        self._restarted = False
        self._late_freeze_due = self.plan.late_freeze
        self._start_all()

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
        for which, role in enumerate(plan.restarts):
            self.after(rng.random() * rng.choice([4.0, 20.0]) + 12.0 * which, self._restarter(role))

    # the heap ----------------------------------------------------------------------------------------------------

    def serial(self) -> int:
        """A number that nobody had before."""
        self._serial += 1
        return self._serial

    def incarnation(self) -> bytes:
        """An id for a process."""
        return b"%08d" % self.serial()

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Let this happen at this time."""
        heapq.heappush(self._heap, (time, self.serial(), call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Let this happen in so many seconds."""
        self.at(self.now + seconds, call)

    def note(self, what: str, whom: str) -> None:
        """Count what happened."""
        self.notes[what] += 1
        self.log("world", 10, f"{what}: {whom}")

    def log(self, who: str, level: int, text: str) -> None:
        """A line for who wants to see it step by step."""
        if self.verbose:
            print(f"{self.now:10.4f} {who:12} {level} {text}")

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
        if result != b"r%d" % one[1]:
            raise SimulationError(f"{task}/{number} was collected with the result {result!r}")
        return one

    def note_failed(self, item: m.FailedItem) -> None:
        """The `failed` function was called."""
        one = self.ident(item.task, item.number)
        if (item.task in self.plan.keyed) != bool(item.key):
            raise SimulationError(f"{one} failed with the key {item.key!r}")
        self.failed[one] += 1

    def idents(self, task: str) -> list[Item]:
        """All that the source yields."""
        return [(task, int(self.payload(task, step))) for step in range(self.source_ends[task])]

    # workers -----------------------------------------------------------------------------------------------------

    def add_worker(self, task: str, slots: int) -> None:
        """One more worker; every second one has the plan's idle time-out."""
        if self.distributor.ended:
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
        machine = worker.machine
        touched = {*machine._pending, *machine._kept, *machine._failures}
        ledger = self.distributor.machine.tasks[worker.task].ledger
        touched |= set(ledger._leases.get(machine._workers.incarnation, ()))
        for number in touched:
            self.faults[self.ident(worker.task, number)] += 1

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
        if not self.distributor.running and self.distributor.ended:
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
        self._trouble_the_others()

    def _trouble_the_others(self) -> None:
        plan, rng = self.plan, self.rng
        acks = self.distributor.dealers.get("acks")
        if acks is not None and rng.random() < plan.breaks * plan.turn / 2:
            self.note("break acks", "distributor")
            acks.cut()
        for role in (self.distributor, self.collector):
            if rng.random() < plan.breaks * plan.turn / 10:
                self.note("break all", role.name)
                self.touch_all()
                for connection in role.connections():
                    connection.cut()
            elif rng.random() < plan.role_freezes * plan.turn and role.running and not role.frozen:
                self.note("freeze role", role.name)
                self.touch_all()
                role.freeze(0.5 + rng.random() * 6)

    def touch_all(self) -> None:
        """A fault that strikes every worker."""
        for worker in self.workers:
            if worker.running:
                self.touch(worker)

    def break_one(self, worker: WorkerNode, hop: str) -> None:
        """Break one connection of a worker."""
        self.note(f"break {hop}", worker.name)
        self.touch(worker)
        connection = worker.dealers.get(hop)
        if connection is not None:
            connection.cut()

    def partition(self, hop: str, seconds: float) -> None:
        """Some workers cannot reach one of the others for a while; nothing arrives, and heartbeats find it out."""
        for worker in self.workers:
            if worker.running and self.rng.random() < 0.5:
                self.note(f"partition {hop}", worker.name)
                self.touch(worker)
                worker.cut_off(hop, seconds)

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
        phase = self.distributor.machine.phase
        if phase in ("farewell", "ended") or self.collector.ended:
            return
        known = self.collector.machine.phase != "empty" and phase in ("running", "finishing")
        is_up = self.distributor.running and self.collector.running
        if not is_up or (self._restarted and not known and self.disk is None):
            return
        self._restarted = True
        self.note(f"restart {role}", role)
        if role in ("distributor", "everything"):
            self._restart_distributor(0.1 + self.rng.random() * 4)
        if role in ("collector", "everything"):
            self._restart_collector(0.1 + self.rng.random() * 4)
        if role == "everything":
            for worker in self.workers:
                if worker.running:
                    self.kill_worker(worker)

    def _restart_distributor(self, seconds: float) -> None:
        for task in self.plan.items:
            for one in set(self.idents(task)):
                self.faults[one] += 1
        self.distributor.kill()
        self.after(seconds, self._new_distributor)

    def _new_distributor(self) -> None:
        self.distributor = DistributorNode(self, f"run-{self.serial()}")
        self.distributor.connect("acks")

    def _restart_collector(self, seconds: float) -> None:
        if self.disk is None:
            for task in self.plan.items:
                for one in set(self.idents(task)):
                    done = self.collected[one] + self.failed[one] - self.forgotten[one]
                    self.forgotten[one] += done > 0 and not self._is_known(*one)
        self.collector.kill()
        self.after(seconds, self._new_collector)

    def _is_known(self, task: str, ident: int) -> bool:
        """Whether the distributor knows that this item is done."""
        ledger = self.distributor.machine.tasks[task].ledger
        if task in self.plan.keyed:
            key = b"%d" % ident
            return key.rjust(16, b".") in {*ledger.keys.done, *ledger.keys.failed.values()}
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
            self.now, _, call = heapq.heappop(self._heap)
            call()
            steps += 1
            if self.now > limit or steps > 2_000_000:
                raise SimulationError(f"the run hangs: {self.describe()}")
            if steps % 64 == 0:
                self.check_bound()
                self._replace_the_ended()
        if not self.is_over():
            raise SimulationError(f"nothing happens any more: {self.describe()}")
        judge(self)

    def is_over(self) -> bool:
        """Both have ended; a collector that was started anew after it had finished waits for the next run."""
        late = bool(self.plan.restarts) and self.collector.machine.phase == "empty"
        return self.distributor.ended is not None and (self.collector.ended is not None or late)

    def _replace_the_ended(self) -> None:
        """A worker that ended by its idle time-out is started again when it is needed."""
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

    def settle(self, seconds: float) -> None:
        """Some seconds more for what is on its way."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] < end:
            self.now, _, call = heapq.heappop(self._heap)
            call()
