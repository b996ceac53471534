"""How a run stands: what whoever watches asks a distributor, and its answer; records of other messages, too."""

from __future__ import annotations

from dataclasses import field

from zmqpipeline.protocol.dataclass import dataclass

MAX_WORKERS = 4000
"""So many workers are told of by name: an answer is one message."""


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """What became of the items of one task: what the summary shows. `state` is one of graph.STATES."""

    task: str
    state: str
    sent: int = 0
    collected: int = 0
    failed: int = 0
    aborted: int = 0
    skipped: int = 0
    redelivered: int = 0
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class RunningItem:
    """An item that is being executed, and for how many seconds so far."""

    number: int
    attempt: int
    seconds: float


ITEM_SECONDS = (1e-5, 1e-4, 1e-3, 5e-3, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0)
"""The classes that times of items are counted in, each by the most seconds of its items; one more is for the others."""


@dataclass(frozen=True, slots=True)
class ItemTimes:
    """How long the calls took in which items were executed, failed ones included; of a batch, for each of its items.

    `counts` are those of the classes of ITEM_SECONDS, and of longer ones; `seconds` is the sum.
    """

    counts: list[int]
    seconds: float


@dataclass(frozen=True, slots=True)
class AskStatus:
    """Asks how the run stands; answered by Status, on no link: nothing depends on it."""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """How one task stands. `why` says what holds it up, if anything does, for people."""

    counts: TaskCounts
    total: int | None
    """How many items it announces."""
    waiting: int
    """Items that could be sent now, if a worker had room."""
    retrying: int
    """Items that wait for the end of their back-off."""
    leased: int
    """Items that are with workers, up to their ACK."""
    workers: int
    seconds: float
    """How long it has been open in the life of this distributor."""
    inherited: int
    """How many of its items were done when it opened, by a distributor before."""
    why: str
    times: ItemTimes | None = None
    """How long its items took, as the workers told last."""
    desired: int | None = None
    """How many workers `run` gives it now, if that changes with the work."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How one connected worker stands. `address` is what a task's `handle` knows it by."""

    address: str
    task: str
    host: str
    pid: int
    threads: int
    state: str
    """One of WORKER_STATES."""
    leased: int
    executed: int
    running: list[RunningItem]
    kept_bytes: int = 0
    """How many bytes the results have that it keeps."""
    busy_seconds: float = 0.0
    """How long the calls took that executed its items, in sum, as it told last."""
    service_time: float = 0.0
    """Seconds that one of its last items took, as the worker observes it; 0 before the first."""


WORKER_STATES = ("joining", "ready", "busy", "draining")


@dataclass(frozen=True, slots=True)
class FailureStatus:
    """So many items failed alike; the texts are those of the first of them, cut to a bounded length."""

    task: str
    stage: str
    """Where: worker, collector, feed, gather, distributor or crash."""
    error: str
    message: str
    place: str
    traceback: str
    items: int
    number: int
    attempts: int
    item: str
    """The first of them, for people; empty if it is too large to be kept."""


@dataclass(frozen=True, slots=True)
class LostWorker:
    """A worker whose connection broke, or that died, so many seconds ago; `why` is how, as far as it is known."""

    worker: str
    task: str
    why: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LogLine:
    """A warning or an error that this role has logged, so many seconds ago."""

    level: str
    message: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """How the run stands. `seconds` is how long it has been under way here; `why` is what holds all of it up."""

    pipeline: str
    run: str
    phase: str
    seconds: float
    why: str
    tasks: list[TaskStatus]
    workers: list[WorkerStatus]
    """The first four thousand; the tasks say how many there are."""
    queued_bytes: int = 0
    """How many bytes of results waited for the collector's function at its last ACK."""
    held_bytes: int = 0
    """How many bytes of requests and replies wait at a broker of services."""
    commits: int = 0
    """How many transactions the collector has written to its journal, as its last ACK said."""
    commit_seconds: float = 0.0
    """How long these took."""
    failures: list[FailureStatus] = field(default_factory=list)
    """Why items failed: the kinds with the most items first, of MAX_FAILURES at most."""
    lost: list[LostWorker] = field(default_factory=list)
    """The workers that were lost last, the newest first."""
    lost_workers: int = 0
    """How many were lost in all, in the life of this distributor."""
    log: list[LogLine] = field(default_factory=list)
    """The distributor's last warnings and errors, the newest first."""
