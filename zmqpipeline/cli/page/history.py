"""How fast each task was, over the whole time that the page's server has watched: of bounded size.

When there are `MAX_POINTS` points, each two of them become one, their mean: a run of a week has as many as one of an
hour. Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zmqpipeline.protocol.messages import Status, TaskStatus, WorkerStatus

MAX_POINTS = 1200
"""So many points are kept."""

MAX_SERIES = 20
"""So many tasks have lines; the first ones."""


@dataclass(frozen=True)
class Point:
    """One moment: for each series its items a second, and the seconds that an item takes on a worker, if known."""

    at: float
    rates: tuple[float, ...]
    seconds: tuple[float | None, ...]


class History:
    """The points of one run."""

    def __init__(self) -> None:
        """None is there."""
        self.points: list[Point] = []
        self.series: list[str] = []
        self.version = 0
        """Another one: what was sent of the points before does not hold any more."""
        self._run = ""
        self._spacing = 0.0

    def add(self, answers: Sequence[Status], before: Sequence[Status], now: float) -> None:
        """These are the answers of now; `before` are those before them."""
        run = next((one.run for one in answers if one.run), "")
        if run and run != self._run:
            self.points, self._run, self._spacing = [], run, 0.0
            self.series = [task.counts.task for one in answers for task in one.tasks][:MAX_SERIES]
            self.version += 1
        if not run or (self.points and now - self.points[-1].at < self._spacing):
            return
        earlier = {(one.pipeline, one.run): one for one in before}
        rates: dict[str, float] = {}
        seconds: dict[str, float | None] = {}
        for status in answers:
            then = earlier.get((status.pipeline, status.run))
            for task in status.tasks:
                rates[task.counts.task] = rate_now(task, status, then)
                seconds[task.counts.task] = service_time(task, status.workers)
        self.points.append(
            Point(
                now,
                tuple(round(rates.get(name, 0.0), 2) for name in self.series),
                tuple(seconds.get(name) for name in self.series),
            )
        )
        if len(self.points) >= MAX_POINTS:
            self._thin()

    def _thin(self) -> None:
        pairs = list(zip(self.points[::2], self.points[1::2], strict=False))
        self._spacing = 2 * (self.points[-1].at - self.points[0].at) / len(self.points) * 0.95
        self.points = [_mean(one, other) for one, other in pairs]
        self.version += 1


def _mean(one: Point, other: Point) -> Point:
    rates = tuple(round((a + b) / 2, 2) for a, b in zip(one.rates, other.rates, strict=True))
    seconds = tuple(
        b if a is None else a if b is None else (a + b) / 2 for a, b in zip(one.seconds, other.seconds, strict=True)
    )
    return Point(other.at, rates, seconds)


def rate_now(task: TaskStatus, now: Status, before: Status | None) -> float:
    """Items done a second since the answer before, or else since the task opened."""
    done = task.counts.collected + task.counts.failed
    found = () if before is None else before.tasks
    then = next((one.counts for one in found if one.counts.task == task.counts.task), None)
    if before is not None and then is not None and now.seconds > before.seconds:
        return max(0.0, (done - then.collected - then.failed) / (now.seconds - before.seconds))
    return max(0.0, (done - task.inherited) / task.seconds) if task.seconds > 0 else 0.0


def service_time(task: TaskStatus, workers: Sequence[WorkerStatus]) -> float | None:
    """Seconds that an item of this task takes, as its workers observe it: their mean by threads; None if unknown."""
    known = [one for one in workers if one.task == task.counts.task and one.service_time > 0]
    threads = sum(one.threads for one in known)
    return sum(one.service_time * one.threads for one in known) / threads if threads else None
