"""The worker machine: holds items for one task type, has them executed, keeps each result until it is released.

The law:

* An item that is held (queued, running, or done and not yet released) is not taken twice.
* A result goes to the collector at once and is kept; a failure goes to the distributor and is kept. Only the
  distributor's word (`released`) lets go of either, since it speaks after the collector has acknowledged.
* What was lost with another worker is on trial. What is known to have begun is told (see `protocol.suspicion`).
* Every report tells the whole state. A full one goes out at each connection, after a gap, to a new distributor, and
  from time to time; it is answered. The results kept are told to the collector in the same way (Kept, Missing).

========== ============================== ======================================================================
phase      entered by                     meaning
========== ============================== ======================================================================
seeking    start                          no distributor has welcomed this worker to a run yet
working    Welcome with a run             takes items
changing   Welcome with another run       waits for what still runs of the old run; then working
draining   Drain, idle time-out           takes nothing; hands back what is unstarted; waits for releases
ended      RunEnded, drained, init failed
========== ============================== ======================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from zmqpipeline.options import Options
from zmqpipeline.protocol import batching
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.absence import Absence
from zmqpipeline.protocol.failures import in_messages
from zmqpipeline.protocol.keys import split_keys
from zmqpipeline.protocol.link import Link, Verdict
from zmqpipeline.protocol.machine import soonest
from zmqpipeline.protocol.room import Room
from zmqpipeline.protocol.running import Running
from zmqpipeline.protocol.runs import Runs
from zmqpipeline.protocol.seqset import SeqSet, numbers_of, pairs, sequence_of, spans_of, split_spans
from zmqpipeline.protocol.snapshots import WorkerSnapshot
from zmqpipeline.protocol.trials import Trials

REPORT_SECONDS = 1.0
"""How often a full report is said while anything is held or unanswered."""

IDLE_REPORT_SECONDS = 5.0
"""How often it is said otherwise."""

SERVICE_PREFETCH = 100
"""The most requests that a service worker has at hand for each thread: one slow request holds up those behind it."""

_TO_DISTRIBUTOR: e.Peer = ("workers", b"")
_TO_COLLECTOR: e.Peer = ("results", b"")


class WorkerMachine:
    """See the module. `slots` is the number of threads; times in seconds."""

    def __init__(
        self,
        task: str,
        *,
        slots: int,
        incarnation: bytes,
        host: str = "",
        pid: int = 0,
        options: Options | None = None,
        answers: bool = False,
        idempotent: bool = False,
    ) -> None:
        """`answers`: a service worker, whose results go back to the broker, on the hop that its items come from.
        `idempotent`: its broker may give to another worker what was lost with this one.
        """
        self.task = task
        self.slots = slots
        self.phase = "seeking"
        self.run = ""
        self.executed = self.failed = 0
        self._host, self._pid = host, pid
        self._options = options or Options()
        self._answers = answers
        most = self._options.max_prefetch
        self._max_prefetch = min(most, slots * SERVICE_PREFETCH) if answers else most
        self._idempotent = idempotent if answers else None
        self._workers = Link(incarnation)
        self._results = self._workers if answers else Link(incarnation)
        self._collector: e.Peer = _TO_DISTRIBUTOR if answers else _TO_COLLECTOR
        self._connected: set[str] = set()
        others = {"workers": "a broker"} if answers else {"workers": "a distributor", "results": "a collector"}
        self._absence = Absence(others)
        self._newest = -1
        """The highest number that has come."""
        self._pending = SeqSet()
        """Queued or running; `_attempts` holds which attempt it is, if it is not the first."""
        self._attempts: dict[int, int] = {}
        self._kept: Runs[int] = Runs()
        """Results, with their attempt."""
        self._failures: dict[int, m.FailedItem] = {}
        self._keys: dict[int, bytes] = {}
        """The keys of what is held, if the task has keys: the collector knows an item by its key."""
        self._running = Running()
        self._recalled = False
        self._trials = Trials()
        self._begun: m.Spans | None = None
        """The only items that have begun, if that is known."""
        self._ghosts: set[int] = set()
        """Items that were released while they were queued or running here: their outcome is nobody's."""
        self._next_run: m.Welcome | None = None
        self._room = Room(slots, self._options)
        self._answered = False
        self._init_trouble: m.Trouble | None = None
        self._report_at: float | None = None
        self._kept_at: float | None = None
        self._deadline: float | None = None
        self._idle_since: float | None = None
        self._out: list[c.Command] = []

    # the contract ------------------------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """See `Machine.handle`."""
        self._out = []
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
            case e.TakenBack(numbers):
                self._taken_back(numbers, now)
            case e.ThreadLost(free):
                self._thread_lost(free, now)
            case e.InitFailed(trouble):
                self._init_failed(trouble)
            case e.Drain(seconds):
                self._drain(now + seconds, now)
            case e.Tick():
                pass
        self._absence.look(self._connected, now)
        self._by_the_clock(now)
        return self._out

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        if self.phase == "ended":
            return None
        if self._idle_since is None:
            return 0.0
        times = (self._deadline, self._report_at, self._room.tell_at, self._kept_at)
        return soonest((*times, self._idle_at(), self._absence.next_time()))

    def snapshot(self) -> WorkerSnapshot:
        """What a worker is doing, for people."""
        return WorkerSnapshot(
            phase=self.phase,
            run=self.run,
            task=self.task,
            slots=self.slots,
            queued_or_running=len(self._pending),
            kept=len(self._kept) + len(self._failures),
            executed=self.executed,
            failed=self.failed,
        )

    def check(self) -> None:
        """An item is pending, kept as a result, or kept as a failure, never two of these."""
        self._kept.check()
        places = [*numbers_of(self._pending.spans()), *numbers_of(self._kept.spans()), *self._failures]
        assert len(places) == len(set(places)), "a worker holds an item twice"
        assert all(map(self._pending.__contains__, self._attempts)), "an attempt of an item that is not pending"
        assert self.run or not places, "a worker holds items of no run"
        assert set(self._keys) <= set(places), "a key of an item that is not held"

    # the clock ---------------------------------------------------------------------------------------------------

    def _by_the_clock(self, now: float) -> None:
        if self.phase == "ended":
            return
        if self._deadline is not None and now >= self._deadline:
            held = len(self._pending) + len(self._kept) + len(self._failures)
            self._do(c.Log(30, f"The drain time is over; {held} items that are not acknowledged go to other workers."))
            self._end(0, "drained")
            return
        idle_at = self._idle_at()
        if idle_at is not None and now >= idle_at:
            self._do(c.Log(20, f"No item for {self._options.idle_timeout:g} s (idle time-out): ending."))
            self._drain(now + self._options.drain_timeout, now)
        if self._report_at is not None and now >= self._report_at:
            self._report(now, full=True)
        if self._room.tell_at is not None and now >= self._room.tell_at:
            self._report(now, full=False)
        if self._kept_at is not None and now >= self._kept_at:
            self._say_kept(now)
        if warning := self._absence.warning(self._connected, now):
            self._do(c.Log(30, warning))

    def _idle_at(self) -> float | None:
        if self._options.idle_timeout is None or self._idle_since is None or self._pending or self.phase == "draining":
            return None
        return self._idle_since + self._options.idle_timeout

    # connections -------------------------------------------------------------------------------------------------

    def _connect(self, hop: str, now: float) -> None:
        self._connected.add(hop)
        if hop == "workers":
            self._answered = False
            self._report(now, full=True)
        elif self._kept:
            self._say_kept(now)

    def _received(self, event: e.Received, now: float) -> None:
        hop = event.peer[0]
        if hop == "results":
            self._from_collector(event.envelope, now)
        else:
            self._from_distributor(event.envelope, now)

    def _from_distributor(self, envelope: m.Envelope, now: float) -> None:
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
                self._do(c.TakeBack(most))
            case m.Missing(run, _, spans) if self._answers and run == self.run:
                self._send_results(spans)
            case m.RunEnded(run) if self.run in ("", run):
                self._end(0, "the run is over")
            case m.Refused(reason):
                self._end(2, reason)
        if self.phase != "ended" and verdict in (Verdict.GAP, Verdict.NEW):
            self._report(now, full=True)
        if self._trials.waiting:
            self._out += self._trials.heard(self._workers.confirmed)

    def _from_collector(self, envelope: m.Envelope, now: float) -> None:
        verdict = self._results.admit(envelope)
        if verdict is Verdict.REPEAT:
            return
        body = envelope.body
        if isinstance(body, m.Missing) and body.run == self.run:
            if body.spans:
                self._send_results(body.spans)
            elif not body.task or verdict is Verdict.NEW:
                self._say_kept(now)

    # the run -----------------------------------------------------------------------------------------------------

    def _welcome(self, body: m.Welcome, now: float) -> None:
        if not body.run or body.run == self.run:
            if body.run and self._next_run is None:
                self._report(now, full=True)  # a distributor that was started anew waits for it
            return
        if self.run:
            held = len(self._pending) + len(self._kept) + len(self._failures)
            why = "If it was not over, its distributor and its collector both died, without a journal."
            self._do(
                c.Log(30, f"A new run begins; of the end of {self.run} no word came, {held} item(s) are dropped. {why}")
            )
        self._kept.clear()
        self._failures.clear()
        self._keys.clear()
        self._newest, self._begun = -1, None
        self._next_run = body
        if self._pending or self._ghosts:
            # What runs now would be taken for an item of the new run with the same number: wait for it.
            self._set_phase("changing")
            self._take_back()
        else:
            self._change_run(now)

    def _change_run(self, now: float) -> None:
        if self._next_run is None or self._pending or self._ghosts:
            return
        self.run = self._next_run.run
        self._do(c.SetMetadata(self._next_run.metadata))
        self._next_run = None
        self._set_phase("working")
        self._report(now, full=True)

    def _set_phase(self, phase: str) -> None:
        if self.phase != "draining":
            self.phase = phase

    # items -------------------------------------------------------------------------------------------------------

    def _work(self, body: m.Work, now: float) -> None:
        if body.run != self.run or self._next_run is not None:
            return
        if body.released:
            self._release(body.released)
        spans, payloads = body.spans, body.payloads
        keys = dict(zip(numbers_of(spans), split_keys(body.keys), strict=True)) if body.keys else {}
        # as a rule all are newer than whatever came before
        if spans and spans[0] <= self._newest and self._holds_any(spans):
            spans, payloads = self._not_held(spans, payloads, body.attempt)
        if spans:
            self._newest, self._idle_since = max(self._newest, spans[-1] - 1), now
            self._pending.update(spans)
            numbers = sequence_of(spans)
            # what was lost with another worker comes to free threads only: the next waits for the word that one is free
            self._room.took(len(numbers) if body.attempt == 1 else self._room.window)
            if body.attempt > 1:
                self._attempts.update(dict.fromkeys(numbers, body.attempt))
            if keys:
                self._keys.update((number, keys[number]) for number in numbers)
            # An idle worker reports more seldom; now there is something to lose.
            soon = now + REPORT_SECONDS
            self._report_at = soon if self._report_at is None else min(self._report_at, soon)
            command = c.Execute(body.task, body.attempt, body.timeout, numbers, payloads)
            if body.trial:
                self._trials.add(self._workers.sent + 1, command)
                self._report(now, full=True)
            else:
                self._do(command)
        if self.phase == "draining":
            self._take_back()

    def _take_back(self) -> None:
        """Nothing more is to be begun."""
        self._trials.end()
        self._do(c.TakeBack(None))

    def _holds_any(self, spans: m.Spans) -> bool:
        if self._pending.common(spans) or any(self._kept.touching(*one) for one in pairs(spans)):
            return True
        new = SeqSet(spans)
        return any(number in new for number in self._failures)

    def _not_held(self, spans: m.Spans, payloads: m.Blobs, attempt: int) -> tuple[m.Spans, m.Blobs]:
        """Of a delivery that brings some items again, those that are to be executed."""
        new = []
        for number, payload in zip(numbers_of(spans), payloads, strict=True):
            if number in self._pending:
                if attempt > self._attempts.get(number, 1):
                    self._attempts[number] = attempt
                continue
            failure = self._failures.get(number)
            if failure is not None and failure.attempts < attempt:
                del self._failures[number]
            elif failure is not None or number in self._kept:
                continue
            new.append((number, payload))
        return spans_of([number for number, _ in new]), [payload for _, payload in new]

    def _executed(self, event: e.Executed, now: float) -> None:
        done = len(event.numbers) + len(event.failures)
        self.executed += done
        self.failed += len(event.failures)
        self._idle_since = now
        self._room.observe(done, event.seconds)
        if self._next_run is not None:
            self._drop_old_run(event, now)
            return
        if self._ghosts:
            self._ghosts.difference_update(event.numbers, [number for number, _ in event.failures])
        if event.numbers:
            self._keep(event.numbers, event.payloads, event.attempt)
        if event.failures:
            self._fail(event.failures)
        if self._begun is not None and self._pending.common(self._begun) != self._begun:
            self._begun = None
            self._room.tell_soon(now)
        self._after_items(now)

    def _drop_old_run(self, event: e.Executed, now: float) -> None:
        gone = spans_of([*event.numbers, *(number for number, _ in event.failures)])
        self._pending.difference_update(gone)
        self._ghosts.difference_update(numbers_of(gone))
        self._attempts.clear()
        self._change_run(now)

    def _keep(self, numbers: Sequence[int], payloads: m.Blobs, attempt: int) -> None:
        spans = spans_of(numbers)
        expected = self._pending.common(spans)
        if spans != expected or (type(numbers) is not range and list(numbers) != numbers_of(spans)):
            # some are nobody's any more, or they are out of order
            given = dict(zip(numbers, payloads, strict=True))
            spans, payloads = expected, [given[number] for number in numbers_of(expected)]
        self._pending.difference_update(spans)
        if self._attempts:
            for number in numbers_of(spans):
                self._attempts.pop(number, None)
        if len(spans) == 2:
            self._kept.add(spans[0], list(payloads), attempt)
        else:
            at = 0
            for start, stop in pairs(spans):
                self._kept.add(start, list(payloads[at : at + stop - start]), attempt)
                at += stop - start
        self._send(attempt, spans, payloads)

    def _fail(self, failures: list[tuple[int, m.Trouble]]) -> None:
        new = []
        for number, trouble in failures:
            attempt = self._attempts.pop(number, 1)
            if number in self._pending:
                self._pending.discard(number, number + 1)
                new.append(m.FailedItem(self.task, number, attempt, "worker", trouble, b""))
        self._failures.update({item.number: item for item in new})
        self._say_failed(new)

    def _say_failed(self, items: list[m.FailedItem]) -> None:
        for some in in_messages(items):
            self._to_distributor(m.ItemsFailed(self.run, some))

    def _after_items(self, now: float) -> None:
        """Say how much room there is, when it is enough to be worth a message."""
        room = self._room
        room.resize(self.slots, self._max_prefetch)
        if room.is_another() if self._answers else room.is_news(len(self._pending), self.slots, now):
            self._report(now, full=False)
        if self._kept and self._kept_at is None and not self._answers:
            self._kept_at = now + REPORT_SECONDS
        self._maybe_drained()

    # results -----------------------------------------------------------------------------------------------------

    def _send_results(self, spans: m.Spans) -> None:
        """Send what is kept of these results, in messages of one attempt."""
        for attempt, (numbers, payloads) in self._kept.by_tag(spans).items():
            self._send(attempt, spans_of(numbers), payloads)

    def _send(self, attempt: int, spans: m.Spans, payloads: m.Blobs) -> None:
        """Send these results, in messages of a bounded size."""
        if self._collector[0] not in self._connected:
            return
        while payloads:
            count = len(payloads) if batching.fits(payloads) else batching.cut(list(map(len, payloads)))
            some, rest = (spans, ()) if count == len(payloads) else split_spans(spans, count)
            keys = b"".join([self._keys[number] for number in numbers_of(some)]) if self._keys else b""
            body = m.Results(self.run, self.task, attempt, some, payloads[:count] if rest else payloads, keys)
            self._do(c.Send(self._collector, self._results.wrap(body)))
            spans, payloads = rest, payloads[count:] if rest else ()

    def _say_kept(self, now: float) -> None:
        self._kept_at = None
        if self._kept:
            self._kept_at = now + REPORT_SECONDS
            if self._collector[0] in self._connected:
                body = m.Kept(self.run, self.task, self._kept.spans())
                self._do(c.Send(self._collector, self._results.wrap(body)))

    def _settled(self, body: m.Settled, now: float) -> None:
        if body.run != self.run or self._next_run is not None:
            return
        self._release(body.released)
        if body.resync:
            self._report(now, full=True)
        self._maybe_drained()

    def _release(self, spans: m.Spans) -> None:
        for start, stop in pairs(spans):
            gone = sum(run.stop - run.start for run in self._kept.cut(start, stop))
            if self._keys:
                for number in [number for number in self._keys if start <= number < stop]:
                    del self._keys[number]
            if gone < stop - start:
                self._forget(start, stop)

    def _forget(self, start: int, stop: int) -> None:
        """Let go of those of these that have no result: they failed, or are queued or running."""
        for number in [number for number in self._failures if start <= number < stop]:
            del self._failures[number]
        ghosts = self._pending.common((start, stop))
        self._pending.discard(start, stop)
        for number in numbers_of(ghosts):
            self._attempts.pop(number, None)
            self._ghosts.add(number)

    # reports -----------------------------------------------------------------------------------------------------

    def _report(self, now: float, *, full: bool) -> None:
        if "workers" not in self._connected:
            self._report_at = self._room.tell_at = None
            return
        held = done = running = None
        if full:
            self._report_at = now + (REPORT_SECONDS if self._is_busy() else IDLE_REPORT_SECONDS)
            ready = SeqSet(self._kept.spans())
            for number in self._failures:
                ready.add(number, number + 1)
            done, pending = ready.spans(), self._pending.spans()
            ready.update(pending)
            held = ready.spans()
            running = self._running.named(pending, self._attempts, self.slots, self._idle_since or now, now)
        elif not self._answers:
            done = (
                spans_of([*numbers_of(self._kept.spans()), *self._failures]) if self._failures else self._kept.spans()
            )
        takes_nothing = self.phase in ("draining", "changing")
        backlog = len(self._pending) + len(self._ghosts)
        self._room.told(backlog)
        self._to_distributor(
            m.WorkerReport(
                run=self.run,
                task=self.task,
                slots=self.slots,
                window=0 if takes_nothing else self._room.window,
                backlog=backlog,
                draining=self.phase == "draining",
                held=held,
                done=done,
                host=self._host,
                pid=self._pid,
                idempotent=self._idempotent,
                executed=self.executed,
                running=running,
                begun=self._begun,
            )
        )
        if full:
            self._say_failed(list(self._failures.values()))

    def _is_busy(self) -> bool:
        return bool(self._pending or self._kept or self._failures or not self.run or not self._answered)

    # the end -----------------------------------------------------------------------------------------------------

    def _drain(self, deadline: float, now: float) -> None:
        if self.phase != "draining":
            self.phase = "draining"
            self._deadline = deadline
            self._take_back()
            self._report(now, full=True)

    def _init_failed(self, trouble: m.Trouble) -> None:
        """Leave; a worker of a service hands back first what it never began, since else it would count as begun."""
        if not self._answers:
            self._end(1, f"{trouble.error}: {trouble.message}", trouble)
        elif self._init_trouble is None:
            self._init_trouble = trouble
            self._take_back()

    def _taken_back(self, numbers: list[int], now: float) -> None:
        numbers = [*numbers, *self._trials.take_left()]
        mine = self._pending.common(spans_of(numbers))
        self._pending.difference_update(mine)
        self._ghosts.difference_update(numbers)
        for number in numbers_of(mine) if self._keys or self._attempts else ():
            self._keys.pop(number, None)
            self._attempts.pop(number, None)
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
        if self.phase == "draining" and not (self._pending or self._kept or self._failures):
            self._end(0, "drained")

    def _thread_lost(self, free: int, now: float) -> None:
        self.slots = free
        if free:
            self._room.shrink(batching.MAX_BATCH)
            self._report(now, full=False)
            return
        self._end(70, "no thread can go on: each is stuck in an item past its time-out, or there is no memory left")

    def _end(self, status: int, reason: str, trouble: m.Trouble | None = None) -> None:
        if "workers" in self._connected:
            self._to_distributor(m.Goodbye(self.run, self.task, trouble))
        self.phase = "ended"
        self._do(c.Ended(status, reason))

    # out ---------------------------------------------------------------------------------------------------------

    def _to_distributor(self, body: m.Message) -> None:
        if "workers" in self._connected:
            self._do(c.Send(_TO_DISTRIBUTOR, self._workers.wrap(body)))

    def _do(self, command: c.Command) -> None:
        self._out.append(command)
