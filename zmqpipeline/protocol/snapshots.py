"""What the machines of a pipeline know at a moment, for people: each machine's `snapshot` makes one."""

from __future__ import annotations

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.messages import TaskCounts


@dataclass(frozen=True)
class DistributorSnapshot:
    """What a distributor knows, for people."""

    phase: str
    run: str
    tasks: list[TaskCounts]
    waiting: dict[str, int]
    leased: dict[str, int]
    workers: dict[str, int]


@dataclass(frozen=True)
class CollectorSnapshot:
    """What a collector has, for people: (collected, failed) for each task, and what waits for its thread."""

    phase: str
    run: str
    tasks: dict[str, tuple[int, int]]
    queued: int
    queued_bytes: int = 0
    """How many bytes of results these are."""


@dataclass(frozen=True)
class WorkerSnapshot:
    """What a worker is doing, for people."""

    phase: str
    run: str
    task: str
    slots: int
    queued_or_running: int
    kept: int
    executed: int
    failed: int
    kept_bytes: int = 0
    """How many bytes the results have that it keeps."""
