"""How a run stands: what whoever watches asks a distributor, and its answer; records of other messages, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from zmqpipeline.protocol.frozen import dataclass


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


WORKER_STATES = ("joining", "ready", "busy", "draining")


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
