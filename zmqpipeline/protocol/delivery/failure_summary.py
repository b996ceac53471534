"""Items that were given up, as a distributor says it: the first of a kind in a line, the next ones as a sum.

Where the function raised, its own process has said it with the traceback. An item that was lost with its workers has a
line of its own each time, since its number is all that is known of it. The other lines are there at level DEBUG.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmqpipeline.protocol.commands import Log
from zmqpipeline.protocol.delivery.failure_kinds import FailedItems, Kind, said
from zmqpipeline.protocol.messages import FailedItem

LINE, SILENT = 30, 10


class GivenUp(FailedItems):
    """The items that were given up here, and what is to be said of them."""

    def lines(self, failures: Iterable[FailedItem], worker: str, now: float) -> list[Log]:
        """These are given up, of this worker if it is known which."""
        whose: dict[str, str | int] = {"worker": worker} if worker else {}
        found = []
        for item in failures:
            is_first = self.add(item, now)
            text = (
                f"Item {item.number} of {item.task!r} failed for good after {item.attempts} attempt(s) "
                f"({item.stage}): {said(item.trouble)}"
            )
            about = {"task": item.task, "item": item.number, "attempt": item.attempts, **whose}
            found.append(Log(LINE if is_first or item.stage == "crash" else SILENT, text, about))
        return found

    def sums(self, now: float) -> list[Log]:
        """What is due to be summed up."""
        return [_sum(kind) for kind in self.kinds.overdue(now)]

    def rest(self, now: float) -> list[Log]:
        """The end: what was not said."""
        return [_sum(kind) for kind in self.kinds.rest(now)]


def _sum(kind: Kind[FailedItem]) -> Log:
    text = f"{kind.said()} of {kind.what!r} failed for good; first: item {kind.first.number}"
    return Log(LINE, text, {"task": kind.what})
