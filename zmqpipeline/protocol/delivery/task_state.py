"""How one task stands at a distributor, or one service at a broker."""

from __future__ import annotations

from dataclasses import field, replace

from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.gates import AckLog
from zmqpipeline.protocol.delivery.item_times import TaskTimes
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.delivery.roster import Roster
from zmqpipeline.protocol.delivery.throttle import Throttle
from zmqpipeline.protocol.snapshots import DistributorSnapshot


@dataclass
class FedState:
    """What a collector has told of a task that results of others feed (`protocol.delivery.feeding`)."""

    max_waiting_bytes: int
    """So many bytes of its items may wait before what feeds it is held back."""
    count: int = 0
    """How many items there are for it."""
    waiting: int = 0
    """How many bytes of them are not done."""
    closed: bool = False
    """All of its own first items are among them."""
    trouble: m.ErrorInfo | None = None
    """What the source of these raised."""
    asked: int = 0
    """How many items the collector was asked for, if it has not answered."""


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
    roster: Roster = field(default_factory=Roster)
    """Which of its workers are to be looked at."""
    workers: int = 0
    desired: int | None = None
    """How many workers whoever starts them gives it now, if that changes with the work."""
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
    fed: FedState | None = None
    """Of one that results of others feed: its items are with the collector."""
    feeds: list[TaskState] = field(default_factory=list)
    """The tasks outside of its own circle that its results feed."""
    throttle: Throttle | None = None
    """What holds it back, if it has a rate or a limit."""
    times: TaskTimes = field(default_factory=TaskTimes)
    """How long its items took."""

    def __post_init__(self) -> None:
        if self.spec.rate is not None or self.spec.limit is not None:
            # by the value of a field, the rate is the ledger's
            self.throttle = Throttle(self.spec.rate if self.ledger.pace is None else None, self.spec.limit)

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
        if (left := self.in_outbox) and self.is_over:
            # nobody has asked for these, and nobody will
            return replace(counts, sent=counts.sent + left, aborted=counts.aborted + left)
        if self.state == "aborted" and self.spec.total is not None and not counts.sent:
            return m.TaskCounts(task=counts.task, state=counts.state, aborted=self.spec.total)
        return counts

    @property
    def may_produce(self) -> bool:
        """Whether its source can be asked for more."""
        is_ready = self.has_source and self.state == "open" and self.producing is None and not self.gated
        if not is_ready or (self.feeds and self.is_held_back):
            return False
        if (pace := self.ledger.pace) is not None and (pace.rests_until is not None or self.ledger.has_enough):
            return False
        return self.fed is None or self.ledger.next_number < self.fed.count

    @property
    def is_held_back(self) -> bool:
        """Whether too much waits for a task that its results feed."""
        return any(
            one.state == "open" and one.fed is not None and one.fed.waiting > one.fed.max_waiting_bytes
            for one in self.feeds
        )

    @property
    def in_outbox(self) -> int:
        """How many of its items are still with the collector."""
        return 0 if self.fed is None else max(0, self.fed.count - self.ledger.next_number)

    @property
    def has_taken_all(self) -> bool:
        """Of a fed one: whether there is nothing for it, for now, that it has not handed out or has at hand."""
        return self.fed is not None and self.fed.closed and self.ledger.next_number >= self.fed.count


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
