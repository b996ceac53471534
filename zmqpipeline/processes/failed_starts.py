"""What whoever starts workers says of those that could not be initialized: the first of a kind, then numbers.

Beside a distributor of the same `run` that one says it, and here it is only known.
"""

from __future__ import annotations

import logging
import time

from zmqpipeline.processes.restarts import FAILED_STARTS_LIMIT, ChildEnded, Slot
from zmqpipeline.protocol.delivery.failure_kinds import Kind, Kinds, said
from zmqpipeline.protocol.messages import ErrorInfo


class FailedStarts:
    """Of one crew."""

    def __init__(self, log: logging.Logger | None) -> None:
        """`log` is where it is said; None: by others."""
        self._log = log
        self._kinds: Kinds[int] = Kinds()
        self._newest: dict[str, ErrorInfo] = {}

    def note(self, end: ChildEnded) -> bool:
        """Whether this end was a failed start of which there is nothing more to say: its kind was told before."""
        trouble, task = end.told.init_trouble, end.place.task
        if trouble is None:
            return False
        self._newest[task] = trouble
        is_first = self._kinds.add(task, trouble, lambda: end.pid, time.monotonic(), "starts")
        if is_first and self._log is not None:
            # a time-out has no frames
            shown = f"\n{trouble.traceback.rstrip()}" if "Traceback" in trouble.traceback else ""
            text = "The %s could not be initialized: %s. The next of this kind are counted.%s"
            self._log.error(text, end.place.label, said(trouble).rstrip("."), shown)
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
        if self._log is not None:
            for kind in kinds:
                self._log.error("%s of workers of %r failed", kind.said(), kind.what)
