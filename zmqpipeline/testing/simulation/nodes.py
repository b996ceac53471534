"""The simulated roles: the real machines, with threads, sources and functions made of timed events.

What they call is a subclass's: the user's functions of an app, or inventions of the library's own tests.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.data.ranges import numbers_of
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.worker import WorkerMachine
from zmqpipeline.testing.simulation.clock import SimulationError, Stage
from zmqpipeline.testing.simulation.network import Node

LONG_SECONDS = 0.004
"""An item that takes longer is told of, if others wait behind it."""

BATCH_SECONDS = 0.002
"""So long a thread executes short items before it hands over their results."""


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
    """A worker and its threads."""

    machine: WorkerMachine
    init_seconds = 0.001
    """How long its init functions take, if it has some."""

    def __init__(self, stage: Stage, name: str, machine: WorkerMachine, task: str) -> None:
        """Connect nothing yet; a subclass says where to, in `targets`."""
        super().__init__(stage, name, machine)
        self.task = task
        self.free = list(range(machine.slots))
        """The threads that have nothing to do."""
        self.queue: deque[tuple[int, int, bytes]] = deque()
        self.begun: set[int] = set()
        """The items that its threads have begun and not handed over."""
        self._at: dict[int, tuple[int, float]] = {}
        """The long items that threads are at, with the time when they began."""

    @property
    def idle(self) -> int:
        """How many threads have nothing to do."""
        return len(self.free)

    def act(self, command: c.Command) -> None:
        """Carry out a command of this role."""
        match command:
            case c.Execute(_, attempt, _, numbers, payloads):
                self.queue.extend((n, attempt, one) for n, one in zip(numbers, payloads, strict=True))
                while self.free and self.queue:
                    self._take(self.free.pop(0))
            case c.Initialize():
                self.stage.after(self.init_seconds, self._initialized)
            case c.TakeBack(count):
                n = len(self.queue) if count is None else min(count, len(self.queue))
                numbers = [self.queue.pop()[0] for _ in range(n)]
                self.stage.after(1e-4, lambda: self.tell(e.TakenBack(numbers)))
            case c.SetMetadata(metadata):
                self.set_metadata(metadata)
            case c.LookForEnd():
                pass  # here is no host on which a note could be left
            case _:
                super().act(command)

    def _initialized(self) -> None:
        if self.running and self.frozen:
            self.stage.after(0.5, self._initialized)
        elif self.running:
            self.tell(e.InitDone())

    def held(self) -> set[int]:
        """What this worker has, done or not, as long as it is not released."""
        return self.machine.held()

    @abstractmethod
    def set_metadata(self, metadata: bytes) -> None:
        """A run begins here."""

    @abstractmethod
    def begin(self, thread: int, number: int, attempt: int, payload: bytes) -> float:
        """A thread begins with an item; how many seconds it will take."""

    @abstractmethod
    def outcome(self, number: int, payload: bytes) -> bytes | m.ErrorInfo:
        """What came of an item that was begun, when its time is over."""

    def dies_of(self, numbers: list[int]) -> bool:
        """Whether one of these items kills the process at its end; if so, this has killed it."""
        return False

    def _take(self, thread: int) -> None:
        """A thread takes what it does until it hands over: many short items of one attempt, or one long one."""
        attempt = self.queue[0][1]
        batch: list[tuple[int, bytes]] = []
        seconds = before = 0.0
        while self.queue and self.queue[0][1] == attempt and (not batch or seconds < BATCH_SECONDS):
            number, _, payload = self.queue.popleft()
            batch.append((number, payload))
            before = seconds
            self.begun.add(number)
            seconds += self.begin(thread, number, attempt, payload)
        if seconds - before > LONG_SECONDS:
            self.stage.after(before, lambda: self._is_at(thread, batch[-1][0]))
        if before and seconds > 2 * BATCH_SECONDS:
            # what is done does not wait for the long item that came last
            short, batch = batch[:-1], batch[-1:]
            self.stage.after(before, lambda: self._hand_over(attempt, short, before))
            self.stage.after(seconds, lambda: self._done(thread, attempt, batch, seconds - before))
        else:
            self.stage.after(seconds, lambda: self._done(thread, attempt, batch, seconds))

    def _is_at(self, thread: int, number: int) -> None:
        """A thread begins with a long item; when all are at one, and others wait, that is told."""
        self._at[thread] = number, self.stage.now
        self.stage.after(LONG_SECONDS, self._tell_busy)

    def _tell_busy(self) -> None:
        since = self.stage.now - LONG_SECONDS
        is_busy = len(self._at) == self.machine.slots and all(began <= since for _, began in self._at.values())
        if self.running and not self.frozen and self.queue and is_busy:
            self.tell(e.Running([number for number, _ in self._at.values()]))

    def _done(self, thread: int, attempt: int, batch: list[tuple[int, bytes]], seconds: float) -> None:
        """The thread hands over what it did, and is free."""
        self._at.pop(thread, None)
        if self.frozen and self.running:
            self.stage.after(0.5, lambda: self._done(thread, attempt, batch, seconds))
        elif self._hand_over(attempt, batch, seconds):
            self.stage.after(0.0, lambda: self._next_item(thread))

    def _hand_over(self, attempt: int, batch: list[tuple[int, bytes]], seconds: float) -> bool:
        """Say what came of these items; False if the process is gone, or one of them killed it."""
        if not self.running:
            return False
        if self.frozen:
            self.stage.after(0.5, lambda: self._hand_over(attempt, batch, seconds))
            return True
        if self.dies_of([number for number, _ in batch]):
            return False
        numbers: list[int] = []
        results: list[bytes] = []
        failures: list[tuple[int, m.ErrorInfo]] = []
        self.begun.difference_update(number for number, _ in batch)
        for number, payload in batch:
            what = self.outcome(number, payload)
            if isinstance(what, m.ErrorInfo):
                failures.append((number, what))
            else:
                numbers.append(number)
                results.append(what)
        self.tell(e.Executed(attempt, numbers, results, failures, seconds))
        return True

    def _next_item(self, thread: int) -> None:
        """A thread is free again."""
        self.free.append(thread)
        while self.running and self.free and self.queue:
            self._take(self.free.pop(0))


class DistributorNode(MainNode):
    """The distributor and its sources, which begin anew with it."""

    machine: DistributorMachine

    def __init__(self, stage: Stage, machine: DistributorMachine) -> None:
        """Connect nothing yet; a subclass says where to, in `targets`."""
        super().__init__(stage, "distributor", machine)
        self.started = False

    def act(self, command: c.Command) -> None:
        """Carry out a command of this role."""
        match command:
            case c.LoadMetadata():
                loaded = self.load_metadata()
                self.stage.after(0.01, lambda: self.tell(loaded))
            case c.StartTasks():
                self.start_tasks(command)
                self.started = True
            case c.Produce():
                if not self.started:
                    raise SimulationError("a source was asked before the tasks were started")
                self.stage.after(self.stage.weather.delay, lambda: self._pass_over(command))
            case _:
                super().act(command)

    @abstractmethod
    def load_metadata(self) -> e.MetadataLoaded:
        """Call the metadata function."""

    @abstractmethod
    def start_tasks(self, command: c.StartTasks) -> None:
        """The run begins, or goes on here."""

    @abstractmethod
    def steps(self, command: c.Produce, part: int, count: int) -> e.Produced:
        """Take `part` steps of a source, of which `count` are asked for."""

    @abstractmethod
    def part(self, count: int) -> int:
        """How many of these steps come in the next part."""

    def pause(self) -> float:
        """How long the source takes before the next part, in seconds."""
        return self.stage.weather.delay * 3

    def pass_over(self, command: c.Produce) -> e.Produced:
        """Take the steps whose items are done, without keeping these."""
        taken = self.steps(command, command.over, command.over)
        state = "more" if taken.state == "ready" else taken.state
        return replace(taken, state=state, payloads=[], keys=None, over=len(taken.payloads))

    def _pass_over(self, command: c.Produce) -> None:
        """What is done comes first; then the items asked for."""
        if not self.running:
            return
        if self.frozen:
            self.stage.after(0.5, lambda: self._pass_over(command))
            return
        if command.over:
            passed = self.pass_over(command)
            self.tell(passed)
            if passed.state != "more":
                return
        self._produce(command, command.count)

    def _produce(self, command: c.Produce, count: int) -> None:
        """Some of the items asked for; the rest in further parts."""
        if not self.running:
            return
        if self.frozen:
            self.stage.after(0.5, lambda: self._produce(command, count))
            return
        produced = self.steps(command, self.part(count), count)
        left = count - len(produced.payloads)
        self.tell(produced)
        if produced.state == "more":
            self.stage.after(self.pause(), lambda: self._produce(command, left))


class CollectorNode(MainNode):
    """The collector and its one thread, on which calls run one after the other."""

    machine: CollectorMachine

    def __init__(self, stage: Stage, machine: CollectorMachine, seconds: float) -> None:
        """`seconds` is how long a call takes."""
        super().__init__(stage, "collector", machine)
        self._seconds = seconds
        self._free_at = 0.0
        self._calls_later: list[Callable[[], None]] = []

    def act(self, command: c.Command) -> None:
        """Carry out a command of this role."""
        match command:
            case c.SetRun():
                self.set_run(command)
            case c.KeepPauses():
                self.keep_pauses(command)
            case c.Collect(_, _, spans):
                numbers = numbers_of(spans)
                half = len(numbers) // 2 if len(numbers) > 2 and self.stage.rng.random() < 0.3 else len(numbers)
                for low, high in ((0, half), (half, len(numbers))):
                    if low < high:
                        self.later(self._part_of(command, numbers, low, high), high - low)
            case c.CallFailed(failures):
                self.later(lambda: self.call_failed(failures), len(failures))
            case c.CallFinished():
                self.is_finishing()
                self.later(lambda: self.finish(command), 1)
            case _:
                super().act(command)

    def _part_of(self, command: c.Collect, numbers: list[int], low: int, high: int) -> Callable[[], None]:
        payloads, keys = command.payloads[low:high], command.keys[m.KEY_BYTES * low : m.KEY_BYTES * high]
        return lambda: self.collect(command.task, command.attempt, numbers[low:high], payloads, keys, command.each)

    @abstractmethod
    def set_run(self, command: c.SetRun) -> None:
        """A run begins here."""

    def keep_pauses(self, command: c.KeepPauses) -> None:
        """Where there is a journal, they are written down."""

    @abstractmethod
    def collect(self, task: str, attempt: int, numbers: list[int], payloads: m.Blobs, keys: bytes, each: bool) -> None:
        """Call the function for these items, and tell the machine; `each` as in Collect."""

    @abstractmethod
    def call_failed(self, failures: list[m.FailedItem]) -> None:
        """Call the `failed` function for these, and tell the machine."""

    @abstractmethod
    def finish(self, command: c.CallFinished) -> None:
        """Call the `finished` function, and tell the machine."""

    def is_finishing(self) -> None:
        """The machine has asked for the end; the calls before it may still be under way."""

    def later(self, call: Callable[[], None], items: int) -> None:
        """One thread: calls run one after the other."""
        self._free_at = max(self._free_at, self.stage.now) + items * self._seconds
        self.stage.at(self._free_at, lambda: self.carry_out(call))

    def carry_out(self, call: Callable[[], None]) -> None:
        """A dead process calls nothing any more, a frozen one nothing yet."""
        if self.frozen:
            self._free_at = max(self._free_at, self.stage.now + 0.5)
            self._calls_later.append(call)
        elif self.running:
            call()

    def thaw(self) -> None:
        """Go on with the calls that were under way, then with what came in."""
        self.frozen = False
        calls, self._calls_later = self._calls_later, []
        for call in calls:
            self.carry_out(call)
        super().thaw()
