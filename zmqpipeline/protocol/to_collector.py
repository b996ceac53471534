"""What a distributor machine knows, what it tells its collector, and what it learns from it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from operator import is_not

from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery import failing
from zmqpipeline.protocol.delivery.dependencies import TaskSpec, order
from zmqpipeline.protocol.delivery.dispatcher import Dispatcher
from zmqpipeline.protocol.delivery.failure_kinds import said, told
from zmqpipeline.protocol.delivery.failure_summary import GivenUp
from zmqpipeline.protocol.delivery.failures import in_messages
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.delivery.parts import Parts, in_parts, only_counted
from zmqpipeline.protocol.delivery.task_state import TaskState, snapshot_of
from zmqpipeline.protocol.delivery.transitions import TaskMoves
from zmqpipeline.protocol.delivery.workers import Links
from zmqpipeline.protocol.early_end import EarlyEnd
from zmqpipeline.protocol.metadata import MetadataGiven
from zmqpipeline.protocol.missed_run import Stay
from zmqpipeline.protocol.peers import Link, ViolationLog
from zmqpipeline.protocol.run_end import AT_THE_END, ended_early, over
from zmqpipeline.protocol.snapshots import DistributorSnapshot
from zmqpipeline.protocol.status import StatusNews, StatusResponder, StatusSource
from zmqpipeline.protocol.waiting import Waiting

REPEAT_SECONDS = 1.0
"""How often something unanswered is said again, and how long no ACK may come before the collector is asked."""

COLLECTOR: e.Peer = ("acks", b"")


_OVER = ("complete", "failed", "aborted")


class ToCollector:
    """The state of a distributor machine, and its messages to the collector; see `protocol.distributor`."""

    def __init__(  # noqa: PLR0915 - all that it knows
        self,
        pipeline: str,
        tasks: Sequence[TaskSpec],
        *,
        incarnation: bytes,
        run: str,
        options: Options | None = None,
        rng: random.Random | None = None,
        metadata: str = "none",
        supervised: str = "",
        here: str = "",
        stay: float = 0.0,
        early_stay: float = 0.0,
        age: float | None = None,
        command: str = "",
        show: Callable[[bytes], str] = repr,
        log_lines: Callable[[], Sequence[m.LogLine]] = tuple,
        is_dict: Callable[[bytes], bool] = bool,
    ) -> None:
        """Make one; the keywords say what surrounds it.

        `supervised`: the host on which whoever started the workers tells by WorkerDied how they end; `command` is
        what starts roles of this pipeline. `here` is what workers of this very process are called.

        `stay`: for so many seconds from its first event on it does not end, so that workers which try to connect from
        time to time hear that a short run is over. `early_stay`: the same, if it is ended by its user.

        `age` is that of `EarlyEnd`.

        `log_lines` gives the warnings that this process has logged last, for who asks how the run stands.

        `show` makes text for people of a packed value, `is_dict` tells whether one is a dict: what is in one is not
        known here.
        """
        self.pipeline = pipeline
        self.phase = "greeting"
        self.run = ""
        self.metadata = b""
        self.troubles: dict[str, m.ErrorInfo] = {}
        self.failed = GivenUp(supervised, here)
        self.ok: bool | None = None
        """Whether everything was collected, once the run has ended."""
        self.early = ""
        """Why the run ends before its time, if it does."""
        self._early_status = 0
        self._lost = ""
        """What the collector no longer has, as a letter: the run cannot go on."""
        self._is_final = self._collector_heard = False
        self._last: tuple[int, str] | None = None
        """Status and reason with which it ends when the collector has answered Bye."""
        self.interrupted_at: float | None = None
        """When its user has ended it, and the run with it, if there is one that it had to do with."""
        self._early_end = EarlyEnd(age)
        self.finished_data = b""
        self.tasks = {name: TaskState(_spec(tasks, name), Ledger(_spec(tasks, name))) for name in order(tasks)}
        self._proposed = run
        self._parts = Parts(self.tasks)
        self._queued, self._commits = 0, (0, 0.0)
        self._merged: list[m.TaskProgress] = []
        """What a collector has said last that it holds."""
        self._rng = rng or random.Random()
        self._source = metadata
        self._links = Links(incarnation)
        self._acks = Link(incarnation)
        self._responder = StatusResponder(incarnation)
        self._show, self._log_lines = show, log_lines
        self._failing: list[m.FailedKind] = []
        """Why items failed, as the collector said last."""
        self._violations = ViolationLog()
        self._giving = MetadataGiven(is_dict, self._violations)
        self._command = command
        self._connected = False
        self._dispatcher = Dispatcher(
            self.tasks,
            self._links,
            options=options or Options(),
            rng=self._rng,
            tell_given_up=self._tell_given_up,
            supervised=supervised,
            fetch=self._ask_for,
        )
        self._feeding = self._dispatcher.feeding
        self._gates = self._dispatcher.gates
        self._moves = TaskMoves(self.tasks, self._dispatcher, show, self._note_failed, self._log)
        self._deadline: float | None = None
        self._repeat_at: float | None = None
        self._waiting = Waiting((options or Options()).exit_when_idle, command)
        self._loading = False
        self._stay, self._early_stay = Stay(stay), Stay(max(stay, early_stay))
        self.is_over = False
        """The run was seen to its end."""
        self._was_finished = False
        """The run was over before this process began."""
        self._told_end: m.Finish | None = None
        """What became of the items, as the collector says: they were all done before this process began."""
        self._out: list[c.Command] = []

    @property
    def last_ack(self) -> tuple[str, int, bytes]:
        """Task, count and packed data of the newest ACK."""
        return self._gates.last_ack

    def counts(self) -> list[m.TaskCounts]:
        """The figures of each task, for the summary."""
        if self._told_end is not None:
            return self._told_end.counts
        return [task.counts() for task in self.tasks.values()]

    def facts(self) -> StatusSource:
        """What an answer on the hop ``status`` is built from."""
        tasks, members, troubles = self.tasks, self._dispatcher.members, self.troubles
        known = (self.pipeline, self.run, self.phase, self._connected, tasks, members, troubles, self._queued)
        told_end = () if self._told_end is None else self._told_end.counts
        return StatusSource(*known, commits=self._commits, told_end=told_end, news=self._news)

    def _news(self, now: float) -> StatusNews:
        kinds = failing.merged(self.failed.kinds, self._failing)
        lost = self._dispatcher.lost_workers(now)
        return StatusNews(failing.statuses(kinds, self._show), *lost, self._log_lines())

    def snapshot(self) -> DistributorSnapshot:
        """What a distributor knows, for people."""
        return snapshot_of(self.phase, self.run, self.tasks)

    def _note_collector(self, ack: m.Ack, now: float) -> None:
        """How the collector stands, as it says with an ACK."""
        self._repeat_at = now + REPEAT_SECONDS
        self._queued, self._commits = ack.queued, (ack.commits, ack.commit_seconds)

    def _tell_given_up(self, failures: list[m.FailedItem], worker: str) -> None:
        self._out += self.failed.lines(failures, worker, self._dispatcher.now)
        if self._dispatcher.stage != "before":
            self._say_given_up(failures)

    def _note_failed(self, task: TaskState, trouble: m.ErrorInfo) -> None:
        self.troubles[task.spec.task_type], task.over_at = trouble, self._dispatcher.now
        name = task.spec.task_type
        # where no code of the user was at work there are no frames
        shown = f"\n{trouble.traceback}" if "Traceback" in trouble.traceback else ""
        self._log(40, f"Task {name!r} failed: {said(trouble)}{shown}".rstrip(), task=name)

    def _say_all(self) -> None:
        """The collector holds no run although one is under way: it is a new one, and is told all that is done."""
        progress, ranges = in_parts(self.run, [task.ledger.progress() for task in self.tasks.values()])
        for keys in self._parts.keys(self.run):
            self._to_collector(keys)
        for part in ranges:
            self._to_collector(part)
        self._to_collector(self._begin_message(progress))

    def _tell_given_up_again(self) -> None:
        self._say_given_up([item for task in self.tasks.values() for item in task.ledger.untold()])

    def _say_given_up(self, failures: list[m.FailedItem]) -> None:
        for some in in_messages(failures) if self._connected else ():
            self._to_collector(m.GiveUp(self.run, some))

    def _say_again(self, now: float) -> None:
        """Say what the phase says, at each connection and while it is not answered."""
        self._repeat_at = now + REPEAT_SECONDS
        if not self._connected:
            return
        if self.phase == "greeting":
            self._to_collector(m.Propose(self.pipeline, self._proposed))
        elif self.phase in ("beginning", "finishing") or (
            self.phase in ("running", "draining") and self._may_lack_words()
        ):
            # Finishing, too: a collector that was started anew knows nothing of the run that it shall finish.
            self._to_collector(self._begin_message(self._counted()))
        if self.phase == "farewell" and self.early and not self._collector_heard:
            self._to_collector(self._verdict())
        if self._last is not None:
            self._to_collector(m.Bye(self.run))
        if self.phase == "running":
            self._feeding.again()
        if self.phase == "finishing":
            self._to_collector(m.Finish(self.run, self._is_good(), self.counts(), told(self.troubles)))

    def _begin_message(self, progress: list[m.TaskProgress]) -> m.Begin:
        ack_task, _, ack_data = self._gates.last_ack
        gated, heard = self._gates.exist, self._gates.heard
        known = (ack_task, ack_data, gated, heard, self._dispatcher.pauses())
        return m.Begin(self.pipeline, self.run, self.metadata, progress, *known)

    def _tell_news(self) -> None:
        """What the collector is to know at once: workers that cannot begin, tasks that pause."""
        if not self._connected:
            return
        for one in self._dispatcher.starts.news:
            self._to_collector(m.Unready(self.run, *one))
        self._dispatcher.starts.news.clear()
        if self._dispatcher.has_paused and self.run:
            self._dispatcher.has_paused = False
            if pauses := self._dispatcher.pauses():
                self._to_collector(m.Pauses(self.run, pauses))

    def _learn_pauses(self, pauses: list[m.TaskPause]) -> None:
        """The distributor before this one was asked for these."""
        for one in pauses:
            if one.task in self.tasks and 0 < one.seconds < float("inf"):
                self._dispatcher.pause(self.tasks[one.task], one.seconds)

    def _learn(self, outboxes: list[m.Outbox]) -> None:
        """What there is for fed tasks: before what is said to be done is taken note of."""
        if lost := self._feeding.learn(outboxes):
            reason = (
                f"The collector has lost items of task {lost!r} that results have given: it was started again without "
                "its journal, or elsewhere. Start the run again; with --journal FILE it outlives that."
            )
            self._lost = self._lost or reason

    def _ask_for(self, items: m.Fetch) -> None:
        # at each connection it is asked again
        if self._connected:
            self._to_collector(items)

    def _fetched(self, answer: m.Fetched) -> None:
        parts = self._feeding.fetched(answer)
        for part in parts or ():
            self._dispatcher.produced(part)
        if parts is None and self._connected:
            self._to_collector(self._begin_message(self._counted()))

    def _counted(self) -> list[m.TaskProgress]:
        """What is done is told to one that holds nothing only, when it has said so: it may be millions of ranges."""
        return [only_counted(task.ledger.progress()) for task in self.tasks.values()]

    def _believed(self, task: TaskState, *told: m.Spans) -> list[m.Spans]:
        """What is said to be done, without what cannot be: it was never sent."""
        sent = [task.ledger.sent_of(spans) for spans in told]
        if any(map(is_not, sent, told)):
            self._out += self._violations.note(COLLECTOR, f"acknowledged items of {task.spec.task_type!r} never sent")
        return sent

    def _take_over_end(self, holding: m.Holding, now: float) -> None:
        """What became of the items is as the collector says."""
        self._told_end = m.Finish(holding.run, holding.ok, holding.counts)
        told = {counts.task: counts.state for counts in holding.counts}
        for name, task in self.tasks.items():
            # the run is over, and so is each task, also one that the collector does not name
            state = told.get(name, "")
            task.state, task.over_at = state if state in _OVER else "aborted", now

    def _merge(self, holding: m.Holding, now: float) -> None:
        # each answer to a repeated question says all of it again, and half a million ranges take seconds
        news = [] if holding.progress == self._merged else holding.progress
        self._merged = holding.progress
        self._merge_progress(news, now)
        self._gates.told_last_ack(holding.ack_task, holding.count, holding.ack_data)
        if self.phase != "greeting":
            self._gates.hear([], holding.kept_from, holding.count, news=False)

    def _merge_progress(self, progress: list[m.TaskProgress], now: float) -> None:
        for known in progress:
            task = self.tasks.get(known.task)
            if task is not None:
                done = self._believed(task, known.collected, known.failed)
                self._dispatcher.note_released(task.ledger.acknowledge(*done), now)
                task.ledger.learn_repeated(known.repeated)
                task.ledger.learn_counts(known.redelivered, known.duplicates)

    def _hear(self, ack: m.Ack, *, news: bool) -> None:
        if self._gates.hear(ack.notes, ack.kept_from, ack.count, news=news):
            self._to_collector(self._begin_message(self._counted()))

    def _is_good(self) -> bool:
        if self._told_end is not None:
            return self._told_end.ok
        return all(task.is_good for task in self.tasks.values())

    def _verdict(self) -> m.RunEnded:
        """How the run ended, as the others are told."""
        if self.early:
            return ended_early(self.run or self._proposed, self.early)
        if self._is_good() and self.troubles.keys().isdisjoint(AT_THE_END):
            return m.RunEnded(self.run)
        return over(self.run, self.counts(), self.troubles, self.failed.troubles())

    def _to_collector(self, body: m.Message) -> None:
        self._do(c.Send(COLLECTOR, self._acks.wrap(body)))

    def _is_waiting_for_acks(self) -> bool:
        return self._gates.lacks_acks or any(task.ledger.leased or task.ledger.given_up for task in self.tasks.values())

    def _may_lack_words(self) -> bool:
        """Whether the collector may have said something that was lost: it is asked what it holds.

        What a worker brings from an earlier life is with nobody, as far as is known here, and may be done already.
        """
        if self._is_waiting_for_acks() or self._feeding.lacks_words:
            return True
        return any(task.ledger.has_claims for task in self.tasks.values())

    def _do(self, command: c.Command) -> None:
        self._out.append(command)

    def _log(self, level: int, text: str, **about: str | int) -> None:
        self._do(c.Log(level, text, about))


def _spec(tasks: Sequence[TaskSpec], name: str) -> TaskSpec:
    return next(one for one in tasks if one.task_type == name)
