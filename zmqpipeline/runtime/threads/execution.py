"""What a worker's thread executes: the user's function, its share of items, and results that are not handed over."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from zmqpipeline.protocol.messages import Blobs, ErrorInfo
from zmqpipeline.runtime.threads.concurrency import CoreClock, CoreTime
from zmqpipeline.runtime.threads.values import open_all
from zmqpipeline.serialization.pack import unpack


class Execution:
    """What is called for each item of a worker: user code, and then what packs its result.

    `call` gets the opened item; if `placed`, also the thread's index, the item's number and the attempt. `packer` makes
    what packs results, for one thread: a packer belongs to one. What an `is_async` call returns is awaited. With a
    `batch` the call gets a list of up to so many items, with their numbers, and returns a list; `what` is the function.
    """

    __slots__ = ("batch", "call", "is_async", "packer", "placed", "what")

    def __init__(
        self,
        call: Callable[..., Any],
        packer: Callable[[], Callable[[Any], bytes]],
        *,
        placed: bool = False,
        is_async: bool = False,
        batch: int = 0,
        what: str = "",
    ) -> None:
        self.call = call
        self.batch = batch
        self.what = what
        self.is_async = is_async
        self.packer = packer
        self.placed = placed

    def with_place(self) -> Callable[..., Any]:
        """The call as one that is always told the place: for whoever stands around it."""
        call = self.call
        return call if self.placed else lambda item, index, number, attempt: call(item)

    def one_by_one(self) -> Execution:
        """The same for packed items, of which one cannot be opened: it fails, and no other with it."""
        call = self.call
        if self.batch:
            return self._with_call(lambda payloads, *place: call([unpack(one) for one in payloads], *place))
        return self._with_call(lambda payload, *place: call(unpack(payload), *place))

    def without_memory(self) -> Execution:
        """The same for items of which none can be opened, as there is no memory left to part them."""
        return self._with_call(_no_memory)

    def _with_call(self, call: Callable[..., Any]) -> Execution:
        return Execution(
            call, self.packer, placed=self.placed, is_async=self.is_async, batch=self.batch, what=self.what
        )


def _no_memory(*place: object) -> NoReturn:
    raise MemoryError("There was not enough memory to open the message that this item came in.")


class Job(NamedTuple):
    """What the items of one Execute have in common."""

    attempt: int
    timeout: float
    trial: bool = False


class Piece:
    """What is left of one Execute. Its first taker opens it."""

    __slots__ = ("_values", "execution", "job", "numbers", "payloads")

    def __init__(
        self, job: Job, execution: Execution, numbers: Sequence[int], payloads: Blobs, values: list[Any] | None = None
    ) -> None:
        """`values` are the items, if they are opened already."""
        self.job = job
        self.execution = execution
        self.numbers = numbers
        self.payloads = payloads
        self._values = values

    def take(self, count: int) -> tuple[Sequence[int], list[Any]]:
        """The first `count` items, opened."""
        if self._values is None:
            self._values = open_all(self.payloads)
            if self._values is None:
                self._values, self.execution = self._parted()
            self.payloads = ()
        numbers, values = self.numbers[:count], self._values[:count]
        self.numbers, self._values = self.numbers[count:], self._values[count:]
        return numbers, values

    def _parted(self) -> tuple[list[Any], Execution]:
        try:
            return list(self.payloads), self.execution.one_by_one()
        except MemoryError:
            return [None] * len(self.payloads), self.execution.without_memory()

    def drop(self, count: int) -> Sequence[int]:
        """Take away the last `count` items; their numbers."""
        keep = len(self.numbers) - count
        numbers = self.numbers[keep:]
        self.numbers = self.numbers[:keep]
        if self._values is None:
            self.payloads = self.payloads[:keep]
        else:
            del self._values[keep:]
        return numbers


class Slot:
    """One thread, its share of items, and what it has to hand over."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.lock = threading.Lock()
        self.gate = threading.Lock()
        """Closed while the thread is at work; an idle one waits here."""
        self.gate.acquire()
        self.todo: deque[Any] = deque()
        """The items of its share that it has not begun. It takes from the left, everybody else from the right."""
        self.share: Sequence[int] = ()
        """The numbers of its share, but for those that were taken away."""
        self.numbers: Iterator[int] = iter(())
        """Of the items of its share that it has not begun, in order; goes on where it was after a quantum."""
        self.part: list[bytes | None] = []
        """Results that are not handed over, in the order of the shares; None for an item that failed."""
        self.failures: list[tuple[int, ErrorInfo]] = []
        self.job = Job(0, 0.0)
        self.execution: Execution | None = None
        self.call: Callable[..., Any] = unpack
        self.pack: Callable[[Any], bytes] = bytes
        # Handed over up to `mark`, busy up to `last` (time.perf_counter).
        self.mark = self.last = 0.0
        self.end = 0.0
        """Of this quantum."""
        self.bytes = 0
        """About so many in `part`."""
        self.executed = 0
        """In this quantum."""
        self.clock: CoreClock | None = None
        """The thread's own; made on it, if there are several."""
        self.entered = CoreTime(0.0, 0.0)
        """What its clock said as this quantum began."""
        self.stride = 1
        """After so many items it looks at the clock: one at the beginning of a share, more if they are short."""
        self.striding = False
        """It takes several items between two looks at the clock, just now."""
        self.timed: tuple[Sequence[int], float] | None = None
        """The items of a call, and when its time is over."""
        self.sizes: list[int] = []
        """Of the next calls of a batch that is tried again in parts, the next one last."""
        self.extra = 0.0
        """Seconds that items waited in calls with others, since it handed over: each takes as long as its call."""
        self.lost = False
        self.thread: threading.Thread | None = None
        self._shares: deque[Sequence[int]] = deque()
        self._handed = 0

    def load(self, piece: Piece, count: int) -> None:
        """Begin a share: the first `count` items of this piece."""
        numbers, values = piece.take(count)
        self.use(piece.execution)
        self.numbers = iter(numbers)
        with self.lock:
            self.share = numbers
            self._shares.append(numbers)
        self.stride = 1
        self.todo.extend(values)

    def use(self, execution: Execution) -> None:
        """Call, and pack, as this says from here on."""
        if execution is not self.execution:
            self.execution = execution
            self.call, self.pack = execution.call, execution.packer()

    def unload(self, count: int | None = None) -> tuple[Sequence[int], list[Any]]:
        """Take away up to `count` items (None: all) that the thread has not begun, the last first; ascending."""
        values: list[Any] = []
        while self.todo and (count is None or len(values) < count):
            try:
                values.append(self.todo.pop())
            except IndexError:
                break  # The thread was faster.
        values.reverse()
        with self.lock:
            keep = len(self.share) - len(values)
            numbers = self.share[keep:]
            self.share = self.share[:keep]
            if values:
                self._shares[-1] = self.share
        return numbers, values

    def number_of_next(self, ahead: int = 0) -> int:
        """The number of the item whose result comes next, or so many after it; under the lock, on the thread itself."""
        found = self._numbers_from(self._handed + len(self.part) + ahead, 1)
        if not found:
            raise AssertionError("A thread executes an item that is not in its share. This is a bug of zmqpipeline.")
        return found[0]

    def running(self) -> list[int]:
        """The numbers of the items that the thread is at; none between two. For whoever looks at it.

        The thread goes on meanwhile, without the lock: what it takes after the first count is not among them.
        """
        with self.lock:
            left = len(self.todo)
            at = self._handed + len(self.part)
            return self._numbers_from(at, sum(map(len, self._shares)) - at - left)

    def _numbers_from(self, at: int, count: int) -> list[int]:
        found: list[int] = []
        for share in self._shares:
            if count <= 0:
                break
            some = share[at : at + count]
            found += some
            count -= len(some)
            at = max(0, at - len(share))
        return found

    def take_results(self) -> tuple[Sequence[int], list[bytes], list[tuple[int, ErrorInfo]]]:
        """What is to be handed over: numbers, their results, and failures; under the lock."""
        count = len(self.part)
        results = self.part[:count]
        del self.part[:count]
        failures, self.failures = self.failures, []
        numbers = self._take_numbers(count)
        if failures:
            good = [(number, one) for number, one in zip(numbers, results, strict=True) if one is not None]
            return [number for number, _ in good], [one for _, one in good], failures
        return numbers, results, failures  # type: ignore[return-value]

    def _take_numbers(self, count: int) -> Sequence[int]:
        shares = self._shares
        while len(shares) > 1 and self._handed >= len(shares[0]):
            self._handed -= len(shares.popleft())
        if shares and self._handed + count <= len(shares[0]):
            begin, self._handed = self._handed, self._handed + count
            return shares[0][begin : self._handed]
        numbers: list[int] = []
        while len(numbers) < count:
            if self._handed >= len(shares[0]):
                self._handed -= len(shares.popleft())
                continue
            begin, self._handed = self._handed, min(len(shares[0]), self._handed + count - len(numbers))
            numbers += shares[0][begin : self._handed]
        return numbers
