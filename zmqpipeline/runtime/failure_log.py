"""Says what user code raised, where it was raised: the first of a kind with its traceback and its item, then sums.

What a kind is, and when a sum is due, is counted by `protocol.delivery.failure_kinds`; this is its clock, its lock and
its logger.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable

from zmqpipeline.errors import Retry
from zmqpipeline.protocol.delivery.failure_kinds import Kind, Kinds, said
from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.runtime.error_text import shown, trouble_of


class FailureLog:
    """One for each role; used from any thread. Whoever has a thread to spare calls `look` when it asks to be called."""

    def __init__(
        self,
        log: logging.Logger,
        clock: Callable[[], float] = time.perf_counter,
        *,
        noun: str = "Item",
        level: int = logging.WARNING,
    ) -> None:
        """`log` is the role's logger; `noun` is what fails, and `level` how loud that is said."""
        self._log = log
        self._noun, self._level = noun, level
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: Kinds[str] = Kinds()

    def item(self, error: BaseException, task: str, number: int, attempt: int, value: object, stage: str) -> ErrorInfo:
        """A function raised this for an item; the same as text. `stage` says whose function: worker or collector."""
        trouble = trouble_of(error)
        if isinstance(error, Retry):
            # it is no failure
            return trouble
        try:
            self._say_item(trouble, task, number, attempt, value, stage)
        except MemoryError:
            # no line for want of memory; what was raised travels all the same, and others say it
            traceback.clear_frames(error.__traceback__)
        return trouble

    def _say_item(self, trouble: ErrorInfo, task: str, number: int, attempt: int, value: object, stage: str) -> None:
        unit = f"{self._noun.lower()}s" if attempt == 1 else "attempts"
        if self._is_first(task, trouble, lambda: shown(value), unit):
            of = f" of {task!r}" if task else ""
            tries = f", attempt {attempt}" if attempt > 1 else ""
            self._write(
                self._level,
                f"{self._noun} {number}{of} failed ({stage}{tries}): {said(trouble).rstrip('.')}. "
                f"The {self._noun.lower()}: {shown(value)}",
                trouble,
                {"item": number, "attempt": attempt, **({"task": task} if task else {})},
            )

    def call(self, error: BaseException, function: str) -> ErrorInfo:
        """A function that is for no one item raised this; the same as text."""
        trouble = trouble_of(error)
        if self._is_first(function, trouble, str, "calls"):
            self._write(logging.ERROR, f"The {function} function raised {said(trouble).rstrip('.')}", trouble, {})
        return trouble

    def look(self, now: float) -> float | None:
        """Say the sums that are due; in how many seconds to look again, None if there is nothing to wait for."""
        with self._lock:
            due, at = self._kinds.overdue(now), self._kinds.next_time()
        self._sum_up(due)
        return None if at is None else max(0.0, at - now)

    def close(self) -> None:
        """The end: say what was not said."""
        with self._lock:
            rest = self._kinds.rest(self._clock())
        self._sum_up(rest)

    def _is_first(self, what: str, trouble: ErrorInfo, first: Callable[[], str], unit: str) -> bool:
        with self._lock:
            return self._kinds.add(what, trouble, first, self._clock(), unit)

    def _sum_up(self, kinds: list[Kind[str]]) -> None:
        for kind in kinds:
            self._log.log(self._level, "%s%s", kind.said(), f"; first: {kind.first}" if kind.first else "")

    def _write(self, level: int, text: str, trouble: ErrorInfo, about: dict[str, str | int]) -> None:
        again = "The next of this kind are counted."
        # where no code of the user was at work there are no frames
        shown = f"\n{trouble.traceback.rstrip()}" if "Traceback" in trouble.traceback else ""
        self._log.log(level, "%s. %s%s", text, again, shown, extra={"about": about})
