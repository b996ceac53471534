"""How a run is watched from its own terminal: one line that is drawn again and again, or a log line now and then."""

from __future__ import annotations

import logging
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO

from zmqpipeline.cli.output import tell
from zmqpipeline.cli.screen import bar, has_colors, painted
from zmqpipeline.cli.tables import duration
from zmqpipeline.runtime.error_text import printable
from zmqpipeline.runtime.log import CLEAR
from zmqpipeline.runtime.progress import Progress

log = logging.getLogger("zmqpipeline.run")

LINE_INTERVAL = 5.0
"""Seconds between two progress lines where there is no terminal."""

RATE_SECONDS = 5.0
"""The rate that a bar shows is that of so many seconds."""

TASK_BAR_WIDTH = 8
"""Characters between the brackets of the bar of one task of several."""

Observe = Callable[[Progress], None]


@contextmanager
def progress_shown(wanted: bool | None, stream: IO[str] | None = None) -> Iterator[Observe | None]:
    """What to call with the numbers: it draws a line on a terminal, or writes one now and then elsewhere.

    `wanted` False shows nothing; None draws on a terminal, and elsewhere logs at INFO; True says it in any case.
    """
    target = stream or sys.stderr
    if wanted is False:
        yield None
    elif target.isatty():
        line = ProgressLine(target)
        try:
            yield line
        finally:
            line.finish()
    else:
        yield ProgressLog(logging.INFO if wanted is None else None)


class ProgressLine:
    """One line on a terminal, drawn anew each time: a log line in between clears it away, and it comes back."""

    def __init__(self, stream: IO[str]) -> None:
        """`stream` is the terminal."""
        self._stream = stream
        self._samples: deque[Progress] = deque()
        self._drawn = False
        self._has_colors = has_colors(stream)

    def __call__(self, progress: Progress) -> None:
        """Draw these numbers."""
        rate, rates = self._rates(progress)
        text = progress_line(progress, rate, shutil.get_terminal_size().columns - 1, rates)
        end = _failed(progress)
        if self._has_colors and end and text.endswith(end):
            text = text.removesuffix(end) + painted(end, "bad")
        self._stream.write(f"\r{text}{CLEAR}")
        self._stream.flush()
        self._drawn = True

    def _rates(self, progress: Progress) -> tuple[float, Mapping[str, float]]:
        """Items a second of the last seconds: of all tasks, and of each one that had some."""
        if self._samples and self._samples[-1].inherited != progress.inherited:
            self._samples.clear()  # what was done before is known from now on: nobody has done it in this time
        self._samples.append(progress)
        while len(self._samples) > 2 and self._samples[1].seconds <= progress.seconds - RATE_SECONDS:
            self._samples.popleft()
        then = self._samples[0]
        passed = progress.seconds - then.seconds
        if passed < 1.0:
            return progress.rate, {}
        before = _done(then)
        rates = {task: (done - before.get(task, 0)) / passed for task, done in _done(progress).items()}
        return max(0.0, (progress.done - then.done) / passed), rates

    def finish(self) -> None:
        """Leave the line as it stands."""
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()


class ProgressLog:
    """A log line (or a plain one, if a progress was asked for) every few seconds."""

    def __init__(self, level: int | None) -> None:
        """`level` is that of the log lines; None for plain ones on stderr."""
        self._level = level
        self._next = LINE_INTERVAL

    def __call__(self, progress: Progress) -> None:
        """Say these numbers, if it is time."""
        if progress.seconds < self._next:
            return
        self._next = progress.seconds + LINE_INTERVAL
        if self._level is None:
            tell(str(progress), err=True)
        else:
            log.log(self._level, "%s", progress)


def progress_line(progress: Progress, rate: float, width: int, rates: Mapping[str, float] | None = None) -> str:
    """A bar, the bar, count and rate of each task, rate of all, time left, workers and failures.

    What does not fit is left out: first the bars of single tasks, then their rates, then tasks, the last one first.
    """
    begin, end = _whole(progress), _state(progress, rate)
    for with_bars, with_rates in ((True, True), (False, True), (False, False)):
        tasks = _tasks(progress, (rates or {}) if with_rates else {}, with_bars)
        text = "  ".join([*begin, *tasks, *end])
        if len(text) <= width:
            return text
    for shown in range(len(tasks) - 1, -1, -1):
        text = "  ".join([*begin, *tasks[:shown], f"+{len(tasks) - shown} tasks", *end])
        if len(text) <= width:
            return text
    return "  ".join([*begin, *end])[: max(0, width)]


def _whole(progress: Progress) -> list[str]:
    if not progress.total:
        return [f"{progress.done} items"]
    part = int(min(1.0, progress.done / progress.total) * 100)
    return [bar(progress.done, progress.total), f"{part:3}%", f"{progress.done}/{progress.total}"]


def _done(progress: Progress) -> dict[str, int]:
    """How many items of each task are done, of those that had any."""
    return {one.task: one.collected + one.failed for one in progress.counts}


def _tasks(progress: Progress, rates: Mapping[str, float], with_bars: bool) -> list[str]:
    """The tasks that are under way first, then those that are done, then those that are yet to come."""
    if len(progress.totals) < 2:
        return []
    done = _done(progress)

    def rank(task: str) -> int:
        number, total = done.get(task, 0), progress.totals[task]
        return 2 if not number else 1 if number == total else 0

    return [
        _task(
            task, done.get(task, 0), progress.totals[task], rates.get(task, 0.0) if rank(task) == 0 else 0.0, with_bars
        )
        for task in sorted(progress.totals, key=rank)
    ]


def _task(name: str, done: int, total: int | None, rate: float, with_bar: bool) -> str:
    parts = [printable(name)]
    if with_bar and total:
        parts.append(bar(done, total, TASK_BAR_WIDTH))
    parts.append(f"{done}" if total is None else f"{done}/{total}")
    return " ".join([*parts, _per_second(rate)] if rate > 0 else parts)


def _per_second(rate: float) -> str:
    return f"{rate:.0f}/s" if rate >= 10 or not rate else f"{rate:.1f}/s"


def _state(progress: Progress, rate: float) -> list[str]:
    found = [_per_second(rate)]
    left = 0 if progress.total is None else progress.total - progress.done
    if left > 0 and rate > 0:
        found.append(f"{duration(left / rate)} left")
    found.append(f"{progress.workers} worker{'' if progress.workers == 1 else 's'}")
    failed = _failed(progress)
    return [*found, failed] if failed else found


def _failed(progress: Progress) -> str:
    return f"{progress.failed} failed" if progress.failed else ""
