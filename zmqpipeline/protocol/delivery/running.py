"""What a worker's threads execute now, without a word from them: a report names it, an item pays nothing for it.

Threads take items in the order in which they came, which is that of their numbers but for what is tried again, and an
item leaves the set when its outcome is known. So the first of those that are pending, one a thread, are the ones that
run: of long items there are hardly ever more, and short ones are not worth a name. When each began is known as well as
it was watched: to the millisecond with one thread, otherwise to the second that lies between two reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, islice, starmap

from zmqpipeline.protocol.data.ranges import pairs
from zmqpipeline.protocol.messages import MAX_NAMED, RunningItem, Spans


class Running:
    """Remembers, from report to report, when an item was first seen to run."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def named(
        self, pending: Spans, attempts: Mapping[int, int], slots: int, began: float, now: float
    ) -> list[RunningItem]:
        """Those of the pending items that `slots` threads execute; `attempts` are those that are not the first.

        `began` is when an outcome was known, or items came, last: no earlier can one have begun that is new here.
        """
        numbers = list(islice(chain.from_iterable(starmap(range, pairs(pending))), min(slots, MAX_NAMED)))
        self._since = {number: self._since.get(number, began) for number in numbers}
        return [RunningItem(number, attempts.get(number, 1), max(0.0, now - self._since[number])) for number in numbers]
