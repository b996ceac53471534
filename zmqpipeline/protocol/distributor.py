"""The distributor machine: hands out the items of its tasks, and knows where each is until it is acknowledged.

The law:

* Nothing is handed out before a collector has been heard. If it holds an unfinished run, that run goes on here.
* A task's items are handed out once all that it depends on is over, and never ahead of the workers' demand.
* An item is a worker's from when it is sent until its ACK. A worker that is gone loses what it has not finished; one
  that is only slow loses nothing.
* What the collector acknowledges is done; the worker that kept it is told with whatever is sent to it next.
* Metadata is taken when the collector has the run that they belong to: until then their giver has to stay, since nobody
  else would know them if this process died.
* What the collector says that it has, failed items and ranges, is not sent to it again.

========== ============================ ===========================================================================
phase      entered by                   meaning
========== ============================ ===========================================================================
greeting   start                        asks for a collector (Propose)
metadata   Holding without a run        waits for the metadata function or the metadata worker
beginning  metadata, or Holding         tells the collector the run (Begin)
running    Holding with our run         hands out items
finishing  every task is over           tells the collector (Finish)
farewell   Finished, Holding (finished) tells the workers (RunEnded), waits for their Goodbye, at most 2 s; then Bye
draining   Drain                        hands out nothing, recalls what is unstarted; waits for what is leased
ended
========== ============================ ===========================================================================
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from operator import is_not

from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.dispatch import Dispatcher, TaskState
from zmqpipeline.protocol.failures import gate_closed, in_a_line, in_messages
from zmqpipeline.protocol.graph import TaskSpec, order
from zmqpipeline.protocol.ledger import Ledger
from zmqpipeline.protocol.link import Link, Verdict
from zmqpipeline.protocol.machine import soonest
from zmqpipeline.protocol.metadata import MetadataGiven
from zmqpipeline.protocol.parts import Parts, in_parts, only_counted
from zmqpipeline.protocol.roster import Links
from zmqpipeline.protocol.snapshots import DistributorSnapshot
from zmqpipeline.protocol.status import HOP, Facts, StatusDesk
from zmqpipeline.protocol.strangers import Strangers

REPEAT_SECONDS = 1.0
"""How often something unanswered is said again, and how long no ACK may come before the collector is asked."""

FAREWELL_SECONDS = 2.0
"""How long the workers have to say goodbye."""

WARN_FIRST_SECONDS = 5.0
WARN_SECONDS = 60.0

_COLLECTOR: e.Peer = ("acks", b"")
_AS_HERE = ", with the --endpoint of this role if it has one"


class DistributorMachine:
    """See the module. `run` is the id proposed for a new run; `metadata` is where its metadata comes from.

    Hops: ``workers``, ``workers/1``, ..., ``metadata`` and ``status`` (bound), ``acks`` (to the collector).
    """

    def __init__(
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
        show: Callable[[bytes], str] = repr,
        is_dict: Callable[[bytes], bool] = bool,
    ) -> None:
        """`supervised`: the host on which whoever started the workers tells by WorkerDied how they end.

        `show` makes text for people of a packed value, `is_dict` tells whether one is a dict: what is in one is not
        known here.
        """
        self.pipeline = pipeline
        self.phase = "greeting"
        self.run = ""
        self.metadata = b""
        self.troubles: dict[str, m.Trouble] = {}
        self.finished_data = b""
        self.tasks = {name: TaskState(_spec(tasks, name), Ledger(_spec(tasks, name))) for name in order(tasks)}
        self._proposed = run
        self._parts = Parts(self.tasks)
        self._merged: list[m.TaskProgress] = []
        """What a collector has said last that it holds."""
        self._rng = rng or random.Random()
        self._source = metadata
        self._show = show
        self._links = Links(incarnation)
        self._acks = Link(incarnation)
        self._desk = StatusDesk(incarnation)
        self._strangers = Strangers()
        self._giving = MetadataGiven(is_dict, self._strangers)
        self._connected = False
        self._dispatcher = Dispatcher(
            self.tasks,
            self._links,
            options=options or Options(),
            rng=self._rng,
            tell_given_up=self._tell_given_up,
            supervised=supervised,
        )
        self._deadline: float | None = None
        self._repeat_at: float | None = None
        self._warn_at: float | None = None
        self._loading = False
        self._was_finished = False
        """The run was over before this process began."""
        self._out: list[c.Command] = []

    # the contract ------------------------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """See `Machine.handle`."""
        self._out = self._dispatcher.out = []
        self._dispatcher.now = now
        if self.phase == "ended":
            return []
        if self._warn_at is None and self.phase == "greeting":
            self._warn_at = now + WARN_FIRST_SECONDS
        match event:
            case e.Received():
                self._received(event, now)
            case e.Produced():
                self._produced(event)
            case e.PeerLost(peer) if peer[0] == HOP:
                self._desk.lost(peer)
            case e.PeerLost(peer):
                self._strangers.lost(peer)
                self._giving.lost(peer)
                self._dispatcher.peer_lost(peer)
            case e.Connected("acks"):
                self._connected = True
                self._say_again(now)
            case e.Disconnected("acks"):
                self._connected = False
                self._warn_at = now + WARN_SECONDS
                if self.phase in ("running", "finishing"):
                    self._log(30, "The connection to the collector broke; the run goes on when it is back.")
            case e.MetadataLoaded():
                self._metadata_loaded(event, now)
            case e.WorkerDied(pid, how):
                self._dispatcher.worker_died(pid, how)
            case e.Drain(seconds):
                self._drain(now + seconds)
            case _:
                pass
        self._by_the_clock(now)
        self._move_on(now)
        return self._out

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        if self.phase == "ended":
            return None
        if self._warn_at is None and self.phase == "greeting":
            return 0.0
        times = [self._deadline, self._repeat_at, self._dispatcher.next_time(), self._warn_at]
        if self.phase == "running":
            for task in self.tasks.values():
                times += (task.ledger.next_due(), task.unserved_at)
        return soonest(times)

    @property
    def last_ack(self) -> tuple[str, int, bytes]:
        """Task, count and packed data of the newest ACK."""
        return self._dispatcher.last_ack

    def counts(self) -> list[m.TaskCounts]:
        """The figures of each task, for the summary."""
        found = []
        for task in self.tasks.values():
            counts = task.ledger.counts(task.state)
            if task.state == "aborted" and task.spec.total is not None and not counts.sent:
                counts = m.TaskCounts(task=counts.task, state=counts.state, aborted=task.spec.total)
            found.append(counts)
        return found

    def facts(self) -> Facts:
        """What an answer on the hop ``status`` is built from."""
        tasks, members, troubles = self.tasks, self._dispatcher.members, self.troubles
        return Facts(self.pipeline, self.run, self.phase, self._connected, tasks, members, troubles)

    def snapshot(self) -> DistributorSnapshot:
        """What a distributor knows, for people."""
        return DistributorSnapshot(
            phase=self.phase,
            run=self.run,
            tasks=self.counts(),
            waiting={name: task.ledger.waiting for name, task in self.tasks.items()},
            leased={name: task.ledger.leased for name, task in self.tasks.items()},
            workers={name: task.workers for name, task in self.tasks.items()},
        )

    def check(self) -> None:
        """The ledgers hold, and no task has begun before what it depends on was over."""
        for task in self.tasks.values():
            task.ledger.check()
            if task.state not in ("waiting", "aborted"):
                late = [name for name in task.spec.depends_on if not self.tasks[name].is_over]
                assert not late, f"{task.spec.task_type} began before {late}"
        self._dispatcher.check()

    # the clock ---------------------------------------------------------------------------------------------------

    def _by_the_clock(self, now: float) -> None:
        if self._repeat_at is not None and now >= self._repeat_at:
            self._say_again(now)
        self._dispatcher.by_the_clock(now)
        if self.phase == "running":
            for task in self.tasks.values():
                due = task.ledger.next_due()
                if due is not None and now >= due:
                    task.ledger.ripen(now)
                    self._dispatcher.feed(task)
                if task.unserved_at is not None and now >= task.unserved_at:
                    self._warn_unserved(task, now)
        if self._warn_at is not None and now >= self._warn_at:
            self._warn_waiting(now)

    def _warn_waiting(self, now: float) -> None:
        self._warn_at = now + WARN_SECONDS
        if not self._connected:
            self._log(30, f"Waiting for a collector to connect to. Start one: python -m YOUR_APP collector{_AS_HERE}")
        elif self.phase == "metadata":
            self._log(30, "Waiting for the metadata worker (receive_metadata is set). Start it.")
        elif self.phase not in ("greeting", "beginning", "finishing"):
            self._warn_at = None

    def _warn_unserved(self, task: TaskState, now: float) -> None:
        name = task.spec.task_type
        task.unserved_at = now + WARN_SECONDS
        text = f"No worker serves task {name!r}; its items wait. Start one: python -m YOUR_APP worker {name}{_AS_HERE}"
        self._log(30, text, task=name)

    # messages ----------------------------------------------------------------------------------------------------

    def _received(self, event: e.Received, now: float) -> None:
        if event.peer[0] == "acks":
            self._from_collector(event.envelope, now)
            return
        if event.peer[0] == HOP:
            self._out += self._desk.received(event, self.facts, now)
            return
        envelope, peer = event.envelope, event.peer
        if self._links.is_another(peer, envelope.sender):
            self._out += self._strangers.note(peer, "speaks for more than one process")
            return
        link, verdict = self._links.admit(peer, envelope)
        if verdict is Verdict.REPEAT:
            return
        body = envelope.body
        if isinstance(body, m.Metadata):
            self._out += self._giving.given(body.payload, peer, link, is_open=self.phase in ("greeting", "metadata"))
            if self.phase not in ("greeting", "metadata", "beginning"):
                self._out += self._giving.take()
            self._metadata_ready(now)
            return
        self._dispatcher.received(envelope, peer, link, verdict, now)

    def _tell_given_up(self, failures: list[m.FailedItem], worker: str) -> None:
        whose: dict[str, str | int] = {"worker": worker} if worker else {}
        for item in failures:
            text = (
                f"Item {item.number} of {item.task!r} failed for good after {item.attempts} attempt(s) "
                f"({item.stage}): {in_a_line(item.trouble)}"
            )
            self._log(30, text, task=item.task, item=item.number, attempt=item.attempts, **whose)
        if self._dispatcher.stage != "before":
            self._say_given_up(failures)

    def _produced(self, event: e.Produced) -> None:
        if self.phase != "running":
            return
        self._dispatcher.produced(event)
        if event.state == "failed":
            self._note_failed(self.tasks[event.task], event.trouble or m.Trouble("Error", "the source failed"))

    def _note_failed(self, task: TaskState, trouble: m.Trouble) -> None:
        self.troubles[task.spec.task_type], task.over_at = trouble, self._dispatcher.now
        name = task.spec.task_type
        self._log(40, f"Task {name!r} failed: {trouble.error}: {trouble.message}\n{trouble.traceback}", task=name)

    # the collector -----------------------------------------------------------------------------------------------

    def _from_collector(self, envelope: m.Envelope, now: float) -> None:
        verdict = self._acks.admit(envelope)
        if verdict is Verdict.REPEAT:
            return
        if verdict is Verdict.NEW:
            # another collector process has nothing of what was told to the one before
            for one in self.tasks.values():
                one.ledger.told.clear()
        match envelope.body:
            case m.Ack() as ack if ack.run == self.run:
                self._acknowledge(ack, now)
            case m.Holding() as holding:
                self._holding(holding, now)
            case m.Keys() | m.Ranges() as part if self.phase == "greeting":
                # more of them may be on the way: it is not asked again meanwhile
                self._repeat_at = now + REPEAT_SECONDS
                self._parts.learn(part)
            case m.Ranges(run, task, collected, failed) as part if run == self.run and self._parts.is_news(part):
                self._merge_progress([m.TaskProgress(task, collected, failed)], now)
            case m.Noted(run, task, spans) if run == self.run and task in self.tasks:
                self.tasks[task].ledger.note_told(spans)
            case m.Finished(run) as finished if run == self.run and self.phase == "finishing":
                self._farewell(finished, now)
            case m.Refused(reason):
                self._end(2, reason)
        if verdict is Verdict.GAP:
            self._say_again(now)

    def _acknowledge(self, ack: m.Ack, now: float) -> None:
        task = self.tasks.get(ack.task)
        if task is None:
            return
        self._repeat_at = now + REPEAT_SECONDS
        task.ledger.duplicates = max(task.ledger.duplicates, ack.duplicates)
        before = task.ledger.done
        released = task.ledger.acknowledge(*self._believed(task, ack.collected, ack.failed))
        task.ledger.learn_repeated(ack.repeated)
        self._dispatcher.note_released(released, now)
        if ack.failed:
            # the source may have waited for the collector to write them down
            self._dispatcher.feed(task)
        self._dispatcher.acknowledged(ack.data_of or ack.task, ack.count, ack.data, news=task.ledger.done > before)

    def _believed(self, task: TaskState, *told: m.Spans) -> list[m.Spans]:
        """What is said to be done, without what cannot be: it was never sent."""
        sent = [task.ledger.sent_of(spans) for spans in told]
        if any(map(is_not, sent, told)):
            self._out += self._strangers.note(_COLLECTOR, f"acknowledged items of {task.spec.task_type!r} never sent")
        return sent

    def _holding(self, holding: m.Holding, now: float) -> None:
        if self.phase == "greeting":
            self._take_over(holding, now)
        elif not holding.run and self.phase in ("beginning", "running", "draining", "finishing"):
            self._say_all()
        elif self.phase in ("beginning", "running", "draining") and holding.run == self.run:
            self._repeat_at = now + REPEAT_SECONDS
            self._merge(holding, now)
            if self.phase == "beginning":
                self._start(now)
            else:
                self._tell_given_up_again()

    def _take_over(self, holding: m.Holding, now: float) -> None:
        if not holding.run:
            self._parts.expect("")
            self.phase = "metadata"
            self._repeat_at = None
            self._metadata_ready(now)
        elif holding.finished:
            self.run = self._dispatcher.run = holding.run
            self._was_finished = True
            self._log(20, "The collector says that this run is already finished.")
            # the one before may have died before it told the workers, which are connecting again
            self._part(now)
        elif not self._parts.lacks(holding):
            self._log(20, f"The collector holds the unfinished run {holding.run}; it goes on.")
            self.run, self.metadata = holding.run, holding.metadata
            for task in self.tasks.values():
                task.ledger.take_over(self._rng.randrange(1, 1 << 30) << 32)
            self._merge_progress(self._parts.progress(), now)
            self._merge(holding, now)
            self._begin(now)

    def _say_all(self) -> None:
        """The collector holds no run although one is under way: it is a new one, and is told all that is done."""
        for name, task in self.tasks.items():
            for part in task.ledger.keys.messages(self.run, name):
                self._to_collector(part)
        progress, parts = in_parts(self.run, [task.ledger.progress() for task in self.tasks.values()])
        for ranges in parts:
            self._to_collector(ranges)
        self._to_collector(self._begin_message(progress))

    def _merge(self, holding: m.Holding, now: float) -> None:
        # each answer to a repeated question says all of it again, and half a million ranges take seconds
        news = [] if holding.progress == self._merged else holding.progress
        self._merged = holding.progress
        self._merge_progress(news, now)
        self._dispatcher.told_last_ack(holding.ack_task, holding.count, holding.ack_data)

    def _merge_progress(self, progress: list[m.TaskProgress], now: float) -> None:
        for known in progress:
            task = self.tasks.get(known.task)
            if task is not None:
                done = self._believed(task, known.collected, known.failed)
                self._dispatcher.note_released(task.ledger.acknowledge(*done), now)
                task.ledger.learn_repeated(known.repeated)

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
            self.phase in ("running", "draining") and self._is_waiting_for_acks()
        ):
            # Finishing, too: a collector that was started anew knows nothing of the run that it shall finish. What is
            # done is told to one that holds nothing only, when it has said so: it may be millions of ranges.
            progress = [task.ledger.progress() for task in self.tasks.values()]
            self._to_collector(self._begin_message(list(map(only_counted, progress))))
        if self.phase == "finishing":
            self._to_collector(m.Finish(self.run, self._is_good(), self.counts()))

    def _begin_message(self, progress: list[m.TaskProgress]) -> m.Begin:
        ack_task, _, ack_data = self._dispatcher.last_ack
        return m.Begin(self.pipeline, self.run, self.metadata, progress, ack_task, ack_data)

    def _is_waiting_for_acks(self) -> bool:
        return any(task.ledger.leased or task.ledger.given_up for task in self.tasks.values())

    # the beginning -----------------------------------------------------------------------------------------------

    def _metadata_ready(self, now: float) -> None:
        if self.phase != "metadata":
            return
        if self._source == "local":
            if not self._loading:
                self._loading = True
                self._do(c.LoadMetadata())
        elif self._source == "none" or self._giving.offered is not None:
            self.metadata = self._giving.offered or b""
            self.run = self._proposed
            self._begin(now)

    def _metadata_loaded(self, event: e.MetadataLoaded, now: float) -> None:
        self.run, self.metadata = self._proposed, event.payload
        if event.trouble is not None:
            for task in self.tasks.values():
                self._abort(task, "the metadata function failed")
            self.troubles["metadata"] = event.trouble
            trouble = event.trouble
            told = trouble.traceback.rstrip() or f"{trouble.error}: {trouble.message}"
            self._log(40, f"The metadata function failed.\n{told}")
        self._begin(now)

    def _begin(self, now: float) -> None:
        self.phase = "beginning"
        self._warn_at = None
        self._say_again(now)

    def _start(self, now: float) -> None:
        self.phase = "running"
        self._out += self._giving.take()
        self._do(c.StartTasks(self.metadata))
        self._dispatcher.begin(self.run, self.metadata)

    # tasks move on -----------------------------------------------------------------------------------------------

    def _move_on(self, now: float) -> None:
        """What follows from the state: tasks open and end, the run ends."""
        if self.phase == "running":
            self._move_tasks(now)
            if all(task.is_over for task in self.tasks.values()):
                self.phase = "finishing"
                self._dispatcher.stage = "closed"
                self._dispatcher.release_all()
                self._say_again(now)
        elif self.phase == "farewell":
            is_late = self._deadline is not None and now >= self._deadline
            if self._was_finished and is_late:
                self._to_collector(m.Bye(self.run))
                self._end(0, "already finished")
            elif is_late or not (self._dispatcher.members or self._was_finished):
                self._to_collector(m.Bye(self.run))
                self._end(0 if self._is_good() and "finished" not in self.troubles else 1, "the run is over")
        elif self.phase == "finishing" and self._deadline is not None and now >= self._deadline:
            self._end(1, "the collector did not say that the run is finished")
        elif self.phase == "draining":
            for task in self.tasks.values():
                task.ledger.abandon()
            if not self._is_waiting_for_acks() or (self._deadline is not None and now >= self._deadline):
                self._dispatcher.release_all()
                self._end(0, "drained")

    def _move_tasks(self, now: float) -> None:
        moved = True
        while moved:
            moved = False
            for task in self.tasks.values():
                before = task.state
                if before in ("waiting", "exhausted"):
                    self._move_task(task, now)
                    moved = moved or task.state != before
        self._find_closed_gates()

    def _move_task(self, task: TaskState, now: float) -> None:
        if task.state == "exhausted" and not task.ledger.unfinished:
            task.state, task.over_at = "complete", now
            name, collected = task.spec.task_type, len(task.ledger.collected)
            self._log(20, f"Task {name!r} is complete: {collected} item(s) collected.", task=name)
        elif task.state == "waiting":
            needed = [self.tasks[name] for name in task.spec.depends_on]
            bad = [one for one in needed if one.is_over and not self._is_enough(task, one)]
            if bad:
                self._abort(task, f"{bad[0].spec.task_type!r}, which it depends on, did not succeed")
            elif all(one.is_over for one in needed):
                task.state, task.opened_at, task.inherited = "open", now, task.ledger.done
                task.unserved_at = None if task.workers else now + WARN_FIRST_SECONDS
                self._dispatcher.welcome_hungry(task)

    def _is_enough(self, task: TaskState, needed: TaskState) -> bool:
        return needed.state == "complete" and (needed.is_good or task.spec.on_failed == "continue")

    def _abort(self, task: TaskState, why: str) -> None:
        task.state = "aborted"
        self._log(40, f"Task {task.spec.task_type!r} is aborted: {why}.", task=task.spec.task_type)

    def _find_closed_gates(self) -> None:
        """A gate that no ACK will ever open fails its task."""
        alive = []
        for task in self.tasks.values():
            if task.state != "waiting" and not task.is_over:
                if not task.gated or task.ledger.unfinished:
                    return
                alive.append(task)
        name, count, data = self._dispatcher.last_ack
        for task in alive:
            task.state = "failed"
            carried = self._show(data) if data else ""
            self._note_failed(task, gate_closed(task.spec.task_type, (name, count), carried))

    def _is_good(self) -> bool:
        return all(task.is_good for task in self.tasks.values())

    # the end -----------------------------------------------------------------------------------------------------

    def _farewell(self, finished: m.Finished, now: float) -> None:
        if finished.trouble is not None:
            self.troubles["finished"] = finished.trouble
        self.finished_data = finished.data
        self._part(now)

    def _part(self, now: float) -> None:
        self.phase = "farewell"
        self._repeat_at = self._warn_at = None
        self._out += self._giving.take()
        self._deadline = now + FAREWELL_SECONDS
        self._dispatcher.say_farewell()

    def _drain(self, deadline: float) -> None:
        if self.phase in ("greeting", "metadata", "beginning"):
            self._end(0, "drained")
        elif self.phase == "finishing":
            # The collector may be gone for good: wait for its word, but not for ever.
            self._deadline = deadline
        elif self.phase == "running":
            self.phase = "draining"
            self._dispatcher.stage = "closed"
            self._deadline = deadline
            self._dispatcher.recall_all()

    def _end(self, status: int, reason: str) -> None:
        self.phase = "ended"
        self._do(c.Ended(status, reason))

    # out ---------------------------------------------------------------------------------------------------------

    def _to_collector(self, body: m.Message) -> None:
        self._do(c.Send(_COLLECTOR, self._acks.wrap(body)))

    def _do(self, command: c.Command) -> None:
        self._out.append(command)

    def _log(self, level: int, text: str, **about: str | int) -> None:
        self._do(c.Log(level, text, about))


def _spec(tasks: Sequence[TaskSpec], name: str) -> TaskSpec:
    return next(one for one in tasks if one.task_type == name)
