"""Items that were given up, as a distributor says it: the first of a kind in a line, the next ones as a sum.

Where the function raised, its own process has said it with the traceback and the item. If that is this process, or
was started by who started it, both speak to the same people, and the line here has level INFO: it tells nothing new,
unless the item was tried again in between. An item that was lost with its workers has a line of its own each time,
since its number is all that is known of it. The other lines are there at level DEBUG.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmqpipeline.protocol.commands import Log
from zmqpipeline.protocol.delivery.failure_kinds import FailedItems, Kind, said
from zmqpipeline.protocol.messages import FailedItem

LINE, KNOWN, SILENT = 30, 20, 10


class GivenUp(FailedItems):
    """The items that were given up here, and what is to be said of them."""

    def __init__(self, near: str = "", here: str = "") -> None:
        """`near`: the host of workers that speak to the same people as this process; `here`: the name of its own."""
        super().__init__()
        self._near, self._here = near, here
        self._known: set[tuple[str, str, str]] = set()
        """The kinds of which the first was said by such a worker."""

    def lines(self, failures: Iterable[FailedItem], worker: str, now: float) -> list[Log]:
        """These are given up, of this worker if it is known which."""
        whose: dict[str, str | int] = {"worker": worker} if worker else {}
        found = []
        host = worker.rpartition("/")[0]
        is_near = bool(host) and (worker == self._here or host == self._near)
        for item in failures:
            is_first = self.add(item, now)
            is_known = is_near and _was_said(item)
            if is_first and is_known:
                self._known.add(_kind(item))
            line = KNOWN if is_known else LINE
            text = (
                f"Item {item.number} of {item.task!r} failed for good after {item.attempts} attempt(s) "
                f"({item.stage}): {said(item.trouble)}"
            )
            about = {"task": item.task, "item": item.number, "attempt": item.attempts, **whose}
            found.append(Log(line if is_first or item.stage == "crash" else SILENT, text, about))
        return found

    def sums(self, now: float) -> list[Log]:
        """What is due to be summed up."""
        return [self._sum(kind) for kind in self.kinds.overdue(now)]

    def rest(self, now: float) -> list[Log]:
        """The end: what was not said."""
        return [self._sum(kind) for kind in self.kinds.rest(now)]

    def _sum(self, kind: Kind[FailedItem]) -> Log:
        text = f"{kind.said()} of {kind.what!r} failed for good; first: item {kind.first.number}"
        return Log(KNOWN if _kind(kind.first) in self._known else LINE, text, {"task": kind.what})


def _was_said(item: FailedItem) -> bool:
    """Whether the worker has said that it failed for good: at the first attempt, and of what has a traceback.

    A time-out has none; and who has no memory may not have had enough for a line.
    """
    trouble = item.trouble
    return item.stage == "worker" and item.attempts == 1 and bool(trouble.traceback) and trouble.error != "MemoryError"


def _kind(item: FailedItem) -> tuple[str, str, str]:
    return item.task, item.trouble.error, item.trouble.place
