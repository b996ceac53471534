"""A world for the machines: a network and threads made of a heap of timed events, and a seeded generator of trouble.

Nothing here sleeps or opens anything: an hour of the pipeline's life takes a fraction of a second. Everything that
happens is drawn from one `random.Random(seed)`, so that a seed is a run.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol import wire
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.graph import TaskSpec
from zmqpipeline.protocol.seqset import numbers_of, spans_of
from zmqpipeline.protocol.worker import WorkerMachine


class SimulationError(AssertionError):
    """An invariant of the pipeline does not hold in this run."""


@dataclass
class Plan:
    """What happens in one run, drawn from its seed."""

    tasks: list[TaskSpec]
    items: dict[str, int]
    workers: dict[str, list[int]]
    service: float
    spread: float
    lose: float
    double: float
    delay: float
    breaks: float
    kills: float
    freezes: float
    raising: float
    poison: float
    collector_raises: float
    source_raises: float
    gated: bool
    collect_seconds: float
    drain_one: bool


def draw(seed: int) -> Plan:
    """A plan for this seed: between a calm run of a few items and many items in a storm."""
    rng = random.Random(seed)
    storm = rng.choice([0.0, 0.0, 0.3, 1.0])
    names = ["A", "B", "C", "D"][: rng.choice([1, 1, 2, 3, 4])]
    tasks = []
    for i, name in enumerate(names):
        needs = tuple(one for one in names[:i] if rng.random() < 0.6)
        tasks.append(
            TaskSpec(
                name,
                depends_on=needs,
                retries=rng.choice([0, 1, 3]),
                backoff=rng.choice([0.01, 0.5]),
                on_failed=rng.choice(["abort", "continue", "continue"]),
            )
        )
    return Plan(
        tasks=tasks,
        items={name: rng.choice([0, 1, 7, 60, 60, 400]) for name in names},
        workers={name: [rng.choice([1, 1, 2, 5]) for _ in range(rng.choice([1, 2, 3]))] for name in names},
        service=rng.choice([2e-5, 1e-3, 0.03, 0.5]),
        spread=rng.choice([0.0, 0.5, 3.0]),
        lose=storm * rng.choice([0.0, 0.01, 0.1]),
        double=storm * rng.choice([0.0, 0.01, 0.1]),
        delay=rng.choice([0.0001, 0.002, 0.05]),
        breaks=storm * rng.choice([0.0, 0.05, 0.3]),
        kills=storm * rng.choice([0.0, 0.05, 0.3]),
        freezes=storm * rng.choice([0.0, 0.05]),
        raising=rng.choice([0.0, 0.0, 0.1]),
        poison=storm * rng.choice([0.0, 0.0, 0.01]),
        collector_raises=rng.choice([0.0, 0.0, 0.05]),
        source_raises=rng.choice([0.0, 0.0, 0.0, 0.2]),
        gated=rng.random() < 0.15,
        collect_seconds=rng.choice([1e-6, 1e-6, 1e-3]),
        drain_one=rng.random() < 0.2,
    )


class Connection:
    """One connection of a DEALER (client) to a ROUTER (server); in order, unless it breaks."""

    def __init__(self, world: World, client: Node, hop: str, server: Node, there: str) -> None:
        self.world, self.client, self.hop, self.server, self.there = world, client, hop, server, there
        self.id = b"%06d" % world.serial()
        self.alive = True
        self.clear: dict[bool, float] = {True: 0.0, False: 0.0}

    def carry(self, to_server: bool, envelope: m.Envelope) -> None:
        """Deliver this later, or never, or twice."""
        world = self.world
        plan, rng = world.plan, world.rng
        for _ in range(2 if rng.random() < plan.double else 1):
            if rng.random() < plan.lose:
                world.note("lost", type(envelope.body).__name__)
                continue
            at = max(self.clear[to_server], world.now + plan.delay * (0.5 + rng.random()))
            self.clear[to_server] = at
            world.at(at, lambda: self._arrive(to_server, envelope))

    def _arrive(self, to_server: bool, envelope: m.Envelope) -> None:
        if not self.alive:
            return
        node, peer = (self.server, (self.there, self.id)) if to_server else (self.client, (self.hop, b""))
        # Through the wire and back, so that a message that cannot be encoded is found here.
        node.tell(e.Received(peer, wire.decode(wire.encode(envelope))))

    def cut(self) -> None:
        """Break; each side hears of it in its own time."""
        if not self.alive:
            return
        self.alive = False
        rng = self.world.rng
        server, client, peer = self.server, self.client, (self.there, self.id)
        self.server.routes.pop(peer, None)
        self.world.after(rng.random() * 0.3, lambda: server.tell(e.PeerLost(peer)))
        if client.running:
            client.dealers[self.hop] = None
            self.world.after(rng.random() * 0.3, lambda: client.tell(e.Disconnected(self.hop)))
            self.world.after(0.3 + rng.random(), lambda: client.connect(self.hop))


class Node:
    """A role: its machine, its connections, and its clock."""

    def __init__(self, world: World, name: str, machine: Any) -> None:
        self.world, self.name, self.machine = world, name, machine
        self.running = True
        self.frozen = False
        self.missed: list[e.Event] = []
        self.ended: c.Ended | None = None
        self.dealers: dict[str, Connection | None] = {}
        self.routes: dict[e.Peer, Connection] = {}
        self.targets: dict[str, tuple[Callable[[], Node], str]] = {}
        self.armed: float | None = None

    def connect(self, hop: str) -> None:
        """The DEALER of this hop connects to the node that serves it, at once or when that one is up."""
        if not self.running or self.dealers.get(hop) is not None:
            return
        find, there = self.targets[hop]
        server = find()
        if not server.running or self.frozen:
            self.world.after(0.5, lambda: self.connect(hop))
            return
        connection = Connection(self.world, self, hop, server, there)
        self.dealers[hop] = connection
        server.routes[there, connection.id] = connection
        self.tell(e.Connected(hop))

    def tell(self, event: e.Event) -> None:
        """An event for the machine; a frozen process sees it when it thaws."""
        if not self.running:
            return
        if self.frozen:
            self.missed.append(event)
            return
        world = self.world
        for command in self.machine.handle(event, world.now):
            self.perform(command)
        self.machine.check()
        self.arm()

    def arm(self) -> None:
        deadline = self.machine.next_deadline()
        if deadline is None or (self.armed is not None and self.armed <= deadline and self.armed >= self.world.now):
            return
        self.armed = max(deadline, self.world.now)
        self.world.at(self.armed, self.tick)

    def tick(self) -> None:
        self.armed = None
        if self.running:
            self.tell(e.Tick())

    def perform(self, command: c.Command) -> None:
        """Carry out what every role has in common."""
        match command:
            case c.Send(peer, envelope):
                hop, route = peer
                if route:
                    connection = self.routes.get(peer)
                    if connection is None:
                        self.world.after(0.0, lambda: self.tell(e.PeerLost(peer)))
                    else:
                        connection.carry(False, envelope)
                else:
                    connection = self.dealers.get(hop)
                    if connection is not None:
                        connection.carry(True, envelope)
            case c.Log(level, text):
                self.world.log(self.name, level, text)
            case c.Ended():
                self.ended = command
                self.stop()
            case _:
                self.act(command)

    def act(self, command: c.Command) -> None:
        """Carry out a command of this role."""
        raise TypeError(f"{self.name} cannot do {type(command).__name__}")

    def stop(self) -> None:
        """The process is no more, in good order or not."""
        self.running = False
        for connection in [*self.dealers.values(), *list(self.routes.values())]:
            if connection is not None:
                # What was sent before the end is still delivered: sockets linger.
                self.world.after(1.0, connection.cut)

    def kill(self) -> None:
        """SIGKILL: nothing that was queued is delivered."""
        self.running = False
        for connection in [*self.dealers.values(), *list(self.routes.values())]:
            if connection is not None:
                connection.cut()


class WorkerNode(Node):
    """A worker with `slots` threads."""

    def __init__(self, world: World, name: str, task: str, slots: int) -> None:
        machine = WorkerMachine(task, slots=slots, incarnation=world.incarnation(), host=name, options=world.options)
        super().__init__(world, name, machine)
        self.task, self.idle = task, slots
        self.queue: deque[tuple[int, int, bytes]] = deque()
        self.targets = {
            "workers": (lambda: world.distributor, "workers"),
            "results": (lambda: world.collector, "results"),
        }

    def act(self, command: c.Command) -> None:
        match command:
            case c.Execute(_, attempt, _, numbers, payloads):
                self.queue.extend((n, attempt, one) for n, one in zip(numbers, payloads, strict=True))
                while self.idle and self.queue:
                    self.idle -= 1
                    self.take()
            case c.TakeBack(count):
                n = len(self.queue) if count is None else min(count, len(self.queue))
                numbers = [self.queue.pop()[0] for _ in range(n)]
                self.world.after(1e-4, lambda: self.tell(e.TakenBack(numbers)))
            case c.SetMetadata():
                pass
            case _:
                super().act(command)

    def take(self) -> None:
        """A thread takes what it does until it hands over: many short items of one attempt, or one long one."""
        world, plan = self.world, self.world.plan
        attempt = self.queue[0][1]
        batch: list[tuple[int, bytes]] = []
        seconds = 0.0
        while self.queue and self.queue[0][1] == attempt and (not batch or seconds < 0.002):
            number, _, payload = self.queue.popleft()
            batch.append((number, payload))
            seconds += plan.service * (1 + plan.spread * world.rng.random())
            world.executions[self.task, number] += 1
        world.after(seconds, lambda: self.done(attempt, batch, seconds))

    def done(self, attempt: int, batch: list[tuple[int, bytes]], seconds: float) -> None:
        world = self.world
        if not self.running:
            return
        if self.frozen:
            world.after(0.5, lambda: self.done(attempt, batch, seconds))
            return
        if any((self.task, number) in world.poison for number, _ in batch):
            world.note("poison", self.name)
            world.kill_worker(self)
            return
        good, failures = [], []
        for number, payload in batch:
            if world.raises_left[self.task, number] > 0:
                world.raises_left[self.task, number] -= 1
                world.faults[self.task, number] += 1
                failures.append((number, m.Trouble("ValueError", "as planned")))
            else:
                good.append((number, b"r" + payload))
        world.after(0.0, self.next_item)
        self.tell(e.Executed(attempt, [n for n, _ in good], [p for _, p in good], failures, seconds))

    def next_item(self) -> None:
        self.idle += 1
        while self.running and self.idle and self.queue:
            self.idle -= 1
            self.take()


class DistributorNode(Node):
    """The distributor and its sources."""

    def __init__(self, world: World) -> None:
        machine = DistributorMachine(
            "sim",
            world.plan.tasks,
            incarnation=world.incarnation(),
            run="run-1",
            options=world.options,
            rng=random.Random(world.rng.random()),
            metadata="local",
        )
        super().__init__(world, "distributor", machine)
        self.targets = {"acks": (lambda: world.collector, "acks")}
        self.started = False

    def act(self, command: c.Command) -> None:
        world = self.world
        match command:
            case c.LoadMetadata():
                world.after(0.01, lambda: self.tell(e.MetadataLoaded(b"meta")))
            case c.StartTasks():
                self.started = True
            case c.Produce(task, count, _, _, ack_id, _):
                if not self.started:
                    raise SimulationError("a source was asked before the tasks were started")
                world.after(world.plan.delay, lambda: self.produce(task, count, ack_id, first=True))
            case _:
                super().act(command)

    def produce(self, task: str, count: int, ack_id: int, *, first: bool) -> None:
        """Some of the items asked for; sometimes in several parts."""
        world, rng = self.world, self.world.rng
        part = count if rng.random() < 0.7 else rng.randint(0, count)
        payloads = []
        state = "ready" if part == count else "more"
        for _ in range(part):
            number = world.yielded[task]
            if number == world.source_ends[task]:
                state = "failed" if task in world.broken_sources else "exhausted"
                break
            if task in world.gates and world.gate_is_closed(ack_id):
                state = "gated"
                break
            world.yielded[task] += 1
            payloads.append(b"%d" % number)
        trouble = m.Trouble("ValueError", "the source raised") if state == "failed" else None
        self.tell(e.Produced(task, state, payloads, None, trouble))
        if state == "more":
            world.after(world.plan.delay * 3, lambda: self.produce(task, count - len(payloads), ack_id, first=False))


class CollectorNode(Node):
    """The collector and its one thread."""

    def __init__(self, world: World) -> None:
        super().__init__(
            world, "collector", CollectorMachine("sim", incarnation=world.incarnation(), options=world.options)
        )
        self.free_at = 0.0

    def act(self, command: c.Command) -> None:
        match command:
            case c.SetRun():
                pass
            case c.Collect(task, attempt, spans, payloads):
                numbers = numbers_of(spans)
                half = len(numbers) // 2 if len(numbers) > 2 and self.world.rng.random() < 0.3 else len(numbers)
                for low, high in ((0, half), (half, len(numbers))):
                    if low < high:
                        self.later(self._collector_of(task, attempt, numbers[low:high], payloads[low:high]), high - low)
            case c.CallFailed(failures):
                self.later(lambda: self.call_failed(failures), len(failures))
            case c.CallFinished():
                self.later(lambda: self.tell(e.FinishedCalled()), 1)
            case _:
                super().act(command)

    def _collector_of(self, task: str, attempt: int, numbers: list[int], payloads: list[bytes]) -> Callable[[], None]:
        return lambda: self.collect(task, attempt, numbers, payloads)

    def later(self, call: Callable[[], None], items: int) -> None:
        """One thread: calls run one after the other."""
        self.free_at = max(self.free_at, self.world.now) + items * self.world.plan.collect_seconds
        self.world.at(self.free_at, call)

    def collect(self, task: str, attempt: int, numbers: list[int], payloads: list[bytes]) -> None:
        world = self.world
        good, failures = [], []
        for number, payload in zip(numbers, payloads, strict=True):
            if payload != b"r%d" % number:
                raise SimulationError(f"{task}/{number} was collected with the result {payload!r}")
            world.collected[task, number] += 1
            if (task, number) in world.collector_raises:
                failures.append((number, m.Trouble("KeyError", "as planned"), payload))
            else:
                good.append(number)
        self.tell(e.Collected(task, spans_of(good), failures, b"", attempt))

    def call_failed(self, failures: list[m.FailedItem]) -> None:
        by_task: dict[str, list[int]] = {}
        for item in failures:
            self.world.failed[item.task, item.number] += 1
            by_task.setdefault(item.task, []).append(item.number)
        for task, numbers in by_task.items():
            self.tell(e.FailedCalled(task, spans_of(numbers)))


@dataclass
class World:
    """The whole pipeline of one seed. `run()` returns when it is over, or raises SimulationError."""

    seed: int
    verbose: bool = False
    limit: float = 3000.0
    now: float = 0.0
    notes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.plan = draw(self.seed)
        self.rng = random.Random(self.seed * 7919 + 1)
        self.options = Options(max_held_items=200)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self.executions: Counter[tuple[str, int]] = Counter()
        self.faults: Counter[tuple[str, int]] = Counter()
        self.collected: Counter[tuple[str, int]] = Counter()
        self.failed: Counter[tuple[str, int]] = Counter()
        self.yielded: Counter[str] = Counter()
        self._draw_fates()
        self.distributor = DistributorNode(self)
        self.collector = CollectorNode(self)
        self.workers: list[WorkerNode] = []
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

    def gate_is_closed(self, ack_id: int) -> bool:
        """The lock-step gate of the first task: the next item only when every item yielded before is acknowledged."""
        task = self.plan.tasks[0].task_type
        return ack_id < self.yielded[task]

    def _start_all(self) -> None:
        rng = self.rng
        starts: list[Callable[[], None]] = [lambda: self.distributor.connect("acks")]
        for task, slots in self.plan.workers.items():
            for one in slots:
                starts.append(lambda task=task, one=one: self.add_worker(task, one))
        for start in starts:
            self.after(rng.random() * 3, start)
        self.collector.arm()
        self.after(1.0, self.trouble)
        if self.plan.drain_one:
            self.after(1 + rng.random() * 5, self.drain_a_worker)

    # the heap ----------------------------------------------------------------------------------------------------

    def serial(self) -> int:
        self._serial += 1
        return self._serial

    def incarnation(self) -> bytes:
        """An id for a process."""
        return b"%08d" % self.serial()

    def at(self, time: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (time, self.serial(), call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(self.now + seconds, call)

    def note(self, what: str, whom: str) -> None:
        self.notes[what] += 1
        self.log("world", 10, f"{what}: {whom}")

    def log(self, who: str, level: int, text: str) -> None:
        if self.verbose:
            print(f"{self.now:10.4f} {who:12} {level} {text}")

    # trouble -----------------------------------------------------------------------------------------------------

    def add_worker(self, task: str, slots: int) -> None:
        name = f"w{self.serial()}-{task}"
        worker = WorkerNode(self, name, task, slots)
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
            self.faults[worker.task, number] += 1

    def kill_worker(self, worker: WorkerNode) -> None:
        self.touch(worker)
        worker.kill()
        self.after(0.5 + self.rng.random() * 3, lambda: self.add_worker(worker.task, worker.machine.slots))

    def trouble(self) -> None:
        """Once a simulated second: break, kill, freeze, as the plan has it."""
        plan, rng = self.plan, self.rng
        if not self.distributor.running:
            return
        self.after(1.0, self.trouble)
        if self.now > 60:
            return
        for worker in [one for one in self.workers if one.running]:
            if rng.random() < plan.kills:
                self.note("kill", worker.name)
                self.kill_worker(worker)
            elif rng.random() < plan.breaks:
                hop = rng.choice(["workers", "results"])
                self.note(f"break {hop}", worker.name)
                self.touch(worker)
                if worker.dealers.get(hop) is not None:
                    worker.dealers[hop].cut()
            elif rng.random() < plan.freezes and not worker.frozen:
                self.freeze(worker)
        acks = self.distributor.dealers.get("acks")
        if acks is not None and rng.random() < plan.breaks / 2:
            self.note("break acks", "distributor")
            acks.cut()

    def freeze(self, worker: WorkerNode) -> None:
        self.note("freeze", worker.name)
        self.touch(worker)
        worker.frozen = True
        for connection in list(worker.dealers.values()):
            if connection is not None:
                self.after(2.0, connection.cut)
        self.after(2.5 + self.rng.random() * 5, lambda: self.thaw(worker))

    def thaw(self, worker: WorkerNode) -> None:
        self.touch(worker)
        worker.frozen = False
        missed, worker.missed = worker.missed, []
        for event in missed:
            worker.tell(event)

    def drain_a_worker(self) -> None:
        running = [one for one in self.workers if one.running and not one.frozen]
        if running:
            worker = self.rng.choice(running)
            self.note("drain", worker.name)
            self.touch(worker)
            worker.tell(e.Drain(25.0))
            self.after(5.0, lambda: self.add_worker(worker.task, worker.machine.slots))

    # the run -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let it all happen, then judge it."""
        steps = 0
        while self._heap and not (self.distributor.ended and self.collector.ended):
            self.now, _, call = heapq.heappop(self._heap)
            call()
            steps += 1
            if self.now > self.limit or steps > 3_000_000:
                raise SimulationError(f"the run hangs: {self.describe()}")
            if steps % 64 == 0:
                self.check_bound()
        if not (self.distributor.ended and self.collector.ended):
            raise SimulationError(f"nothing happens any more: {self.describe()}")
        self.judge()

    def describe(self) -> str:
        """Where everybody stands."""
        lines = [f"seed {self.seed}, {self.now:.1f} s", str(self.distributor.machine.snapshot())]
        lines += [str(self.collector.machine.snapshot())]
        lines += [str(one.machine.snapshot()) for one in self.workers if one.running]
        return "\n  ".join(lines)

    def check_bound(self) -> None:
        for name, task in self.distributor.machine.tasks.items():
            ledger = task.ledger
            members = max(1, task.workers)
            bound = (self.options.max_held_items + 1000) * (members + len(self.plan.workers[name]))
            if ledger.leased + ledger.waiting > bound:
                raise SimulationError(f"{ledger.leased} leased and {ledger.waiting} waiting of {name}")

    def judge(self) -> None:
        """The invariants of delivery.md."""
        machine = self.distributor.machine
        for name, task in machine.tasks.items():
            yielded = self.yielded[name]
            for number in range(yielded):
                one = (name, number)
                collected, failed = self.collected[one], self.failed[one]
                if collected > 1:
                    raise SimulationError(f"{one} was collected {collected} times")
                if failed > 1:
                    raise SimulationError(f"{one} was told to the failed function {failed} times")
                if not collected and not failed:
                    raise SimulationError(f"{one} was lost")
                if failed and number not in task.ledger.failed:
                    raise SimulationError(f"{one} failed, but the distributor counts it as collected")
                if self.executions[one] > 1 + self.faults[one]:
                    raise SimulationError(f"{one} ran {self.executions[one]} times for {self.faults[one]} faults")
            if task.ledger.next_number != yielded or task.ledger.unfinished:
                raise SimulationError(f"{name}: {yielded} yielded, the ledger ends at {task.ledger.next_number}")
        self.judge_states()

    def judge_states(self) -> None:
        machine = self.distributor.machine
        for name, task in machine.tasks.items():
            if not task.is_over:
                raise SimulationError(f"the run ended with {name} {task.state}")
            broken = name in self.broken_sources
            if task.state == "complete" and (broken or self.yielded[name] != self.plan.items[name]):
                raise SimulationError(f"{name} is complete after {self.yielded[name]} of {self.plan.items[name]}")
            if task.state == "failed" and not broken:
                raise SimulationError(f"{name} failed: {machine.troubles[name]}")
        good = all(task.is_good for task in machine.tasks.values())
        if self.distributor.ended.status != (0 if good else 1):
            raise SimulationError(f"exit status {self.distributor.ended} of a run that is {'good' if good else 'bad'}")
        calm = not (self.plan.lose or self.plan.breaks or self.plan.kills or self.plan.freezes)
        if calm and any(one.running and one.machine.run for one in self.workers):
            self.after(0, lambda: None)
            self.settle()
            still = [one.name for one in self.workers if one.running and one.machine.run]
            if still:
                raise SimulationError(f"the run is over, but {still} do not end")

    def settle(self) -> None:
        """Some seconds more for what is on its way."""
        end = self.now + 5
        while self._heap and self._heap[0][0] < end:
            self.now, _, call = heapq.heappop(self._heap)
            call()
