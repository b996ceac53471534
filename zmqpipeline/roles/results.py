"""What became of a run: the answer of `app.run()` and `app.test_run()`.

One item that was given up, as `@app.failed` functions and tests see it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zmqpipeline.errors import SerializeError
from zmqpipeline.protocol.delivery.failure_kinds import Kind, by_count, said
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem, TaskCounts
from zmqpipeline.runtime.error_text import shown
from zmqpipeline.serialization.pack import unpack


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
    """Deliveries of an item after its first, also by a distributor of this run that died; see `howto/metrics`."""

    duplicates: int = 0
    """Results that came a second time, and were not collected again."""


@dataclass(frozen=True)
class Reason:
    """One kind of failure: the same type of error, raised at the same place. The texts are those of its first one."""

    task: str
    """The task; or, if what raised is for no task: metadata, ack_data, failed or finished."""

    stage: str
    """Where: source, init (of a worker), worker, collector, feed, gather, distributor or crash."""

    error: str
    """The type of the exception: ``ValueError``."""

    message: str
    """The text of the exception."""

    place: str
    """Where it was raised, ``boom.py:14 collect``; empty if nothing was raised, as at a time-out."""

    items: int = 0
    """How many items failed of it; 0 of a source, and of a function that is for no one item."""

    first: str = ""
    """The first of these items, as text of bounded length."""

    @classmethod
    def of_items(cls, kinds: Iterable[Kind[FailedItem]]) -> list[Reason]:
        """Why items failed, the most frequent kind first."""
        return [
            cls(kind.what, kind.first.stage, *_texts(kind.trouble), kind.count, _shown(kind))
            for kind in by_count(kinds)
        ]

    @classmethod
    def of_functions(cls, troubles: Mapping[str, ErrorInfo], stage: str) -> list[Reason]:
        """What functions raised that are for no one item."""
        return [cls(name, stage, *_texts(trouble)) for name, trouble in troubles.items()]

    def __str__(self) -> str:
        what = said(ErrorInfo(self.error, self.message, place=self.place))
        if not self.items:
            return f"{self.task}: {what} ({self.stage})"
        number = f"{self.items:,} item{'' if self.items == 1 else 's'}"
        return f"{self.task}: {what}: {number}{f'; first: {self.first}' if self.first else ''}"


def _texts(trouble: ErrorInfo) -> tuple[str, str, str]:
    return trouble.error, trouble.message, trouble.place


def _shown(kind: Kind[FailedItem]) -> str:
    if not kind.first.payload:
        return ""
    try:
        return shown(unpack(kind.first.payload))
    except SerializeError:
        return ""


@dataclass(frozen=True)
class Summary:
    """A whole run."""

    ok: bool
    """True if every item was collected and no function raised."""

    seconds: float
    """How long the run took."""

    tasks: dict[str, TaskSummary] = field(default_factory=dict)
    """The counts of each task, by its type."""

    reasons: list[Reason] = field(default_factory=list)
    """Why not everything was collected, one of each kind; empty if all was, or if other processes know."""

    stopped: str = ""
    """Why the run was stopped before its end, if more items failed than `max_failures` allows."""
    results: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """With ``app.run(collect_results=True)``: what this call collected, in order, each with its task's type."""

    @classmethod
    def from_counts(
        cls,
        counts: Iterable[TaskCounts],
        *,
        ok: bool,
        seconds: float,
        reasons: Iterable[Reason] = (),
        stopped: str = "",
    ) -> Summary:
        """The summary as machines count it."""
        return cls(ok, seconds, {one.task: _task_summary(one) for one in counts}, list(reasons), stopped)


def _task_summary(one: TaskCounts) -> TaskSummary:
    return TaskSummary(one.sent, one.collected, one.failed, one.aborted, one.skipped, one.redelivered, one.duplicates)


@dataclass(frozen=True)
class Failure:
    """What failed, where, and why; errors are text, since the exception was raised in another process."""

    task_type: str
    """The task that the item belongs to."""

    data: dict[str, Any]
    """The item as the task yielded it; empty if it could not be read."""

    stage: str
    """Where it failed: worker, collector, feed (what makes items of its result), distributor, crash (its worker), or
    gather (what makes items of the results of a group, with which it was complete)."""

    error: str
    """The type of the exception: ``ValueError``, ``json.JSONDecodeError``."""

    message: str
    """The text of the exception."""

    traceback: str
    """The traceback as text, or empty."""

    attempts: int
    """How often the item was tried."""

    @classmethod
    def from_item(cls, item: FailedItem) -> Failure:
        """The failure as the wire carries it, with its item opened."""
        trouble = item.trouble
        return cls(
            item.task,
            _opened(item.payload),
            item.stage,
            trouble.error,
            trouble.message,
            trouble.traceback,
            item.attempts,
        )

    def __str__(self) -> str:
        tries = f"{self.attempts} attempts" if self.attempts != 1 else "1 attempt"
        return f"An item of task {self.task_type!r} failed ({self.stage}, {tries}): {self.error}: {self.message}"


def _opened(payload: bytes) -> dict[str, Any]:
    if not payload:
        return {}
    try:
        data = unpack(payload)
    except SerializeError:
        return {}
    return data if isinstance(data, dict) else {}
