"""What the calls of an event loop have come to, until it is handed over, by the law of `shares`.

After each turn of the event loop in which calls have ended, `_look_back` decides: at once if nothing is left to begin
or what is done is worth a message, but not twice within `MESSAGE_SECONDS`; else when a quantum is over.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

from zmqpipeline.protocol.credit import MAX_BATCH_BYTES
from zmqpipeline.protocol.events import Executed
from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.runtime.threads.serial import Post
from zmqpipeline.runtime.threads.shares import BATCH_ITEMS, MESSAGE_SECONDS
from zmqpipeline.runtime.threads.times import TimeCounter, class_of

TURN = 0.005
"""Seconds that calls go on without a turn of the event loop, if they never wait."""


class Part:
    """What is to be handed over of one attempt."""

    __slots__ = ("failures", "results", "seconds")

    def __init__(self) -> None:
        self.results: list[tuple[int, bytes]] = []
        self.failures: list[tuple[int, ErrorInfo]] = []
        self.seconds = 0.0


class Parts:
    """Of all attempts; see the module. Used on the event loop's thread, but for what says otherwise."""

    def __init__(
        self, post: Post, quantum: float, waiting: Callable[[], int], times: TimeCounter | None = None
    ) -> None:
        """Executed is posted; `waiting` says how many items have not begun; `times` counts those that are done."""
        self._times = times or TimeCounter()
        self._low = self._high = 0.0
        """Of the class of times in which the last calls were."""
        self._alike = 0
        """How many these are; they are told with the part that they are in."""
        self.loop: asyncio.AbstractEventLoop | None = None
        """Is there before anything is kept."""
        self.is_urgent = False
        """What has begun was told: before anything else begins, the next result is to be handed over."""
        self._post = post
        self._quantum = quantum
        self._waiting = waiting
        self._lock = threading.Lock()
        """If the event loop is held up, another thread hands over."""
        self._parts: dict[int, Part] = {}
        self._count = self._bytes = 0
        self._first = self._handed_over = 0.0
        """When the first result came, and when parts were handed over last."""
        self._turn: float | None = None
        """When the first call of this turn ended; None before that."""
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def is_long(self, now: float) -> bool:
        """Whether the event loop is to turn now, since calls have ended for some time without that."""
        return self._turn is not None and now - self._turn > TURN

    def keep(self, number: int, attempt: int, result: bytes, trouble: ErrorInfo | None, seconds: float) -> None:
        """A call has ended: its result is to be handed over, or its trouble."""
        with self._lock:
            part = self._parts.get(attempt)
            if part is None:
                part = self._parts[attempt] = Part()
            if trouble is None:
                part.results.append((number, result))
            else:
                part.failures.append((number, trouble))
            part.seconds += seconds
            # as a rule calls take about as long as the one before
            if self._low < seconds <= self._high:
                self._alike += 1
            else:
                self._note_time(number, attempt, seconds)
            self._count += 1
            self._bytes += len(result)
            if self._count >= BATCH_ITEMS or self._bytes >= MAX_BATCH_BYTES or self.is_urgent:
                self._hand_over()
        if self._turn is None:
            self._turn = time.perf_counter()
            if not self._first:
                self._first = self._turn
            assert self.loop is not None
            self.loop.call_soon(self._look_back)

    def _look_back(self) -> None:
        """Calls have ended in this turn: hand over, or say when."""
        self._turn = None
        if not self._count:
            return
        left = self._waiting()
        if not left or self._count >= left or len(self._parts) > 1:
            due = self._handed_over + MESSAGE_SECONDS
        else:
            due = self._first + self._quantum
        if due <= time.perf_counter():
            self.hand_over()
        elif self._timer is None or due < self._due:
            if self._timer is not None:
                self._timer.cancel()
            assert self.loop is not None
            self._due = due
            self._timer = self.loop.call_later(due - time.perf_counter(), self.hand_over)

    def fail_now(self, numbers: Sequence[int], attempt: int, trouble: ErrorInfo, seconds: float) -> None:
        """A call that holds up the event loop has failed: hand that over with all that is there; from any thread."""
        with self._lock:
            part = self._parts.setdefault(attempt, Part())
            part.failures += [(number, trouble) for number in numbers]
            part.seconds += seconds
            self._note_time(numbers[0], attempt, seconds, len(numbers))
            self._hand_over()

    def _note_time(self, number: int, attempt: int, seconds: float, count: int = 1) -> None:
        """Calls took so long, and not as long as those before; under the lock."""
        if self._times.is_exact:
            self._times.one(0, number, attempt, seconds, count)
            return
        self._tell_times(0.0)
        self._low, self._high = class_of(seconds)
        self._alike = count

    def _tell_times(self, seconds: float) -> None:
        """Calls that are alike, and how long all of a part took; under the lock."""
        if not self._times.is_exact:
            self._times.add(0, self._high, self._alike, seconds)
            self._alike = 0

    def hand_over(self) -> None:
        """Hand over what is there."""
        with self._lock:
            self._hand_over()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hand_over_late(self, moment: float) -> None:
        """Hand over what the event loop is late with; from any thread."""
        with self._lock:
            if self._count and moment - self._first > 1.5 * self._quantum:
                self._hand_over()

    def _hand_over(self) -> None:
        """Post what is there; under the lock."""
        parts, self._parts = self._parts, {}
        self._count = self._bytes = 0
        self._first = 0.0
        self._handed_over = time.perf_counter()
        self.is_urgent = False
        self._tell_times(sum(part.seconds for part in parts.values()))
        for attempt, part in parts.items():
            part.results.sort()
            numbers, results = [number for number, _ in part.results], [one for _, one in part.results]
            self._post(Executed(attempt, numbers, results, part.failures, part.seconds))
