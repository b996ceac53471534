"""How long items took in one worker process: counted in classes, and, if they are wanted, the slowest of all.

What costs a look at the clock per item is done only where an item has one anyway: short items are timed in strides
(see `shares`), and a stride counts by its mean. Items of some milliseconds have a stride of their own. If the slowest
are wanted each call is timed by itself.
"""

from __future__ import annotations

import heapq
import math
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zmqpipeline.protocol.status_records import ITEM_SECONDS, ItemTimes
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.child_report import SlowItem

if TYPE_CHECKING:
    from zmqpipeline.runtime.threads.execution import Slot


def class_of(seconds: float) -> tuple[float, float]:
    """The bounds of the class that this time is in: more than the first, at most the second; -1 for nothing."""
    at = bisect_left(ITEM_SECONDS, seconds)
    return ITEM_SECONDS[at - 1] if at else -1.0, ITEM_SECONDS[at] if at < len(ITEM_SECONDS) else math.inf


def _nothing(index: int, items: int, seconds: float) -> None:
    """Each call is timed by itself."""


class TimeCounter:
    """Counts the items of one process. Each thread has a row of its own, so that no lock is needed."""

    __slots__ = ("_marks", "_most", "_rows", "_slowest", "_sums")

    def __init__(self, threads: int = 1, slowest: int = 0) -> None:
        """`slowest`: so many of the slowest items of each thread are kept."""
        self._rows = [[0] * (len(ITEM_SECONDS) + 1) for _ in range(threads)]
        self._sums = [0.0] * threads
        self._most = slowest
        self._slowest: list[list[SlowItem]] = [[] for _ in range(threads)]
        self._marks = [-1.0 if slowest else math.inf] * threads
        """Which item of a thread is among its slowest."""

    def note(self, index: int, count: int, seconds: float) -> None:
        """The thread of this index was busy for so long with so many items, one after the other."""
        if count:
            self._rows[index][bisect_left(ITEM_SECONDS, seconds / count)] += count
            self._sums[index] += seconds

    @property
    def is_exact(self) -> bool:
        """Whether each call is timed by itself."""
        return self._most > 0

    def add(self, index: int, bound: float, count: int, seconds: float) -> None:
        """So many calls took no longer than that bound of a class; `seconds` is what is to be added to the sum."""
        self._rows[index][bisect_left(ITEM_SECONDS, bound)] += count
        self._sums[index] += seconds

    def one(self, index: int, number: int, attempt: int, seconds: float, count: int = 1) -> None:
        """A call took so long, that for this item; of `count` items of a batch each takes as long as the call."""
        self._rows[index][bisect_left(ITEM_SECONDS, seconds)] += count
        self._sums[index] += seconds * count
        if seconds > self._marks[index]:
            self._keep(self._slowest[index], index, SlowItem(seconds, number, attempt, time.time()))

    def _keep(self, slowest: list[SlowItem], index: int, item: SlowItem) -> None:
        heapq.heappush(slowest, item)
        if len(slowest) > self._most:
            heapq.heappop(slowest)
        if len(slowest) == self._most:
            self._marks[index] = slowest[0].seconds

    def of_share(
        self, call: Callable[[Any], Any], slot: Slot
    ) -> tuple[Callable[[Any], Any], Callable[[int, int, float], None]]:
        """What to call for the items of a share, which come in order; and what to tell of each stride, as `note`."""
        return (self._around(call, slot), _nothing) if self._most else (call, self.note)

    def _around(self, call: Callable[[Any], Any], slot: Slot) -> Callable[[Any], Any]:
        """The same call, timed."""
        clock, one, index, attempt = time.perf_counter, self.one, slot.index, slot.job.attempt
        row, sums, marks = self._rows[index], self._sums, self._marks

        def timed(value: Any) -> Any:
            began = clock()
            try:
                return call(value)
            finally:
                seconds = clock() - began
                # in a forked child nobody may ever let go of the lock
                if seconds > marks[index] and not forks.in_child:
                    with slot.lock:
                        number = slot.number_of_next()
                    one(index, number, attempt, seconds)
                else:
                    row[bisect_left(ITEM_SECONDS, seconds)] += 1
                    sums[index] += seconds

        return timed

    def read(self) -> ItemTimes:
        """What was counted until now."""
        return ItemTimes([sum(column) for column in zip(*self._rows, strict=True)], sum(self._sums))

    def slowest(self) -> list[SlowItem]:
        """The slowest items, as many as were asked for, the slowest first."""
        return heapq.nlargest(self._most, (one for some in self._slowest for one in list(some)))
