"""What an observer is told: frozen records of what happens in a run, in batches.

Register one with ``@app.on(ItemCollected)``, or give it as ``Options(observers=[function])``. `Event` stands for all
of them. Each process tells its observers of what happens in its own role:

==================== ==================== ==========================================================================
event                told in              of what
==================== ==================== ==========================================================================
ItemSent             distributor          items were sent to a worker, the first time or again
ItemRetried          distributor          items come again: their function raised, or their worker is gone
ItemAcknowledged     distributor          items are done for good, by the collector's word
WorkerJoined         distributor          a worker has reported for the first time
WorkerLeft           distributor          a worker is gone, with a goodbye or without one
TaskStarted          distributor          the items of a task are handed out from now on
TaskOver             distributor          nothing more will happen to a task
ItemExecuted         worker               user code has run for items, whether it returned or raised
ItemCollected        collector            the collector's function has returned for items, and that is written down
ItemFailed           collector            items are given up, wherever they failed
RunOver              collector            every item is done, and `finished` has returned
RoleUp, RoleDown     every role           the role is ready; it has ended
EventsDropped        every role           an observer was so slow that events were dropped
==================== ==================== ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Numbers of items as ranges: ``((0, 3), (7, 8))`` are 0, 1, 2 and 7."""

Observer: TypeAlias = "Callable[[Any], object]"
"""A function that is called with an event."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all events have."""

    time: float
    """When it happened, in seconds since the epoch; of a batch, when the last of it did."""

    role: str
    """The role of the process that tells it: distributor, worker, collector, metadataworker, service, serviceworker."""


@dataclass(frozen=True, kw_only=True)
class ItemEvent(Event):
    """What all events about items have."""

    task: str
    """The task, or the service."""

    count: int
    """How many; an item that was sent or executed twice counts twice."""

    items: Ranges
    """Their numbers; empty if these would be more than a thousand ranges."""


@dataclass(frozen=True, kw_only=True)
class ItemSent(ItemEvent):
    """Items were sent to a worker."""

    worker: str
    """HOST/PID of the worker; empty if of several."""


@dataclass(frozen=True, kw_only=True)
class ItemExecuted(ItemEvent):
    """User code has run for these."""

    failed: int
    """For how many of them it raised, or ran past its `timeout`."""

    seconds: float
    """How long threads were busy with them, in sum."""


@dataclass(frozen=True, kw_only=True)
class ItemRetried(ItemEvent):
    """Items will be sent again."""

    reason: Literal["raised", "lost", "left"]
    """Their function raised; their worker was lost; their worker left with them."""


@dataclass(frozen=True, kw_only=True)
class ItemFailed(ItemEvent):
    """Items are given up: they will not be executed again."""

    stage: str
    """Where: worker, collector, feed, gather, crash (workers died of it), distributor (too large).

    Empty if of several.
    """

    error: str
    """The name of the type of what was raised; empty if of several."""

    message: str
    """What the last of them said, without its traceback; at most 300 characters."""


@dataclass(frozen=True, kw_only=True)
class ItemCollected(ItemEvent):
    """The collector's function has returned for these; with a journal, that is written down."""


@dataclass(frozen=True, kw_only=True)
class ItemAcknowledged(ItemEvent):
    """The distributor has heard that these are done, be they collected or failed."""

    failed: int
    """How many of them failed."""


@dataclass(frozen=True, kw_only=True)
class WorkerJoined(Event):
    """A worker has connected and reported."""

    task: str
    worker: str
    """HOST/PID."""
    slots: int
    """How many items it executes at once."""


@dataclass(frozen=True, kw_only=True)
class WorkerLeft(Event):
    """A worker is gone. One that was lost may come back, and joins again then."""

    task: str
    worker: str
    is_lost: bool
    """Whether it said no goodbye: it was killed, or its connection broke."""
    items: int
    """How many items it held that were not acknowledged."""
    error: str
    """Why it could not begin, if it says so; else empty."""


@dataclass(frozen=True, kw_only=True)
class TaskStarted(Event):
    """All that the task depends on is over, and its items are handed out."""

    task: str


@dataclass(frozen=True, kw_only=True)
class TaskOver(Event):
    """Every item of the task is done, or will never be; the counts are those of the summary."""

    task: str
    state: str
    """complete, failed (its source raised, or no worker could begin) or aborted (it never began)."""
    sent: int
    collected: int
    failed: int
    aborted: int
    skipped: int
    redelivered: int
    """How often items were sent at a later attempt; one that a worker gave back unbegun is sent again at the same."""


@dataclass(frozen=True, kw_only=True)
class RunOver(Event):
    """Every item is done and the `finished` function has returned."""

    run: str
    """The id of the run."""
    ok: bool
    """Whether every item was collected, and no function raised."""
    collected: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class RoleUp(Event):
    """A role is ready: it has bound its addresses, or connects to those of others."""

    pid: int
    task: str
    """Whose worker; empty for the roles that serve all tasks."""


@dataclass(frozen=True, kw_only=True)
class RoleDown(Event):
    """A role has ended: the last event of its process."""

    status: int
    """Its exit status: 0 is success."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class EventsDropped(Event):
    """So many events were dropped: the observers took too long. Events about items never are; they are summed up."""

    count: int
