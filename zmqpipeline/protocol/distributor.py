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
finishing  every task is over, Holding  tells the collector (Finish); waits for as long as `finished` takes
           (finishing)
farewell   Finished, Holding (finished) tells the workers (RunEnded), also who comes until `stay` is over; waits for
           or final Drain, RunEnded,    their Goodbye, at most 2 s; then says Bye, until the collector has answered it,
           EndFound                     at most 2 s. Of a run that ends early it tells the collector, too, by RunEnded
                                        in the place of Bye
draining   Drain                        hands out nothing, recalls what is unstarted; waits for what is leased
ended
========== ============================ ===========================================================================
"""

from __future__ import annotations

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.failure_kinds import said
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.delivery.transitions import UNSERVED_SECONDS
from zmqpipeline.protocol.machine import soonest
from zmqpipeline.protocol.peers import Verdict, how_to_start
from zmqpipeline.protocol.run_end import AT_THE_END, early
from zmqpipeline.protocol.status import HOP
from zmqpipeline.protocol.to_collector import REPEAT_SECONDS, ToCollector
from zmqpipeline.protocol.waiting import NOBODY_CAME, WARN_SECONDS

FAREWELL_SECONDS = 2.0
"""How long the workers have to say goodbye, and then the collector to answer Bye."""

HURRY_SECONDS = 0.2
"""The same after a drain that ran out of time."""


class DistributorMachine(ToCollector):
    """See the module. `run` is the id proposed for a new run; `metadata` is where its metadata comes from.

    Hops: ``workers``, ``workers/1``, ..., ``metadata`` and ``status`` (bound), ``acks`` (to the collector).
    """

    # the contract ------------------------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[c.Command]:  # noqa: C901, PLR0912 - a table
        """See `Machine.handle`."""
        self._out = self._dispatcher.out = []
        self._dispatcher.now = now
        if self.phase == "ended":
            return []
        self._stay.pass_time(now)
        self._early_stay.pass_time(now)
        match event:
            case e.Received():
                self._received(event, now)
            case e.Produced():
                self._produced(event)
            case e.PeerLost(peer) if peer[0] == HOP:
                self._responder.lost(peer)
            case e.PeerLost(peer):
                self._violations.lost(peer)
                self._giving.lost(peer)
                self._dispatcher.peer_lost(peer)
            case e.Connected("acks"):
                self._connected = self._dispatcher.has_paused = True
                self._say_again(now)
            case e.Disconnected("acks"):
                self._connected = False
                if self.phase in ("running", "finishing"):
                    self._log(30, "The connection to the collector broke; the run goes on when it is back.")
            case e.MetadataLoaded():
                self._metadata_loaded(event, now)
            case e.WorkerDied(pid, how):
                self._dispatcher.worker_died(pid, how)
            case e.WorkersDesired(name, number) if name in self.tasks:
                self.tasks[name].desired = number
            case e.EndFound() if self.phase == "greeting" and (why := self._early_end.verdict(event, now)):
                self._end_early(why, 1, now)
            case e.Drain(seconds, final):
                self._is_final = self._is_final or final
                # in the greeting another one may be at work with the collector: that one's run goes on
                if final and self.interrupted_at is None and not (self.phase == "greeting" and self._connected):
                    self.interrupted_at = now
                self._drain(now + seconds, now)
        self._by_the_clock(now)
        self._tell_news()
        self._move_on(now)
        self._look_around(now, is_told=isinstance(event, e.Disconnected))
        return self._out

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        if self.phase == "ended":
            return None
        if not self._waiting.has_looked:
            return 0.0
        times = [self._deadline, self._repeat_at, self._dispatcher.next_time(), self._waiting.next_time()]
        times += (self.failed.kinds.next_time(), self._early_end.next_time())
        if self.phase == "farewell":
            times += (self._stay.until, self._early_stay.until)
        if self.phase == "running":
            for task in self.tasks.values():
                times += (task.ledger.next_due(), None if task.is_over else task.unserved_at)
        return soonest(times)

    def check(self) -> None:
        """The ledgers hold, and no task has begun before what it depends on was over."""
        self._dispatcher.check()

    # the clock ---------------------------------------------------------------------------------------------------

    def _by_the_clock(self, now: float) -> None:
        if self._repeat_at is not None and now >= self._repeat_at:
            self._say_again(now)
        self._dispatcher.by_the_clock(now)
        if self.failed.kinds:
            self._out += self.failed.sums(now)
        if self.phase == "running":
            for task in self.tasks.values():
                due = task.ledger.next_due()
                if due is not None and now >= due:
                    task.ledger.ripen(now)
                    self._dispatcher.feed(task)
                if task.is_hopeless:
                    # what came back from a worker that was lost
                    task.ledger.abandon()
                elif not task.workers and task.state != "waiting" and not task.is_over:
                    self._look_for_workers(task, now)

    def _look_around(self, now: float, *, is_told: bool) -> None:
        """Say who is not there, if it is time; look whether it was there."""
        self._early_end.wait(now, alone=self.phase == "greeting" and not self._connected)
        if self._early_end.is_due(now):
            self._do(c.LookForEnd())
        remote = self._source == "remote"
        self._waiting.look(self.phase, now, connected=self._connected, remote=remote, is_told=is_told)
        if reason := self._waiting.verdict(now):
            self._end(NOBODY_CAME, reason)
        elif warning := self._waiting.warning(now):
            self._log(30, warning)

    def _look_for_workers(self, task: TaskState, now: float) -> None:
        """It has none: say so after a while; give it up if none can begin."""
        if trouble := self._dispatcher.starts.in_vain(task, now):
            self._moves.give_up(task, trouble)
        elif task.unserved_at is None:
            task.unserved_at = now + UNSERVED_SECONDS
        elif now >= task.unserved_at:
            self._warn_unserved(task, now)

    def _warn_unserved(self, task: TaskState, now: float) -> None:
        name = task.spec.task_type
        task.unserved_at = now + WARN_SECONDS
        text = f"No worker serves task {name!r}; its items wait. {how_to_start(self._command, 'worker', name)}"
        self._log(30, text, task=name)

    # messages ----------------------------------------------------------------------------------------------------

    def _received(self, event: e.Received, now: float) -> None:
        if event.peer[0] == "acks":
            self._from_collector(event.envelope, now)
            return
        if event.peer[0] == HOP:
            self._out += self._responder.received(event, self.facts, now)
            return
        envelope, peer = event.envelope, event.peer
        if self._links.is_another(peer, envelope.sender):
            self._out += self._violations.note(peer, "speaks for more than one process")
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

    def _produced(self, event: e.Produced) -> None:
        if self.phase != "running":
            return
        self._dispatcher.produced(event)
        if event.state == "failed":
            self._note_failed(self.tasks[event.task], event.trouble or m.ErrorInfo("Error", "the source failed"))

    # the collector -----------------------------------------------------------------------------------------------

    def _from_collector(self, envelope: m.Envelope, now: float) -> None:  # noqa: C901, PLR0912 - a table
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
                self._learn(part.outboxes)
                self._merge_progress([m.TaskProgress(task, collected, failed)], now)
            case m.Fetched(run) as answer if run == self.run and self.phase == "running":
                self._fetched(answer)
            case m.Failing(run, kinds) if run == self.run:
                self._failing = kinds
            case m.Noted(run, task, spans) if run == self.run and task in self.tasks:
                self.tasks[task].ledger.note_told(spans)
            case m.Finished(run) as finished if run == self.run and self.phase == "finishing":
                self._farewell(finished, now)
            case m.Bye(run) if run == self.run and self._last is not None:
                self._end(*self._last)
            case m.RunEnded(run, _, reason) if run in ("", self.run or self._proposed):
                self._collector_ends(reason, now)
            # what was said before that is answered later
            case m.Refused(reason) if self.phase != "farewell":
                self._end(2, reason)
        if verdict is Verdict.GAP:
            self._say_again(now)

    def _acknowledge(self, ack: m.Ack, now: float) -> None:
        self._learn(ack.outboxes)
        task = self.tasks.get(ack.task)
        if task is None:
            # what it says of ACKs that were not heard
            self._hear(ack, news=False)
            return
        self._note_collector(ack, now)
        task.ledger.learn_counts(ack.redelivered, ack.duplicates)
        before = task.ledger.done
        released = task.ledger.acknowledge(*self._believed(task, ack.collected, ack.failed))
        task.ledger.learn_repeated(ack.repeated)
        self._dispatcher.note_released(released, now)
        if ack.failed:
            # the source may have waited for the collector to write them down
            self._dispatcher.feed(task)
        news = task.ledger.done > before
        self._gates.acknowledged(ack.data_of or ack.task, ack.count, ack.data, news=news)
        self._hear(ack, news=news)

    def _holding(self, holding: m.Holding, now: float) -> None:
        if self.phase == "greeting":
            self._take_over(holding, now)
        elif not holding.run and self.phase in ("beginning", "running", "draining", "finishing"):
            self._say_all()
        elif self.phase in ("beginning", "running", "draining") and holding.run == self.run:
            self._repeat_at = now + REPEAT_SECONDS
            self._learn(holding.outboxes)
            self._merge(holding, now)
            self._feeding.again()
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
            self._take_over_end(holding, now)
            self._log(20, "The collector says that this run is already finished.")
            # the one before may have died before it told the workers, which are connecting again
            self._part(now)
        elif not self._parts.lacks(holding):
            self.run, self.metadata = holding.run, holding.metadata
            for task in self.tasks.values():
                task.ledger.take_over(self._rng.randrange(1, 1 << 30) << 32, now)
            self._learn(holding.outboxes)
            self._learn_pauses(holding.pauses)
            self._merge_progress(self._parts.progress(), now)
            self._merge(holding, now)
            if holding.finishing:
                self._log(20, f"Every item of the run {holding.run} is done; the collector's `finished` still runs.")
                self._take_over_end(holding, now)
                self._out += self._giving.take()
                self._dispatcher.begin(self.run, self.metadata)
                self._finish(now)
            else:
                self._log(20, f"The collector holds the unfinished run {holding.run}; it goes on.")
                self._begin(now)

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
            trouble = self.troubles["metadata"] = event.trouble
            raised = f"the metadata function raised {said(trouble).rstrip('.')}"
            shown = f"\n{trouble.traceback.rstrip()}" if "Traceback" in trouble.traceback else ""
            self._log(40, f"{raised[0].upper()}{raised[1:]}.{shown}")
            for task in self.tasks.values():
                self._moves.abort(task, raised)
        self._begin(now)

    def _begin(self, now: float) -> None:
        self.phase = "beginning"
        self._say_again(now)

    def _start(self, now: float) -> None:
        self.phase = "running"
        self._out += self._giving.take()
        self._do(c.StartTasks(self.metadata))
        self._dispatcher.begin(self.run, self.metadata)

    # tasks move on -----------------------------------------------------------------------------------------------

    def _move_on(self, now: float) -> None:
        """What follows from the state: tasks open and end, the run ends."""
        if self._lost and self.phase in ("running", "draining"):
            self._end_early(self._lost, 1, now)
        elif self.phase == "running":
            self._moves.move_on(now)
            if all(task.is_over for task in self.tasks.values()):
                self._finish(now)
        elif self.phase == "farewell":
            self._leave(now, is_late=self._deadline is not None and now >= self._deadline)
        elif self.phase == "finishing" and self._deadline is not None and now >= self._deadline:
            if self._is_final:
                self._end_early(early("distributor"), 1, now)
            else:
                self._end(1, "the collector did not say that the run is finished")
        elif self.phase == "draining":
            for task in self.tasks.values():
                task.ledger.abandon()
            if not self._is_waiting_for_acks() or (self._deadline is not None and now >= self._deadline):
                self._dispatcher.release_all()
                self._drained(now)

    # the end -----------------------------------------------------------------------------------------------------

    def _finish(self, now: float) -> None:
        """Every item is done."""
        self.phase = "finishing"
        self._dispatcher.stage = "closed"
        self._dispatcher.release_all()
        self._say_again(now)

    def _farewell(self, finished: m.Finished, now: float) -> None:
        self.troubles |= {one.task: one.trouble for one in finished.troubles if one.task in AT_THE_END}
        self.finished_data = finished.data
        for kind in finished.kinds:
            self.failed.add(kind.first, now, kind.items)
        self._part(now)

    def _part(self, now: float) -> None:
        self.phase = "farewell"
        self.is_over = True
        self._repeat_at = None
        self._out += self._giving.take()
        self._deadline = now + (FAREWELL_SECONDS if self._deadline is None or now < self._deadline else HURRY_SECONDS)
        self._dispatcher.say_farewell(self._verdict())
        if self.early:
            self._say_again(now)

    def _leave(self, now: float, *, is_late: bool) -> None:
        """End if nobody is waited for any more, or for too long."""
        is_staying = bool(self._dispatcher.members or self._stay.until)
        if self.early:
            lacks_answer = self._connected and not self._collector_heard
            if is_late or not (is_staying or self._early_stay.until or lacks_answer):
                self._end(self._early_status, self.early if self._early_status else "drained")
        elif self._last is not None:
            if is_late:
                self._end(*self._last)
        elif self._was_finished and is_late:
            self._say_bye(0 if self._is_good() else 1, "already finished", now)
        elif is_late or not (is_staying or self._told_end):
            verdict = self._verdict()
            self._say_bye(0 if verdict.ok else 1, verdict.reason or "the run is over", now)

    def _say_bye(self, status: int, reason: str, now: float) -> None:
        """It is the last word, and said until it is answered: who never hears it waits a minute for it."""
        self._last, self._deadline = (status, reason), now + FAREWELL_SECONDS
        self._say_again(now)

    def _end_early(self, why: str, status: int, now: float) -> None:
        self.early, self._early_status = why, status
        self._part(now)

    def _collector_ends(self, why: str, now: float) -> None:
        """Nobody comes in its place; or it answers that it has heard of our end."""
        self._collector_heard = True
        if self.phase != "farewell":
            self._end_early(why, 0 if self.phase == "draining" else 1, now)

    def _drained(self, now: float) -> None:
        if self._is_final:
            self._end_early(early("distributor"), 0, now)
        else:
            self._end(0, "drained")

    def _drain(self, deadline: float, now: float) -> None:
        if self.phase in ("greeting", "metadata", "beginning"):
            self._drained(now)
        elif self.phase == "finishing":
            # The collector may be gone for good: wait for its word, but not for ever.
            self._deadline = deadline
        elif self.phase in ("draining", "farewell") and self._deadline is not None:
            self._deadline = min(self._deadline, deadline)
        elif self.phase == "running":
            self.phase = "draining"
            self._dispatcher.stage = "closed"
            self._deadline = deadline
            self._dispatcher.recall_all()

    def _end(self, status: int, reason: str) -> None:
        self.ok = status == 0 and self.phase == "farewell" and not self.early
        self.phase = "ended"
        self._out += self.failed.rest(self._dispatcher.now)
        self._out += self._dispatcher.starts.rest(self._dispatcher.now)
        self._do(c.Ended(status, reason))
