"""The simulated roles: the real machines, with threads, sources and functions made of timed events."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.laws import check_alone
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

Ack = tuple[str, int, bytes]
"""Task, count and data of the last ACK, as a gate is told them."""


class MainNode(Node):
    """A distributor or a collector: one that is drained goes on in another process."""

    @property
    def is_drained(self) -> bool:
        """Whether it ended because it was asked to."""
        return self.ended is not None and self.ended.reason == "drained"

    @property
    def is_over(self) -> bool:
        """Whether it ended by itself, and the run with it."""
        return self.ended is not None and not self.is_drained


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
            case c.SetMetadata(metadata):
                self.world.check_metadata(self.name, self.machine.run, metadata)
            case _:
                super().act(command)

    def held(self) -> set[int]:
        """What this worker has, done or not, as long as it is not released."""
        machine = self.machine
        spans = (machine._pending.spans(), machine._kept.spans())
        return {*machine._failures, *(number for one in spans for number in numbers_of(one))}

    def is_cut_off(self) -> None:
        """The distributor may take what was sent here for lost, and give it to another one; the collector cannot."""
        connection = self.dealers.get("workers")
        if self.world.distributor.running and connection is not None and not connection.alive:
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
                seconds += plan.heavy_factor * plan.service
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


class DistributorNode(MainNode):
    """The distributor and its sources, which begin anew with it."""

    def __init__(self, world: World, run: str, *, is_first: bool = True) -> None:
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
        self.proposed, self.is_first = run, is_first
        self.heard: set[bytes] = set()
        """The workers that have told this distributor, since its run goes on, what they hold."""
        self.started = False
        self.yielded = dict.fromkeys(world.plan.items, 0)
        self.different: dict[str, set[bytes]] = {task: set() for task in world.plan.items}

    def act(self, command: c.Command) -> None:
        world = self.world
        match command:
            case c.LoadMetadata():
                metadata = world.load_metadata(self.proposed)
                world.after(0.01, lambda: self.tell(e.MetadataLoaded(metadata)))
            case c.StartTasks(metadata):
                world.check_metadata(self.name, self.machine.run, metadata)
                self.started = True
            case c.Produce(task, count, _, ack_task, ack_id, ack_data):
                if not self.started:
                    raise SimulationError("a source was asked before the tasks were started")
                ack = (ack_task, ack_id, ack_data)
                world.after(world.plan.delay, lambda: self.produce(task, count, ack))
            case _:
                super().act(command)

    def send(self, peer: e.Peer, envelope: m.Envelope) -> None:
        """What is sent may be executed from now on."""
        body = envelope.body
        if isinstance(body, m.Work):
            numbers = numbers_of(body.spans)
            self.world.learn(body.task, numbers, body.payloads)
            check_alone(self.machine.tasks[body.task].ledger, envelope.addressee, numbers)
            if not self.is_first:
                self.world.note_sent(self, peer[1], body.task, numbers)
        super().send(peer, envelope)

    def tell(self, event: e.Event) -> None:
        """Note who has told what it holds, before the answer."""
        if not self.is_first and isinstance(event, e.Received) and self.machine.phase == "running":
            body = event.envelope.body
            if isinstance(body, m.WorkerReport) and body.held is not None and body.run == self.machine.run:
                self.heard.add(event.envelope.sender)
        super().tell(event)

    def produce(self, task: str, count: int, ack: Ack) -> None:
        """Some of the items asked for; the rest in further parts."""
        world, plan = self.world, self.world.plan
        if not self.running:
            return
        if self.frozen:
            world.after(0.5, lambda: self.produce(task, count, ack))
            return
        payloads, state = self.step(task, self.part(count), count, ack)
        keys = [one.rjust(16, b".") for one in payloads] if task in plan.keyed else None
        trouble = m.Trouble("ValueError", "the source raised") if state == "failed" else None
        left = count - len(payloads)
        self.tell(e.Produced(task, state, payloads, keys, trouble))
        if state == "more":
            world.after(plan.delay * 3 + plan.source_seconds, lambda: self.produce(task, left, ack))

    def part(self, count: int) -> int:
        """How many of these steps come in the next part: a slow source's items one at a time."""
        if self.world.plan.source_seconds >= 0.002:
            return 1
        return count if self.world.rng.random() < 0.7 else self.world.rng.randint(0, count)

    def step(self, task: str, part: int, count: int, ack: Ack) -> tuple[list[bytes], str]:
        """Take so many steps of a source of which `count` are asked for."""
        world = self.world
        payloads: list[bytes] = []
        for _ in range(part):
            number = self.yielded[task]
            if number == world.source_ends[task]:
                return payloads, "failed" if task in world.broken_sources else "exhausted"
            if not world.is_open(task, ack, len(self.different[task])):
                return payloads, "gated"
            self.yielded[task] += 1
            payloads.append(world.payload(task, number))
            self.different[task].add(payloads[-1])
        return payloads, "ready" if part == count else "more"

    def stop(self) -> None:
        """The process ended; one that was drained is started again."""
        super().stop()
        if self.is_drained:
            self.world.distributor_drained()


class CollectorNode(MainNode):
    """The collector and its one thread; with a journal, what it does and marks is one step, and then it is said."""

    def __init__(self, world: World) -> None:
        super().__init__(
            world, "collector", CollectorMachine("sim", incarnation=world.incarnation(), options=world.options)
        )
        self.free_at = 0.0
        self.calls_later: list[Callable[[], None]] = []
        self.open: list[tuple[str, int]] = []
        """What was called and is not in the journal yet."""
        held = world.disk.restored() if world.disk is not None else None
        if held is not None:
            self.tell(held)

    def act(self, command: c.Command) -> None:
        """Carry out a command of this role."""
        match command:
            case c.SetRun(run, metadata):
                self.world.check_metadata(self.name, run, metadata)
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
                self.world.note_finishing()
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
        good, rows, failures, digests = [], [], [], b""
        called = []
        for index, (number, payload) in enumerate(zip(numbers, payloads, strict=True)):
            one = world.note_collected(task, number, payload)
            called.append(one)
            if one in world.collector_raises:
                failures.append((number, m.Trouble("KeyError", "as planned"), payload))
            else:
                good.append(number)
                rows.append(one)
                digests += keys[m.KEY_BYTES * index : m.KEY_BYTES * (index + 1)]
        data = world.ack_data() if good else b""

        def commit() -> None:
            if world.disk is not None:
                world.disk.collected(task, good, digests, data, rows)
            self.say(e.Collected(task, spans_of(good), failures, data, attempt))

        self.commit(called, commit)

    def commit(self, called: list[tuple[str, int]], write: Callable[[], None]) -> None:
        """The calls for these are made: write that down and say it, at once or a little later."""
        seconds = self.world.plan.commit_seconds
        if not seconds:
            write()
            return
        self.open += called

        def close() -> None:
            for one in called:
                self.open.remove(one)
            write()

        self.world.after(seconds, lambda: self.carry_out(close))

    def stop(self) -> None:
        """The process ended; one that was drained is started again."""
        super().stop()
        if self.is_drained:
            self.world.collector_drained()

    def kill(self) -> None:
        """What was called and is not in the journal is called again, and nothing else."""
        for one in set(self.open):
            self.world.note("open batch lost", self.name)
            self.world.forgotten[one] += 1
        super().kill()

    def call_failed(self, failures: list[m.FailedItem]) -> None:
        """Call the `failed` function."""
        by_task: dict[str, list[int]] = {}
        called = []
        for item in failures:
            called.append(self.world.note_failed(item))
            by_task.setdefault(item.task, []).append(item.number)

        def commit() -> None:
            if self.world.disk is not None:
                self.world.disk.failed(failures)
            for task, numbers in by_task.items():
                self.say(e.FailedCalled(task, spans_of(numbers)))

        self.commit(called, commit)
