"""What whoever starts workers says of those that could not be initialized: the first of a kind, then numbers.

Beside a distributor of the same `run` that one says it, of workers that it knows, and here it is only known. It knows
none whose class raised as it was made.
"""

from __future__ import annotations

import logging
import time

from zmqpipeline.processes.restarts import FAILED_STARTS_LIMIT, ChildEnded, Slot
from zmqpipeline.protocol.delivery.failure_kinds import Kind, Kinds, said, traceback_of
from zmqpipeline.protocol.messages import ErrorInfo


class FailedStarts:
    """Of one crew."""

    def __init__(self, log: logging.Logger, *, beside_distributor: bool = False) -> None:
        """`log` is where it is said."""
        self._log, self._beside_distributor = log, beside_distributor
        self._kinds: Kinds[int] = Kinds()
        self._of_others: Kinds[int] = Kinds()
        """Those that the distributor says."""
        self._newest: dict[str, ErrorInfo] = {}

    def note(self, end: ChildEnded) -> bool:
        """Whether this end was a failed start of which there is nothing more to say: its kind was told before."""
        trouble, task = end.told.init_trouble, end.place.task
        if trouble is None:
            return False
        self._newest[task] = trouble
        is_known = self._beside_distributor and (end.told.is_starting or end.told.is_ready)
        kinds = self._of_others if is_known else self._kinds
        is_first = kinds.add(task, trouble, lambda: end.pid, time.monotonic(), "starts")
        if is_first and not is_known:
            text = "The %s could not be initialized: %s. The next of this kind are counted.%s"
            self._log.error(text, end.place.label, said(trouble).rstrip("."), traceback_of(trouble))
        self._say(self._kinds.overdue(time.monotonic()))
        return not is_first

    def reason(self, task: str) -> str:
        """What the last one of this task failed of, for the end of a sentence; else where its messages are."""
        newest = self._newest.get(task)
        return f": {said(newest)}" if newest else "; its messages are above"

    def verdict(self, place: Slot) -> str:
        """Why nobody is started in this place any more."""
        why = self.reason(place.task).rstrip(".")
        if place.failed_starts >= FAILED_STARTS_LIMIT:
            return f"The {place.label} failed to start {place.failed_starts} times in a row{why}."
        return f"No worker of {place.task!r} can be initialized, and each would meet the same{why}."

    def troubles(self) -> dict[str, ErrorInfo]:
        """By task, what the init functions of its workers raised last."""
        return dict(self._newest)

    def close(self) -> None:
        """The end: say what was not said."""
        self._say(self._kinds.rest(time.monotonic()))

    def _say(self, kinds: list[Kind[int]]) -> None:
        for kind in kinds:
            self._log.error("%s of workers of %r failed", kind.said(), kind.what)
