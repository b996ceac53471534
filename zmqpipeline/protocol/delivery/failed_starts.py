"""Workers that could not be initialized: what is said of them, and when a task waits for a worker in vain.

The law:

* The first failed start of a kind (task, type of error and place) is told with its reason, and so is the first after
  which no worker of the task is left. The next ones are counted, and told as a sum, as other failures are
  (`protocol.delivery.failure_kinds`). What is told is told to the collector, too, which may be somewhere else.
* A task of which no worker can begin is not waited for without end. `PATIENCE_SECONDS` after the first failed start, if
  nothing of the task was done since and no worker of it is there, the task fails, of what the last start failed of.
  While one is there, perhaps still initializing, the task has hope: it is asked again when that one fails, too.
* Where somebody supervises the workers, the verdict is theirs: they start a worker again, and know when it is in vain.
  The workers leave it to the distributor then to tell the traceback of the first.
"""

from __future__ import annotations

from zmqpipeline.protocol.commands import Log
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.delivery.failure_kinds import Kind, Kinds, brief, said
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.machine import soonest
from zmqpipeline.protocol.messages import ErrorInfo

PATIENCE_SECONDS = 60.0
"""How long a task waits for a worker that can begin, from the first one on that could not."""

SAID, SILENT = 40, 10

MAX_NEWS = 100
"""So many wait for a collector that is not there."""


@dataclass
class _Row:
    """Failed starts of one task, with nothing done since the first of them."""

    since: float
    done: int
    trouble: ErrorInfo
    is_told: bool = False
    """It was said how long the task waits for another worker."""


class FailedStarts:
    """See the module."""

    def __init__(self, *, patience: float | None, supervised: bool) -> None:
        """`patience`: seconds, if they are to be fewer than PATIENCE_SECONDS."""
        self._patience = PATIENCE_SECONDS if patience is None else min(patience, PATIENCE_SECONDS)
        self._is_supervised = supervised
        self._kinds: Kinds[str] = Kinds()
        self._rows: dict[str, _Row] = {}
        self.news: list[tuple[str, ErrorInfo, float]] = []
        """For the collector: of which task, what was raised, and in how many seconds it fails; 0 if others are left."""

    def failed(self, task: TaskState, worker: str, trouble: ErrorInfo, items: str, now: float) -> Log:
        """This worker left, since it could not be initialized; `items` says what becomes of what it held."""
        name = task.spec.task_type
        is_said = self._kinds.add(name, trouble, lambda: worker, now, "workers")
        text = f"Worker {worker} of {name!r} could not be initialized, {items}: {said(trouble).rstrip('.')}"
        if task.has_source and not self._is_supervised and not task.is_over:
            row = self._row_of(task)
            if row is None:
                row = self._rows[name] = _Row(now, task.ledger.done, trouble)
            row.trouble = trouble
            left = 0.0 if task.workers else max(0.0, row.since + self._patience - now)
            if left:
                text += f". No worker of it is left: if none can begin within {left:.0f} s, the task fails"
                is_said, row.is_told = is_said or not row.is_told, True
            if is_said and len(self.news) < MAX_NEWS:
                self.news.append((name, brief(trouble), left))
        shown = f"\n{trouble.traceback.rstrip()}" if self._is_supervised and "Traceback" in trouble.traceback else ""
        return Log(SAID if is_said else SILENT, f"{text.rstrip('.')}.{shown}", {"task": name, "worker": worker})

    def _row_of(self, task: TaskState) -> _Row | None:
        """The row of this task; none if something of it was done since."""
        name = task.spec.task_type
        row = self._rows.get(name)
        if row is not None and (task.ledger.done != row.done or task.is_over):
            del self._rows[name]
            return None
        return row

    def __bool__(self) -> bool:
        """Whether a task has failed starts, and nothing done since, as far as was looked."""
        return bool(self._rows)

    def in_vain(self, task: TaskState, now: float) -> ErrorInfo | None:
        """Why this task fails, if no worker of it can begin."""
        row = self._row_of(task)
        if row is None or task.workers or now < row.since + self._patience:
            return None
        why = f"no worker could be initialized, the last one of {row.trouble.error}: {row.trouble.message}"
        return ErrorInfo("WorkerInitError", why, row.trouble.traceback, row.trouble.place)

    def next_time(self, now: float) -> float | None:
        """When to ask again, or to say a sum. Past a row's patience only another failed start makes a difference."""
        ends = (row.since + self._patience for row in self._rows.values())
        return soonest((self._kinds.next_time(), *(end for end in ends if end > now)))

    def sums(self, now: float) -> list[Log]:
        """What is due to be summed up."""
        return [_sum(kind) for kind in self._kinds.overdue(now)]

    def rest(self, now: float) -> list[Log]:
        """The end: what was not said."""
        return [_sum(kind) for kind in self._kinds.rest(now)]


def _sum(kind: Kind[str]) -> Log:
    return Log(SAID, f"{kind.said()} of {kind.what!r} could not be initialized", {"task": kind.what})
