"""The worker machine: holds items for one task type, has them executed, keeps each result until it is released.

The law:

* An item that is held (queued, running, or done and not yet released) is not taken twice.
* A result goes to the collector at once and is kept; a failure goes to the distributor and is kept. Only the
  distributor's word (`released`) lets go of either, since it speaks after the collector has acknowledged.
* What was lost with another worker is on trial. What is known to have begun is told (see `protocol.delivery.suspects`):
  until the init functions have returned that is nothing, and nothing begins until the distributor knows that they have.
* What is sent when, and how much is kept at most, `outgoing` says: who keeps too much takes no items for a while.
* Every report tells the whole state. A full one goes out at each connection, after a gap, to a new distributor, and
  from time to time; it is answered. The results kept are told to the collector in the same way (Kept, Missing).

========== ============================== ======================================================================
phase      entered by                     meaning
========== ============================== ======================================================================
seeking    start                          no distributor has welcomed this worker to a run yet
working    Welcome with a run             takes items
changing   Welcome with another run       waits for what still runs of the old run; then working
draining   Drain, Retire, idle time-out   takes nothing; hands back what is unstarted; waits for releases
ended      RunEnded, EndFound, drained,   one that stays goes back to seeking at RunEnded
           init failed
========== ============================== ======================================================================
"""

from __future__ import annotations

import math

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import credit
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.dedup import split_keys
from zmqpipeline.protocol.data.ranges import numbers_of, sequence_of, spans_of, split_spans
from zmqpipeline.protocol.machine import soonest
from zmqpipeline.protocol.peers import Verdict
from zmqpipeline.protocol.to_distributor import (
    IDLE_REPORT_SECONDS,
    MAX_REPORT_SECONDS,
    REPORT_SECONDS,
    ToDistributor,
)


class WorkerMachine(ToDistributor):
    """See the module. `slots` is the number of threads; times in seconds."""

    # the contract ------------------------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[c.Command]:  # noqa: C901, PLR0912 - a table
        """See `Machine.handle`."""
        self._out = self._outgoing.out = []
        if self.phase == "ended":
            return []
        if self._idle_since is None:
            self._idle_since = now
        match event:
            case e.Received():
                self._received(event, now)
            case e.Executed():
                self._executed(event, now)
            case e.Running(numbers) if not self._answers and self._next_run is None:
                self._begun = spans_of(numbers)
                self._report(now, full=False)
            case e.Connected(hop):
                self._connect(hop, now)
            case e.Disconnected(hop):
                self._connected.discard(hop)
                if hop == self._collector[0]:
                    self._outgoing.is_connected = False
                    self._outgoing.reset()
            case e.TakenBack(numbers):
                self._taken_back(numbers, now)
            case e.ThreadLost(free):
                self._thread_lost(free, now)
            case e.InitDone():
                self._init_done(now)
            case e.InitFailed(trouble):
                self._init_failed(trouble)
            case e.Retire(reason, level):
                self._retire(reason, level, now)
            case e.Drain(seconds):
                self._drain(None if seconds == math.inf else now + seconds, now)
            case e.EndFound() if self._missed is not None:
                told, ended = self._missed.found(event, self.run, now)
                if told:
                    self._log(30, told)
                if ended is not None:
                    self._run_ended(ended, now)
        self._missing.look(self._connected, now)
        if self._missed is not None:
            self._missed.wait(self._connected, now)
        self._by_the_clock(now)
        return self._out

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        if self.phase == "ended":
            return None
        if self._idle_since is None:
            return 0.0
        times = (self._deadline, self._report_at, self._room.tell_at, self._outgoing.say_at)
        look_at = None if self._missed is None else self._missed.next_time()
        return soonest((*times, look_at, self._idle_at(), self._missing.next_time(), self._alone_until()))

    # the clock ---------------------------------------------------------------------------------------------------

    def _by_the_clock(self, now: float) -> None:
        if self.phase == "ended":
            return
        if self._deadline is not None and now >= self._deadline:
            self._log(
                30, f"The drain time is over; {len(self._held)} items that are not acknowledged go to other workers."
            )
            self._end(0, "drained")
            return
        idle_at = self._idle_at()
        if idle_at is not None and now >= idle_at:
            self._log(20, f"No item for {self._options.idle_timeout:g} s (idle time-out): ending.")
            self._drain(now + self._options.drain_timeout, now)
        alone_until = self._alone_until()
        if alone_until is not None and now >= alone_until:
            self._log(20, f"Nobody was there for {self._options.exit_when_idle:g} s (exit_when_idle): ending.")
            self._drain(now + self._options.drain_timeout, now)
        if self._report_at is not None and now >= self._report_at:
            self._report(now, full=True)
        if self._room.tell_at is not None and now >= self._room.tell_at:
            self._report(now, full=False)
        if self._outgoing.say_at is not None and now >= self._outgoing.say_at:
            self._outgoing.say(now)
        if warning := self._missing.warning(self._connected, now):
            self._log(30, warning)
        if self._missed is not None and self._missed.is_due(now):
            self._do(c.LookForEnd())

    def _alone_until(self) -> float | None:
        return None if self._is_busy() or self.phase == "draining" else self._missing.until()

    def _idle_at(self) -> float | None:
        if self._options.idle_timeout is None or self._idle_since is None or self.phase == "draining":
            return None
        if self._is_busy():
            return None
        return self._idle_since + self._options.idle_timeout

    # connections -------------------------------------------------------------------------------------------------

    def _connect(self, hop: str, now: float) -> None:
        self._connected.add(hop)
        if hop == self._collector[0]:
            self._outgoing.is_connected = True
        if hop == "workers":
            # what an earlier distributor wanted does not count
            self._answered, self._report_seconds = False, REPORT_SECONDS
            self._report(now, full=True)
        elif self._kept or not self.run:
            # who waits for a run says that it is here: the collector may be ended before there is one
            self._outgoing.say(now, is_answer=not self._kept)

    def _received(self, event: e.Received, now: float) -> None:
        hop = event.peer[0]
        if hop == "results":
            self._from_collector(event.envelope, now)
        else:
            self._from_distributor(event.envelope, now)

    def _from_distributor(self, envelope: m.Envelope, now: float) -> None:  # noqa: C901 - a table
        verdict = self._workers.admit(envelope)
        if verdict is Verdict.REPEAT:
            return
        body = envelope.body
        self._answered = True
        match body:
            case m.Work():
                self._work(body, now)
            case m.Settled():
                self._settled(body, now)
            case m.Welcome():
                self._welcome(body, now)
            case m.Recall(run, _, most) if run == self.run and self._next_run is None:
                self._recalled = True
                self._do(c.TakeBack(most if self._is_ready else most - self._trials.give_back(most)))
            case m.Missing(run, _, spans) if self._answers and run == self.run:
                self._outgoing.send_again(spans, now)
            case m.RunEnded(run) if self.run in ("", run):
                self._run_ended(body, now)
            case m.Refused(reason):
                self._end(2, reason)
        if self.phase != "ended" and verdict in (Verdict.GAP, Verdict.NEW):
            self._report(now, full=True)
        if self.phase != "ended" and self._trials.waiting:
            self._out += self._trials.heard(self._workers.confirmed)

    def _from_collector(self, envelope: m.Envelope, now: float) -> None:
        verdict = self._results.admit(envelope)
        if verdict is Verdict.REPEAT:
            return
        body, outgoing = envelope.body, self._outgoing
        if verdict is Verdict.NEW:
            outgoing.reset()
        if isinstance(body, m.Credit):
            outgoing.credit = body.credit
            outgoing.send_unsent(now, once=body.once)
            outgoing.say(now, is_answer=True)
        elif isinstance(body, m.Missing) and body.run == self.run:
            if body.spans:
                outgoing.send_again(body.spans, now)
            elif not body.task or verdict is Verdict.NEW:
                outgoing.say(now)
        elif isinstance(body, m.RunEnded) and body.concerns(self.run) and "workers" not in self._connected:
            self._run_ended(body, now)

    # the run -----------------------------------------------------------------------------------------------------

    def _welcome(self, body: m.Welcome, now: float) -> None:
        if not body.run or body.run == self.run:
            if body.run and self._next_run is None:
                self._report(now, full=True)  # a distributor that was started anew waits for it
            return
        if self.run:
            held = len(self._held)
            why = "If it was not over, its distributor and its collector both died, without a journal."
            self._log(30, f"A new run begins; of the end of {self.run} no word came, {held} item(s) are dropped. {why}")
        self._leave_run(body, now)

    def _run_ended(self, ended: m.RunEnded, now: float) -> None:
        if not self._stay or self.phase == "draining":
            self.ended_by = None if self._stay else ended
            self._end(0, ended.reason or "the run is over")
            return
        self._to_distributor(m.Goodbye(self.run, self.task, None, self._item_times()))
        if self.run and (self._next_run is None or self._next_run.run):
            self._log(
                20 if ended.ok else 30, f"{ended.reason or 'The run is over.'} This worker stays for the next run."
            )
            self._leave_run(m.Welcome("", b""), now)

    def _leave_run(self, body: m.Welcome, now: float) -> None:
        """Drop what is held, for the sake of the next run, or of none yet."""
        self._held.drop_done()
        self._outgoing.clear()
        self._begun, self._next_run = self._none_yet(), body
        if self._held.at_hand:
            # What runs now would be taken for an item of the new run with the same number: wait for it.
            self._set_phase("changing")
            self._take_back()
        else:
            self._change_run(now)

    def _change_run(self, now: float) -> None:
        if self._next_run is None or self._held.at_hand:
            return
        self.run = self._outgoing.run = self._next_run.run
        metadata, self._next_run = self._next_run.metadata, None
        self._times_before = self._times()
        if not self.run:
            # the distributor has said goodbye: the next one is told at its connection
            self._set_phase("seeking")
            self._report_at = now + IDLE_REPORT_SECONDS
            return
        self._do(c.SetMetadata(metadata))
        self._set_phase("working")
        self._report(now, full=True)

    def _set_phase(self, phase: str) -> None:
        if self.phase != "draining":
            self.phase = phase

    # items -------------------------------------------------------------------------------------------------------

    def _work(self, body: m.Work, now: float) -> None:
        if not body.run or body.run != self.run or self._next_run is not None:
            return
        if body.released:
            self._release(body.released)
        keys = dict(zip(numbers_of(body.spans), split_keys(body.keys), strict=True)) if body.keys else {}
        spans, payloads = self._held.new_of(body.spans, body.payloads, body.attempt)
        if spans and (self.lifespan.most is not None or self._outgoing.is_full):
            spans, payloads = self._taken_of(spans, payloads, now)
        if spans:
            self._idle_since, numbers = now, sequence_of(spans)
            self._held.take(spans, numbers, body.attempt)
            # what was lost with another worker comes to free threads only: the next waits for the word that one is free
            self._room.took(len(numbers) if body.attempt == 1 else self._room.window)
            if keys:
                self._held.keys.update((number, keys[number]) for number in numbers)
            # An idle worker reports more seldom; now there is something to lose.
            soon = now + self._report_seconds
            self._report_at = soon if self._report_at is None else min(self._report_at, soon)
            command = c.Execute(body.task, body.attempt, body.timeout, numbers, payloads, body.trial)
            if not self._is_ready:
                self._trials.add_unready(command)
                self._do(c.Initialize())
            elif body.trial:
                self._trials.add(self._workers.sent + 1, command)
                self._report(now, full=True)
            elif self._workers.confirmed < self._ready_from:
                self._trials.add(self._ready_from, command)
            else:
                self._do(command)
        if self.phase == "draining":
            self._take_back()
        self._results_moved(now)

    def _taken_of(self, spans: m.Spans, payloads: m.Blobs, now: float) -> tuple[m.Spans, m.Blobs]:
        """Of items that came, those that it may execute; the others are handed back."""
        at_hand = self._held.at_hand
        left = min(self.lifespan.left(self.executed + at_hand), self._outgoing.room(self.slots) - at_hand)
        if len(payloads) > left:
            spans, others = split_spans(spans, max(0, left))
            payloads = payloads[: max(0, left)]
            self._to_distributor(m.ItemsReturned(self.run, self.task, others))
            self._report(now, full=False)
        return spans, payloads

    def _executed(self, event: e.Executed, now: float) -> None:
        done = len(event.numbers) + len(event.failures)
        self.executed += done
        self.failed += len(event.failures)
        self._idle_since = now
        self._room.observe(done, event.seconds)
        if self._next_run is not None:
            self._drop_old_run(event, now)
            return
        if self._held.cancelled:
            self._held.cancelled.difference_update(event.numbers, [number for number, _ in event.failures])
        if event.numbers:
            self._keep(event.numbers, event.payloads, event.attempt)
        if event.failures:
            self._say_failed(self._held.fail(self.task, event.failures))
        if self._begun is not None and self._pending.common(self._begun) != self._begun:
            self._begun = None
            self._room.tell_soon(now)
        self._after_items(now)

    def _drop_old_run(self, event: e.Executed, now: float) -> None:
        self._held.drop(spans_of([*event.numbers, *(number for number, _ in event.failures)]))
        self._change_run(now)

    def _after_items(self, now: float) -> None:
        """Say how much room there is, when it is enough to be worth a message."""
        room = self._room
        room.resize(self.slots, self._max_prefetch)
        room.shrink(self.lifespan.left(self.executed))
        room.shrink(self._outgoing.most_items(self.slots))
        self._results_moved(now)
        if not self.lifespan.left(self.executed):
            self._retire(f"it has executed {self.executed} items (max_items)", 20, now)
        if self._outgoing.is_full:
            pass
        elif room.is_another() if self._answers else room.is_news(len(self._pending), self.slots, now):
            self._report(now, full=False)
        if self._kept and self._outgoing.say_at is None and not self._answers:
            self._outgoing.say_at = now + REPORT_SECONDS
        self._maybe_drained()

    # results -----------------------------------------------------------------------------------------------------

    def _settled(self, body: m.Settled, now: float) -> None:
        if body.run != self.run or self._next_run is not None:
            return
        # NaN is no more than the least
        self._report_seconds = min(MAX_REPORT_SECONDS, max(REPORT_SECONDS, body.report_seconds))
        self._release(body.released)
        self._results_moved(now)
        if body.resync:
            # what was lost may have been the word for which items wait, or for which those wait that come now
            self._trials.say_again(self._workers.sent + 1)
            if self._ready_from:
                self._ready_from = self._workers.sent + 1
            self._report(now, full=True)
        self._maybe_drained()

    # the end -----------------------------------------------------------------------------------------------------

    def _drain(self, deadline: float | None, now: float) -> None:
        if self.phase != "draining":
            self.phase = "draining"
            self._deadline = deadline
            self._take_back()
            self._report(now, full=True)
        else:
            self._deadline = deadline if self._deadline is None or deadline is None else min(self._deadline, deadline)

    def _retire(self, reason: str, level: int, now: float) -> None:
        """End in good order, however long that takes: what runs, and what is not acknowledged, is not given away."""
        # without an item executed its successor would be no better, and the run would never get on
        if self.phase != "draining" and self.executed:
            self.lifespan.reason = reason
            self._log(level, f"The worker ends its work, so that another one takes its place: {reason}.")
            self._drain(None, now)

    def _init_done(self, now: float) -> None:
        if self._is_ready:
            return
        self._is_ready, self._begun = True, None
        self._ready_from = self._workers.sent + 1
        self._trials.ready(self._ready_from)
        self._report(now, full=True)

    def _init_failed(self, trouble: m.ErrorInfo) -> None:
        """Leave; a worker of a service hands back first what it never began, since else it would count as begun."""
        if not self._answers:
            self._end(1, f"{trouble.error}: {trouble.message}", trouble)
        elif self._init_trouble is None:
            self._init_trouble = trouble
            self._take_back()

    def _taken_back(self, numbers: list[int], now: float) -> None:
        mine = self._held.hand_back([*numbers, *self._trials.take_left()])
        was_recalled, self._recalled = self._recalled, False
        if self._next_run is not None:
            self._change_run(now)
        elif mine or was_recalled:
            self._to_distributor(m.ItemsReturned(self.run, self.task, mine))
        trouble = self._init_trouble
        if trouble is not None:
            self._end(1, f"{trouble.error}: {trouble.message}", trouble)
        else:
            self._maybe_drained()

    def _maybe_drained(self) -> None:
        if self.phase == "draining" and not len(self._held):
            self.lifespan.has_ended = True
            self._end(0, "drained")

    def _thread_lost(self, free: int, now: float) -> None:
        self.slots = free
        if free:
            self._room.shrink(credit.MAX_BATCH)
            self._report(now, full=False)
            return
        self._end(70, "no thread can go on: each is stuck in an item past its time-out, or there is no memory left")

    def _end(self, status: int, reason: str, trouble: m.ErrorInfo | None = None) -> None:
        if "workers" in self._connected:
            self._to_distributor(m.Goodbye(self.run, self.task, trouble, self._item_times()))
        self.phase = "ended"
        self._do(c.Ended(status, reason))
