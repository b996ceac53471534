"""How a run is watched from its own terminal: one line that is drawn again and again, or a log line now and then."""

from __future__ import annotations

import logging
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import click

from zmqpipeline.cli.tables import duration, printable
from zmqpipeline.runtime.log import CLEAR
from zmqpipeline.runtime.progress import Progress

log = logging.getLogger("zmqpipeline.run")

LINE_INTERVAL = 5.0
"""Seconds between two progress lines where there is no terminal."""

RATE_SECONDS = 5.0
"""The rate that a bar shows is that of so many seconds."""

BAR_WIDTH = 20
"""Characters between the brackets of the bar."""

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
        self._samples: deque[tuple[float, int]] = deque()
        self._drawn = False

    def __call__(self, progress: Progress) -> None:
        """Draw these numbers."""
        rate = self._rate(progress)
        columns = shutil.get_terminal_size().columns
        self._stream.write(f"\r{progress_line(progress, rate, columns - 1)}{CLEAR}")
        self._stream.flush()
        self._drawn = True

    def _rate(self, progress: Progress) -> float:
        """Items a second of the last seconds."""
        self._samples.append((progress.seconds, progress.done))
        while len(self._samples) > 2 and self._samples[1][0] <= progress.seconds - RATE_SECONDS:
            self._samples.popleft()
        then, done = self._samples[0]
        if progress.seconds - then < 1.0:
            return progress.rate
        return max(0.0, (progress.done - done) / (progress.seconds - then))

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
            click.echo(str(progress), err=True)
        else:
            log.log(self._level, "%s", progress)


def progress_line(progress: Progress, rate: float, width: int) -> str:
    """The bar, each task's count, rate, time left, workers and failures; what does not fit is left out, tasks first."""
    begin, end = _whole(progress), _state(progress, rate)
    tasks = _tasks(progress)
    for shown in range(len(tasks), -1, -1):
        more = len(tasks) - shown
        middle = [*tasks[:shown], f"+{more} tasks"] if more and tasks else tasks[:shown]
        text = "  ".join([*begin, *middle, *end])
        if len(text) <= width:
            return text
    return "  ".join([*begin, *end])[: max(0, width)]


def _whole(progress: Progress) -> list[str]:
    if not progress.total:
        return [f"{progress.done} items"]
    part = min(1.0, progress.done / progress.total)
    full = int(part * BAR_WIDTH)
    return [f"[{'#' * full}{'-' * (BAR_WIDTH - full)}]", f"{int(part * 100):3}%", f"{progress.done}/{progress.total}"]


def _tasks(progress: Progress) -> list[str]:
    """The tasks that are under way first, then those that are done, then those that are yet to come."""
    if len(progress.totals) < 2:
        return []
    done = {one.task: one.collected + one.failed for one in progress.counts}

    def rank(task: str) -> int:
        number, total = done.get(task, 0), progress.totals[task]
        return 2 if not number else 1 if number == total else 0

    return [_task(task, done.get(task, 0), progress.totals[task]) for task in sorted(progress.totals, key=rank)]


def _task(name: str, done: int, total: int | None) -> str:
    return f"{printable(name)} {done}" if total is None else f"{printable(name)} {done}/{total}"


def _state(progress: Progress, rate: float) -> list[str]:
    found = [f"{rate:.0f}/s" if rate >= 10 or not rate else f"{rate:.1f}/s"]
    left = 0 if progress.total is None else progress.total - progress.done
    if left > 0 and rate > 0:
        found.append(f"{duration(left / rate)} left")
    found.append(f"{progress.workers} worker{'' if progress.workers == 1 else 's'}")
    if progress.failed:
        found.append(f"{progress.failed} failed")
    return found
