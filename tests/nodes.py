"""The simulated roles: the real machines, with threads, sources and functions made of timed events."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.network import Node
from tests.plans import SimulationError
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.seqset import numbers_of, spans_of
from zmqpipeline.protocol.worker import WorkerMachine

if TYPE_CHECKING:
    from tests.world import World


class WorkerNode(Node):
    """A worker with `slots` threads."""

    def __init__(self, world: World, name: str, task: str, slots: int, options: Options) -> None:
        machine = WorkerMachine(task, slots=slots, incarnation=world.incarnation(), host=name, options=options)
        super().__init__(world, name, machine)
        self.task, self.idle = task, slots
        self.queue: deque[tuple[int, int, bytes]] = deque()
        self.targets = {
            "workers": (lambda: world.distributor, "workers"),
            "results": (lambda: world.collector, "results"),
        }

    def act(self, command: c.Command) -> None:
        """Carry out a command of this role."""
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

    def is_cut_off(self) -> None:
        """What was sent here may be taken for lost, and be executed by another one."""
        self.world.touch(self)

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
            if world.rng.random() < plan.heavy:
                seconds += 100 * plan.service
            world.executions[world.ident(self.task, number)] += 1
        world.after(seconds, lambda: self.done(attempt, batch, seconds))

    def done(self, attempt: int, batch: list[tuple[int, bytes]], seconds: float) -> None:
        """The thread hands over what it did, unless an item killed the process."""
        world = self.world
        if not self.running:
            return
        if self.frozen:
            world.after(0.5, lambda: self.done(attempt, batch, seconds))
            return
        if any(world.ident(self.task, number) in world.poison for number, _ in batch):
            world.note("poison", self.name)
            world.kill_worker(self)
            return
        good, failures = [], []
        for number, payload in batch:
            one = world.ident(self.task, number)
            if world.raises_left[one] > 0:
                world.raises_left[one] -= 1
                world.faults[one] += 1
                failures.append((number, m.Trouble("ValueError", "as planned")))
            else:
                good.append((number, b"r" + payload))
        world.after(0.0, self.next_item)
        self.tell(e.Executed(attempt, [n for n, _ in good], [p for _, p in good], failures, seconds))

    def next_item(self) -> None:
        """A thread is free again."""
        self.idle += 1
        while self.running and self.idle and self.queue:
            self.idle -= 1
            self.take()


class DistributorNode(Node):
    """The distributor and its sources, which begin anew with it."""

    def __init__(self, world: World, run: str) -> None:
        machine = DistributorMachine(
            "sim",
            world.plan.tasks,
            incarnation=world.incarnation(),
            run=run,
            options=world.options,
            rng=random.Random(world.rng.random()),
            metadata="local",
        )
        super().__init__(world, "distributor", machine)
        self.targets = {"acks": (lambda: world.collector, "acks")}
        self.started = False
        self.yielded = dict.fromkeys(world.plan.items, 0)

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
                world.after(world.plan.delay, lambda: self.produce(task, count, ack_id))
            case _:
                super().act(command)

    def send(self, peer: e.Peer, envelope: m.Envelope) -> None:
        """What is sent may be executed from now on."""
        if isinstance(envelope.body, m.Work):
            self.world.learn(envelope.body.task, numbers_of(envelope.body.spans), envelope.body.payloads)
        super().send(peer, envelope)

    def produce(self, task: str, count: int, ack_id: int) -> None:
        """Some of the items asked for; the rest in further parts."""
        world, plan = self.world, self.world.plan
        if not self.running:
            return
        if self.frozen:
            world.after(0.5, lambda: self.produce(task, count, ack_id))
            return
        payloads, state = self.step(task, self.part(count), count, ack_id)
        keys = [one.rjust(16, b".") for one in payloads] if task in plan.keyed else None
        trouble = m.Trouble("ValueError", "the source raised") if state == "failed" else None
        left = count - len(payloads)
        self.tell(e.Produced(task, state, payloads, keys, trouble))
        if state == "more":
            world.after(plan.delay * 3 + plan.source_seconds, lambda: self.produce(task, left, ack_id))

    def part(self, count: int) -> int:
        """How many of these steps come in the next part: a slow source's items one at a time."""
        if self.world.plan.source_seconds >= 0.002:
            return 1
        return count if self.world.rng.random() < 0.7 else self.world.rng.randint(0, count)

    def step(self, task: str, part: int, count: int, ack_id: int) -> tuple[list[bytes], str]:
        """Take so many steps of a source of which `count` are asked for."""
        world = self.world
        payloads: list[bytes] = []
        for _ in range(part):
            number = self.yielded[task]
            if number == world.source_ends[task]:
                return payloads, "failed" if task in world.broken_sources else "exhausted"
            if task in world.gates and ack_id < number:
                # Lock-step: the next item only when every item yielded before is acknowledged.
                return payloads, "gated"
            self.yielded[task] += 1
            payloads.append(world.payload(task, number))
        return payloads, "ready" if part == count else "more"


class CollectorNode(Node):
    """The collector and its one thread; with a journal, what it does and marks is one step, and then it is said."""

    def __init__(self, world: World) -> None:
        super().__init__(
            world, "collector", CollectorMachine("sim", incarnation=world.incarnation(), options=world.options)
        )
        self.free_at = 0.0
        self.calls_later: list[Callable[[], None]] = []
        held = world.disk.restored() if world.disk is not None else None
        if held is not None:
            self.tell(held)

    def act(self, command: c.Command) -> None:
        """Carry out a command of this role."""
        match command:
            case c.SetRun():
                if self.world.disk is not None:
                    self.later(lambda: self.begin(command), 0)
            case c.Collect(task, attempt, spans, payloads, keys):
                numbers = numbers_of(spans)
                half = len(numbers) // 2 if len(numbers) > 2 and self.world.rng.random() < 0.3 else len(numbers)
                for low, high in ((0, half), (half, len(numbers))):
                    if low < high:
                        some = keys[m.KEY_BYTES * low : m.KEY_BYTES * high]
                        self.later(
                            self._collector_of(task, attempt, numbers[low:high], payloads[low:high], some), high - low
                        )
            case c.CallFailed(failures):
                self.later(lambda: self.call_failed(failures), len(failures))
            case c.CallFinished():
                self.later(lambda: self.finish(command), 1)
            case _:
                super().act(command)

    def _collector_of(
        self, task: str, attempt: int, numbers: list[int], payloads: list[bytes], keys: bytes
    ) -> Callable[[], None]:
        return lambda: self.collect(task, attempt, numbers, payloads, keys)

    def later(self, call: Callable[[], None], items: int) -> None:
        """One thread: calls run one after the other."""
        self.free_at = max(self.free_at, self.world.now) + items * self.world.plan.collect_seconds
        self.world.at(self.free_at, lambda: self.carry_out(call))

    def carry_out(self, call: Callable[[], None]) -> None:
        """A dead process calls nothing any more, a frozen one nothing yet."""
        if self.frozen:
            self.free_at = max(self.free_at, self.world.now + 0.5)
            self.calls_later.append(call)
        elif self.running:
            call()

    def thaw(self) -> None:
        """Go on with the calls that were under way, then with what came in."""
        self.frozen = False
        calls, self.calls_later = self.calls_later, []
        for call in calls:
            self.carry_out(call)
        super().thaw()

    def begin(self, command: c.SetRun) -> None:
        """Write down the run."""
        assert self.world.disk is not None
        self.world.disk.begin(command)

    def finish(self, command: c.CallFinished) -> None:
        """Write down the end, then call `finished`."""
        if self.world.disk is not None:
            self.world.disk.finish = command
        self.say(e.FinishedCalled())

    def say(self, event: e.Event) -> None:
        """Answer the machine: at once, or after the commit, so that the process may die in between."""
        if self.world.disk is None:
            self.tell(event)
        else:
            self.world.after(0.001, lambda: self.tell(event))

    def collect(self, task: str, attempt: int, numbers: list[int], payloads: list[bytes], keys: bytes) -> None:
        """Call the collector's function for these; it raises where the fates have it so."""
        world = self.world
        good, failures, digests = [], [], b""
        for index, (number, payload) in enumerate(zip(numbers, payloads, strict=True)):
            one = world.note_collected(task, number, payload)
            if one in world.collector_raises:
                failures.append((number, m.Trouble("KeyError", "as planned"), payload))
            else:
                good.append(number)
                digests += keys[m.KEY_BYTES * index : m.KEY_BYTES * (index + 1)]
        if world.disk is not None:
            world.disk.collected(task, good, digests)
        self.say(e.Collected(task, spans_of(good), failures, b"", attempt))

    def call_failed(self, failures: list[m.FailedItem]) -> None:
        """Call the `failed` function."""
        by_task: dict[str, list[int]] = {}
        for item in failures:
            self.world.note_failed(item)
            by_task.setdefault(item.task, []).append(item.number)
        if self.world.disk is not None:
            self.world.disk.failed(failures)
        for task, numbers in by_task.items():
            self.say(e.FailedCalled(task, spans_of(numbers)))
