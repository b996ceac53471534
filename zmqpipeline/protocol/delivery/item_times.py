"""How long the items of one task took, as its workers say: added up over those that are here and those that are gone.

A worker tells what it has counted in the run so far. So what it told last counts in the place of what it told before,
also if its connection broke in between, and stays when it is gone.
"""

from __future__ import annotations

from zmqpipeline.protocol.fields import MAX_NUMBER
from zmqpipeline.protocol.status_records import ITEM_SECONDS, ItemTimes

REMEMBERED = 20_000
"""Of so many workers it is known what they told last."""


def no_times() -> ItemTimes:
    """Those of no items."""
    return ItemTimes([0] * (len(ITEM_SECONDS) + 1), 0.0)


def without(times: ItemTimes, before: ItemTimes) -> ItemTimes:
    """What came after that."""
    counts = [more - less for more, less in zip(times.counts, before.counts, strict=True)]
    return ItemTimes(counts, max(0.0, times.seconds - before.seconds))


class TaskTimes:
    """See the module."""

    __slots__ = ("_counts", "_seconds", "_told")

    def __init__(self) -> None:
        """No worker has told anything."""
        self._counts = [0] * (len(ITEM_SECONDS) + 1)
        self._seconds = 0.0
        self._told: dict[bytes, ItemTimes] = {}

    def told(self, who: bytes, times: ItemTimes | None) -> None:
        """A worker tells what it has counted."""
        if times is None or len(times.counts) != len(self._counts):
            return
        new, old = times.counts, self._told.get(who)
        if old is None and len(self._told) >= REMEMBERED:
            del self._told[next(iter(self._told))]
        old = old or no_times()
        self._counts = [most + more - less for most, more, less in zip(self._counts, new, old.counts, strict=True)]
        self._seconds += times.seconds - old.seconds
        self._told[who] = times

    def left(self, who: bytes, times: ItemTimes | None) -> None:
        """It has said goodbye, with its last count: it will not tell any more."""
        self.told(who, times)
        self._told.pop(who, None)

    def of(self, who: bytes) -> float:
        """How many seconds the calls of this worker took, in sum."""
        told = self._told.get(who)
        return 0.0 if told is None else told.seconds

    def sum(self) -> ItemTimes:
        """Those of all workers; no more than can be sent."""
        return ItemTimes([min(one, MAX_NUMBER) for one in self._counts], max(0.0, self._seconds))
