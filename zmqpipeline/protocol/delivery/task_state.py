"""How one task stands at a distributor, or one service at a broker."""

from __future__ import annotations

from dataclasses import dataclass, field

from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.gates import AckLog
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.snapshots import DistributorSnapshot


@dataclass
class TaskState:
    """One task as the distributor sees it; `state` is one of graph.STATES."""

    spec: TaskSpec
    ledger: Ledger
    state: str = "waiting"
    producing: bytes | None = None
    asked_ack: tuple[str, int, bytes] | None = None
    gated: bool = False
    unasked: AckLog = field(default_factory=AckLog)
    """The ACKs that its gate, if it has one, has not been asked with."""
    reserved: bytes | None = None
    """The worker that gets nothing more until it is free for an item on its last try."""
    with_credit: dict[bytes, None] = field(default_factory=dict)
    workers: int = 0
    unserved_at: float | None = None
    opened_at: float | None = None
    over_at: float | None = None
    inherited: int = 0
    """How many of its items were done when it opened."""
    is_hopeless: bool = False
    """No worker of it can begin: nothing of it is handed out any more."""
    item_bytes: int = 0
    """How large the last item was that the source yielded."""
    has_source: bool = True
    """False for a service, whose items come from clients."""

    @property
    def is_over(self) -> bool:
        """Whether nothing of this task will happen any more."""
        return self.state in ("complete", "aborted") or (self.state == "failed" and not self.ledger.unfinished)

    @property
    def is_good(self) -> bool:
        """Whether every item was collected."""
        return self.state == "complete" and not self.ledger.failed

    def counts(self) -> m.TaskCounts:
        """The figures for the summary; of a task that never began what it has announced is aborted."""
        counts = self.ledger.counts(self.state)
        if self.state == "aborted" and self.spec.total is not None and not counts.sent:
            return m.TaskCounts(task=counts.task, state=counts.state, aborted=self.spec.total)
        return counts

    @property
    def may_produce(self) -> bool:
        """Whether its source can be asked for more."""
        return self.has_source and self.state == "open" and self.producing is None and not self.gated


def snapshot_of(phase: str, run: str, tasks: dict[str, TaskState]) -> DistributorSnapshot:
    """How these tasks stand, for people."""
    return DistributorSnapshot(
        phase=phase,
        run=run,
        tasks=[task.counts() for task in tasks.values()],
        waiting={name: task.ledger.waiting for name, task in tasks.items()},
        leased={name: task.ledger.leased for name, task in tasks.items()},
        workers={name: task.workers for name, task in tasks.items()},
    )
