"""Tasks move on: which may begin, which is complete or aborted, and which gate no ACK will ever open.

What moves a task is in the table of states (`protocol.delivery.dependencies`). The distributor machine asks after each
event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zmqpipeline.protocol.delivery.dispatcher import Dispatcher
from zmqpipeline.protocol.delivery.failures import gate_closed
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.messages import ErrorInfo

UNSERVED_SECONDS = 5.0
"""After so long a task without a worker is worth a warning."""


class TaskMoves:
    """Moves the tasks of one run."""

    def __init__(
        self,
        tasks: Mapping[str, TaskState],
        dispatcher: Dispatcher,
        show: Callable[[bytes], str],
        note_failed: Callable[[TaskState, ErrorInfo], object],
        log: Callable[..., object],
    ) -> None:
        """`note_failed` is told of a task that fails here, `log` of the others; `show` makes text of an ACK's data."""
        self.tasks = tasks
        self._dispatcher = dispatcher
        self._show = show
        self._note_failed = note_failed
        self._log = log

    def move_on(self, now: float) -> None:
        """Complete what is done, open what no longer waits, abort what cannot succeed, until nothing moves."""
        moved = True
        while moved:
            moved = False
            for task in self.tasks.values():
                before = task.state
                if before in ("waiting", "exhausted") or (before == "open" and task.fed is not None):
                    self._move_task(task, now)
                    moved = moved or task.state != before
        self._dispatcher.feeding.look()
        self._find_closed_gates()

    def _move_task(self, task: TaskState, now: float) -> None:
        if task.state == "open" and self._dispatcher.feeding.is_fed_out(task):
            self._end_feeding(task)
        elif task.state == "exhausted" and not task.ledger.unfinished:
            task.state, task.over_at = "complete", now
            name, collected = task.spec.task_type, len(task.ledger.collected)
            self._log(20, f"Task {name!r} is complete: {collected} item(s) collected.", task=name)
        elif task.state == "waiting":
            needed = self.needed_of(task)
            bad = [one for one in needed if one.is_over and not self._is_enough(task, one)]
            if bad:
                self.abort(task, f"{bad[0].spec.task_type!r}, which it depends on, did not succeed")
            elif all(one.is_over for one in needed):
                task.state, task.opened_at, task.inherited = "open", now, task.ledger.done
                task.unserved_at = None if task.workers else now + UNSERVED_SECONDS
                self._dispatcher.welcome_with_credit(task)

    def needed_of(self, task: TaskState) -> list[TaskState]:
        """What it waits for: the tasks that it depends on, and what feeds these."""
        names = task.spec.depends_on
        return [self.tasks[name] for name in self._dispatcher.feeding.all_before(names)]

    def _end_feeding(self, task: TaskState) -> None:
        """No result will give it an item any more."""
        assert task.fed is not None
        task.state = "exhausted" if task.fed.trouble is None else "failed"
        task.ledger.drop_claims()
        if task.fed.trouble is not None:
            self._note_failed(task, task.fed.trouble)
        self._dispatcher.feed(task)

    def _is_enough(self, task: TaskState, needed: TaskState) -> bool:
        return needed.state == "complete" and (needed.is_good or task.spec.on_failed == "continue")

    def give_up(self, task: TaskState, why: ErrorInfo) -> None:
        """No worker of it can begin: what was not done is aborted."""
        task.state, task.is_hopeless, task.unserved_at = "failed", True, None
        task.ledger.drop_claims()
        task.ledger.abandon()
        self._note_failed(task, why)

    def abort(self, task: TaskState, why: str) -> None:
        """None of its items is sent."""
        task.state = "aborted"
        self._log(40, f"Task {task.spec.task_type!r} is aborted: {why}.", task=task.spec.task_type)

    def _find_closed_gates(self) -> None:
        """A gate that no ACK will ever open fails its task."""
        gates = self._dispatcher.gates
        name, count, data = gates.last_ack
        for task in gates.closed_for_good():
            task.state = "failed"
            carried = self._show(data) if data else ""
            self._note_failed(task, gate_closed(task.spec.task_type, (name, count), carried))
