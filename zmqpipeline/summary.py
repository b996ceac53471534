"""What became of a run: the answer of `app.run()` and `app.test_run()`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from zmqpipeline.protocol.messages import TaskCounts


@dataclass(frozen=True)
class TaskSummary:
    """The items of one task, counted."""

    sent: int = 0
    """Items that the task gave and that were handed out."""

    collected: int = 0
    """Items that the collector's function was called for."""

    failed: int = 0
    """Items that were given up."""

    aborted: int = 0
    """Items that were not carried out since something they depend on had failed."""

    skipped: int = 0
    """Items with a key that was already under way or done."""

    redelivered: int = 0
    """Deliveries of an item after its first."""

    duplicates: int = 0
    """Results that came a second time, and were not collected again."""


@dataclass(frozen=True)
class Summary:
    """A whole run."""

    ok: bool
    """True if every item was collected and no function raised."""

    seconds: float
    """How long the run took."""

    tasks: dict[str, TaskSummary] = field(default_factory=dict)
    """The counts of each task, by its type."""

    results: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """With ``app.run(collect_results=True)``: what this call collected, in order, each with its task's type."""

    @classmethod
    def from_counts(cls, counts: Iterable[TaskCounts], *, ok: bool, seconds: float) -> Summary:
        """The summary as machines count it."""
        return cls(ok, seconds, {one.task: _task_summary(one) for one in counts})


def _task_summary(one: TaskCounts) -> TaskSummary:
    return TaskSummary(one.sent, one.collected, one.failed, one.aborted, one.skipped, one.redelivered, one.duplicates)
