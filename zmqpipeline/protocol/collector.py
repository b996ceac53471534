"""The collector machine: each item to the collector's function once, then an ACK to the distributor, to it alone.

The law:

* Nothing is collected before a distributor has begun a run here (it may know of items that are done already).
* An item that was collected, failed, or waits for the collector's thread is not collected again. If it is done, it is
  acknowledged again, since a second coming means that somebody has not heard.
* Collected first, acknowledged second. An item for which the function raised is told to `failed`, then acknowledged
  as failed.
* Of what a worker says it keeps, the collector asks for all that it has never seen: that mends every loss on the way.
* How many bytes of results its workers may send it, `result_credit` says.
* What a journal held is as if this process had collected it. Whoever is acknowledged is in the journal by then: the
  answers of the collector's thread come after the commit.
* `finished` is called at least once: with a journal, the run counts as finished when it has returned. A journal that
  says that every item is done, and no more, has it called again, whether a distributor is there or not.

========== ======================== =============================================================================
phase      entered by               meaning
========== ======================== =============================================================================
empty      start                    no run; results are dropped (their workers keep them)
active     Begin, Restored          collects and acknowledges
finishing  Finish, all called       `finished` runs, for as long as it takes; Holding says so
finished   FinishedCalled, Restored stays for the distributor's Bye, or 10 s; for one that is cut off 60 s
draining   Drain, RunEnded,         finishes what its thread has, acknowledges, ends; after a final Drain it says so to
           EndFound                 distributor and workers, also to who comes until `stay` is over
ended
========== ======================== =============================================================================
"""

from __future__ import annotations

from dataclasses import replace

from zmqpipeline.errors import JournalError, JournalUnavailable
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collection.collecting import CollectedResults
from zmqpipeline.protocol.delivery.failure_kinds import said
from zmqpipeline.protocol.machine import soonest
from zmqpipeline.protocol.peers import Verdict
from zmqpipeline.protocol.run_end import early, ended_early, not_collected
from zmqpipeline.protocol.snapshots import CollectorSnapshot
from zmqpipeline.protocol.waiting import NOBODY_CAME

STAY_SECONDS = 10.0
"""How long a finished collector stays for a distributor that has not heard."""

ABSENT_SECONDS = 60.0
"""The same, if the connection broke before the distributor said goodbye: it would wait for this collector for ever."""

MAX_UNREADY = 100
"""So many lines are written of workers that could not be initialized: a lying distributor shall not fill the log."""

WARN_FIRST_SECONDS = 10.0
WARN_SECONDS = 60.0
"""How often a role that waits for another one says so."""


class CollectorMachine(CollectedResults):
    """See the module. `counts` and `ok` are the distributor's last word, filled in by the end of the run."""

    # the contract ------------------------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[c.Command]:  # noqa: C901, PLR0912 - a table
        """See `Machine.handle`."""
        self._out = []
        if self.phase == "ended":
            return []
        self._stay_young.pass_time(now)
        self._pauses.pass_time(now)
        if not self._born:
            self._born, self._warn_at, self._alone_since = True, now + WARN_FIRST_SECONDS, now
        match event:
            case e.Received():
                self._received(event.peer, event.envelope, now)
            case e.Collected():
                self._collected(event)
            case e.FailedCalled():
                self._failed_called(event)
            case e.Given():
                self._given(event)
            case e.Fetched():
                self._fetched(event)
            case e.FinishedCalled():
                self._finished_called(event, now)
            case e.PeerLost(peer):
                self._lost(peer, now)
            case e.Restored() if self.phase == "empty":
                self._restored(event, now)
            case e.JournalFailed(trouble, may_pass):
                self._end((JournalUnavailable if may_pass else JournalError).exit_status, trouble.message)
                return self._out
            case e.EndFound() if self._is_unserved() and (why := self._early_end.verdict(event, now)):
                self._end_found(why, now)
            case e.Drain(seconds, final):
                self._is_final = self._is_final or final
                if final and self.interrupted_at is None and self.phase != "finished":
                    self.interrupted_at = now
                self._drain(now + seconds)
            case e.DistributorEnds():
                self._is_last = True
        for credit in self._credits.to_tell():
            self._tell_credit(*credit)
        self._move_on(now)
        self._tell_failing(now)
        self._early_end.wait(now, alone=self._is_unserved())
        if self._early_end.is_due(now):
            self._do(c.LookForEnd())
        return self._out

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        if not self._born:
            return 0.0
        times = (self._deadline, self._warn_at, self._alone_until(), self._early_end.next_time(), self._failing_due())
        return None if self.phase == "ended" else soonest(times)

    @property
    def goes_on(self) -> bool:
        """Whether a collector that is started next may go on with the run: this one has not seen it to its end."""
        return bool(self.run) and not (self.has_finished or self.early or self._is_final)

    def snapshot(self) -> CollectorSnapshot:
        """What a collector has, for people."""
        tasks = {name: (len(one.collected), len(one.failed)) for name, one in list(self._tasks.items())}
        queued = sum(len(one.pending) for one in list(self._tasks.values()))
        return CollectorSnapshot(self.phase, self.run, tasks, queued, self._credits.queued)

    def check(self) -> None:
        """The sets of each task hold; the count of ACKs is the number of items done."""
        for name, one in self._tasks.items():
            one.check(name)
        self._credits.check()
        # what is told of a run that is not begun here is no more than that
        done = self._tasks.done if self.run else 0
        assert self.count == done, f"{done} items done, counted {self.count}"

    # peers -------------------------------------------------------------------------------------------------------

    def _received(self, peer: e.Peer, envelope: m.Envelope, now: float) -> None:
        if self._links.is_another(peer, envelope.sender):
            self._out += self._violations.note(peer, "speaks for more than one process")
            return
        _, verdict = self._links.admit(peer, envelope)
        if verdict is Verdict.REPEAT:
            return
        if verdict is Verdict.GAP and peer[0] == "results" and self.run:
            self._send(peer, m.Missing(self.run, "", ()))
        body = envelope.body
        match body:
            case m.Results():
                self._results(peer, body)
            case m.Kept():
                self._kept(peer, body)
            case (
                m.Propose() | m.Begin() | m.Keys() | m.Ranges() | m.GiveUp() | m.Unready()
                | m.Pauses() | m.Fetch() | m.Finish() | m.Bye() | m.RunEnded()
            ):  # fmt: skip
                self._from_distributor(peer, body, now)
            case _:
                pass

    def _lost(self, peer: e.Peer, now: float) -> None:
        who = self._links.lost(peer)
        if who is not None:
            self._credits.leave(who)
        self._violations.lost(peer)
        if peer == self._company:
            self._company = None
            if self.phase in ("empty", "active"):
                self._warn_at, self._alone_since = now + WARN_SECONDS, now
        if peer == self._distributor:
            self._distributor = None
            if self.phase == "finished" and not self._was_finished:
                self._stay_for_the_absent(now)
            if self.phase in ("empty", "active") and not self._is_last:
                self._log(30, "The connection to the distributor broke; what is collected is kept until it is back.")

    # the distributor ---------------------------------------------------------------------------------------------

    def _from_distributor(self, peer: e.Peer, body: m.Message, now: float) -> None:
        if self._is_second(peer):
            self._out += self._violations.note(peer, "speaks as a second distributor while one is connected")
            return
        match body:
            case m.Begin(pipeline, run) if self._is_out_of_place(pipeline, run):
                self._leave_the_run(pipeline, run)
            case m.Propose(pipeline) | m.Begin(pipeline) if not self._is_ours(pipeline):
                self._send(
                    peer, m.Refused(f"This collector belongs to the pipeline {self.pipeline!r}, not {pipeline!r}.")
                )
            case m.Begin(metadata=metadata) if metadata and not self._is_dict(metadata):
                self._out += self._violations.note(peer, "began a run with metadata that are no packed dict")
            case m.Propose():
                self._found(peer)
                self._say_keys(peer)
                self._say_holding(peer)
            case m.Begin():
                self._begin(peer, body, now)
            case m.Keys() | m.Ranges() if self.phase == "empty":
                self._tasks.learn(body)
            case m.RunEnded(run) if self.phase == "empty" or run == self.run:
                self._ended_early(peer, body, now)
            case (
                m.GiveUp(run) | m.Unready(run) | m.Pauses(run) | m.Fetch(run) | m.Finish(run) | m.Bye(run)
            ) if self.run and run == self.run:  # fmt: skip
                self._serves(peer)
                self._of_our_run(peer, body)

    def _serves(self, peer: e.Peer) -> None:
        """Whoever knows the run is its distributor; who only says that it were one keeps no other from being it."""
        self._distributor = peer
        self._was_served = True
        self._found(peer)

    def _found(self, peer: e.Peer) -> None:
        """A distributor is there: it is not waited for."""
        self._company, self._was_left = peer, False
        self._warn_at = self._alone_since = None

    def _alone_until(self) -> float | None:
        """When it has waited long enough for a distributor, if it waits for nothing else."""
        patience = self._options.exit_when_idle
        if patience is None or self._alone_since is None or self._calls or self.phase not in ("empty", "active"):
            return None
        return self._alone_since + patience

    def _of_our_run(self, peer: e.Peer, body: m.Message) -> None:
        match body:
            case m.GiveUp(_, failures) if self.phase in ("active", "draining"):
                self._give_up(peer, failures)
            case m.Unready():
                self._say_unready(body)
            case m.Pauses(_, pauses):
                self._keep_pauses(pauses)
            case m.Fetch():
                self._fetch(body)
            case m.Finish():
                self._finish_run(peer, body)
            case m.Bye() if self.phase in ("finishing", "finished"):
                # answered: a distributor whose Bye was lost with its connection says it again
                self._send(peer, body)
                self._was_left = True
                if self.phase == "finished":
                    self._leave()

    def _say_unready(self, body: m.Unready) -> None:
        """Whoever looks at this role alone shall know why nothing comes."""
        self._unready_lines += 1
        if self._unready_lines <= MAX_UNREADY:
            left = f" If none can begin within {body.seconds:.0f} s, the task fails." if body.seconds else ""
            why = said(body.trouble).rstrip(".")
            self._log(40, f"A worker of task {body.task!r} could not be initialized: {why}.{left}")

    def _ended_early(self, peer: e.Peer, ended: m.RunEnded, now: float) -> None:
        self._send(peer, ended)
        if self.phase in ("empty", "active"):
            self.early = ended.reason
            self._drain(now + self._options.drain_timeout)

    def _is_unserved(self) -> bool:
        """Whether it waits for its first distributor."""
        return self._company is None and not self._was_served and self.phase in ("empty", "active")

    def _end_found(self, why: str, now: float) -> None:
        """The run was ended early before anybody could say so here: the workers that are here are told, too."""
        self.early = why
        for peer in self._links.peers():
            self._send(peer, ended_early(self.run, why))
        self._drain(now + self._options.drain_timeout)

    def _is_second(self, peer: e.Peer) -> bool:
        now_at_work = self._distributor
        if now_at_work is None or now_at_work == peer or self.phase == "finished":
            return False
        return self._links.who(now_at_work) not in (None, self._links.who(peer))

    def _is_ours(self, pipeline: str) -> bool:
        return not pipeline or not self.pipeline or pipeline == self.pipeline

    def _is_out_of_place(self, pipeline: str, run: str) -> bool:
        """Whether this process is the newcomer at a distributor that is at work on something else."""
        return not self._was_served and (not self._is_ours(pipeline) or self.run not in ("", run))

    def _leave_the_run(self, pipeline: str, run: str) -> None:
        """The run that is under way goes on with the next collector; it is this one that was started wrongly."""
        what = f"of the pipeline {pipeline!r}, not of {self.pipeline!r}"
        if self._is_ours(pipeline):
            what = f"on the run {run}; the journal holds the run {self.run}"
        self._end(
            2,
            f"A distributor is at work here {what}. It waits for the collector of its own run: start that one, with "
            "its journal if it had one; or end that distributor first, or use another address.",
        )

    def _begin(self, peer: e.Peer, body: m.Begin, now: float) -> None:
        if self.phase == "empty" and self._aside is not None and self._aside.run == body.run:
            self._restored(replace(self._aside, aside=False), now)
        elif self.phase == "empty" and not self._tasks.lacks(body.run, body.progress):
            self._begin_run(body)
        elif self.phase == "draining" and not self.run:
            # it ends before it has begun; who shall hear of that is told so in place of an answer
            return
        elif self.phase != "empty" and body.run != self.run:
            self._send(peer, m.Refused(f"This collector holds the run {self.run}, not {body.run}. Start it anew, too."))
            return
        self._named = frozenset(known.task for known in body.progress)
        # one that holds no run after a Begin lacks the keys of what is done: it is told them
        self._serves(peer)
        if body.pauses:
            self._keep_pauses(body.pauses)
        self._tasks.learn_redelivered(body.progress)
        self._acks.is_gated = body.gated
        if body.gated and body.ack_id < self.count:
            self._tell_acks(self._acks.after(body.ack_id), "", (), (), b"")
        self._say_holding(peer)

    def _begin_run(self, body: m.Begin) -> None:
        self.phase = "active"
        self._hold(body.run, body.metadata, body.progress)
        self._acks.remember(body.ack_task, body.ack_data)
        begun = (body.run, body.metadata, self._tasks.told(), *self._tasks.keys_done(), *self._acks.newest)
        self._do(c.SetRun(*begun))
        self._call_workers()

    def _hold(self, run: str, metadata: bytes, progress: list[m.TaskProgress]) -> None:
        """This run is held here from now on, with what somebody else knows to be done."""
        self.run, self.metadata = run, metadata
        for known in progress:
            self._task(known.task).learn(known)
        self._acks.count = self.inherited = self._tasks.done
        self.inherited_failed = self._tasks.failed

    def _restored(self, event: e.Restored, now: float) -> None:
        if event.aside:
            self._aside = event
            return
        self._hold(event.run, event.metadata, event.progress)
        self._acks.remember(event.ack_task, event.ack_data)
        for name, keys in event.keys.items():
            self._task(name).keys.done |= keys
        for name, failed_keys in event.failed_keys.items():
            self._task(name).keys.failed |= failed_keys
        self._give(event.outboxes)
        self._pauses.told(event.pauses)
        if event.finished:
            self.phase, self._was_finished, self.has_finished = "finished", True, True
            self.ok, self.counts = event.ok, event.counts
            self._deadline = now + STAY_SECONDS
            self._log(20, f"The run {self.run} is already finished, says the journal.")
            return
        self.phase = "active"
        self._do(c.SetRun(event.run, event.metadata, restored=True))
        if event.over:
            self._is_done(m.Finish(event.run, event.ok, event.counts))
            self._log(20, f"All items of the run {self.run} are done, says the journal; `finished` is called again.")
        else:
            self._log(20, f"The journal holds the unfinished run {self.run}, {self.count} items done; it goes on.")

    def _is_done(self, finish: m.Finish) -> None:
        """Every item is: `finished` comes next."""
        self._finish, self.ok, self.counts = finish, finish.ok, finish.counts

    def _finish_run(self, peer: e.Peer, body: m.Finish) -> None:
        if self.phase == "active":
            self._is_done(body)
            self.unsent = {one.task: one.trouble for one in body.troubles}
        elif self.phase == "finished":
            self._send(peer, self._last_word())

    # answers of the collector's thread -----------------------------------------------------------------------------

    def _finished_called(self, event: e.FinishedCalled, now: float) -> None:
        self._note("finished", event.trouble)
        self._finished_data, self.has_finished = event.data, True
        self.phase, self.interrupted_at = "finished", None
        self._stay(now + STAY_SECONDS)
        if self._was_left:
            self._leave()
        elif self._distributor is None:
            self._stay_for_the_absent(now)
        else:
            self._send(self._distributor, self._last_word())

    def _stay(self, until: float) -> None:
        """Stay until then, unless a drain ends sooner."""
        self._deadline = until if self._drain_by is None else min(self._drain_by, until)

    def _stay_for_the_absent(self, now: float) -> None:
        self._stay(now + ABSENT_SECONDS)
        why = "the connection to the distributor broke before it said goodbye"
        if not self._was_served:
            why = "no distributor has come to hear it"
        self._log(30, f"The run is over, but {why}; waiting {ABSENT_SECONDS:.0f} s for it.")

    # the end -----------------------------------------------------------------------------------------------------

    def _drain(self, deadline: float) -> None:
        if self.phase in ("empty", "active"):
            self.phase = "draining"
            self._deadline = deadline
        elif self.phase == "finishing":
            # `finished` may go on for ever
            self._deadline = self._drain_by = deadline
        elif self.phase == "finished":
            self._leave()
        elif self.phase == "draining" and self._deadline is not None:
            self._deadline = min(self._deadline, deadline)

    def _move_on(self, now: float) -> None:
        """What follows from the state and the clock."""
        if self.phase == "active" and self._finish is not None and not self._calls:
            self.phase = "finishing"
            self._do(c.CallFinished(self._finish.ok, self._finish.counts))
        elif (self.phase == "draining" and not self._calls) or (self._deadline is not None and now >= self._deadline):
            self._leave()
        elif (until := self._alone_until()) is not None and now >= until:
            patience = self._options.exit_when_idle
            self._end(NOBODY_CAME, f"No distributor was there for {patience:g} s (exit_when_idle).")
        elif self._warn_at is not None and now >= self._warn_at:
            self._warn_at = now + WARN_SECONDS
            self._log(30, "Still waiting for a distributor to connect; start it, or end this collector with Ctrl-C.")

    def _leave(self) -> None:
        if self.phase == "finished" and self._is_good():
            self._end(0, "already finished" if self._was_finished else "the run is over")
        elif self.phase == "finished" and self._was_finished:
            self._end(1, "already finished")
        elif self.phase == "finished":
            self._end(1, not_collected(self.counts, {**self.unsent, **self.troubles}, self.failed.troubles()))
        elif self.early:
            self._end(1, self.early)
        else:
            self._say_early()
            if self._is_final and self._stay_young.until is not None:
                # who waits for this address may not have come yet
                self._deadline = self._stay_young.until
                return
            is_finishing = self.phase == "finishing"
            why = "drained before its `finished` function returned" if is_finishing else "drained"
            self._end(1 if self.troubles or is_finishing else 0, why)

    def _say_early(self) -> None:
        """Nobody comes in our place, says our user: without a collector the run is over.

        The workers are told, too: there may be no distributor to do it.
        """
        for peer in self._links.peers() if self._is_final else ():
            if peer not in self._told_early:
                self._told_early.add(peer)
                self._send(peer, ended_early(self.run, early("collector")))

    def _end(self, status: int, reason: str) -> None:
        self.phase = "ended"
        self._do(c.Ended(status, reason))
