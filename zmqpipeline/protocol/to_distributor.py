"""What a worker machine knows, what it keeps, and what it tells its distributor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collection.outgoing import Outgoing
from zmqpipeline.protocol.data.ranges import RangeSet, pairs
from zmqpipeline.protocol.delivery.failures import in_messages
from zmqpipeline.protocol.delivery.held import Held
from zmqpipeline.protocol.delivery.item_times import no_times, without
from zmqpipeline.protocol.delivery.lifespan import Lifespan
from zmqpipeline.protocol.delivery.running import Running
from zmqpipeline.protocol.delivery.trials import Trials
from zmqpipeline.protocol.delivery.window import CreditWindow
from zmqpipeline.protocol.missed_run import MissedRun
from zmqpipeline.protocol.peers import Link, MissingPeers
from zmqpipeline.protocol.snapshots import WorkerSnapshot

REPORT_SECONDS = 1.0
"""How often a full report is said while anything is held or unanswered."""

IDLE_REPORT_SECONDS = 5.0
"""How often it is said otherwise."""

MAX_REPORT_SECONDS = 60.0
"""Who wants it more seldom is not believed."""

SERVICE_PREFETCH = 100
"""The most requests that a service worker has at hand for each thread: one slow request holds up those behind it."""

_TO_DISTRIBUTOR: e.Peer = ("workers", b"")

_TO_COLLECTOR: e.Peer = ("results", b"")


class ToDistributor:
    """The state of a worker machine, its results and its reports; see `protocol.worker`."""

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
        stay: bool = False,
        max_items: int | None = None,
        age: float | None = None,
        has_inits: bool = False,
        times: Callable[[], m.ItemTimes] = no_times,
    ) -> None:
        """`answers`: a service worker, whose results go back to the broker, on the hop that its items come from.

        `idempotent`: its broker may give to another worker what was lost with this one. `stay`: the end of a run is not
        the worker's own; it waits for the next run. `max_items`: it executes so many and no more, and then retires, as
        when a Retire comes. `age` is that of `EarlyEnd`. `has_inits`: an Initialize is to be answered before any item
        can begin. `times` tells how long its items took in its life.
        """
        self.task = task
        self.slots = slots
        self.phase = "seeking"
        self.run = ""
        self.executed = self.failed = 0
        self.ended_by: m.RunEnded | None = None
        """How the run ended, by the distributor's word."""
        self._stay = stay
        self.lifespan = Lifespan(max_items)
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
        self._missing = MissingPeers(others, self._options.exit_when_idle)
        self._missed = None if answers or stay else MissedRun(self._options, age)
        """None: a worker of a broker, or one that stays, belongs to no single run."""
        held = self._held = Held()
        self._pending, self._kept, self._failures = held.pending, held.kept, held.failures
        most, link = self._options.max_held_bytes, self._results
        self._outgoing = Outgoing(
            task, held.kept, held.keys, link, self._collector, max_held_bytes=most, unbounded=answers
        )
        self._running = Running()
        self._recalled = False
        self._trials = Trials()
        self._is_ready = not has_inits
        """The init functions have returned, or there are none."""
        self._ready_from = 0
        """The number of our message that says so first, or says it again; 0: there was nothing to say."""
        self._begun = self._none_yet()
        """The only items that have begun, if that is known."""
        self._next_run: m.Welcome | None = None
        self._times, self._times_before = times, no_times()
        """The second are of the runs before."""
        self._room = CreditWindow(slots, self._options)
        self._room.shrink(self.lifespan.left(0))
        self._answered = False
        self._init_trouble: m.ErrorInfo | None = None
        self._report_at: float | None = None
        self._report_seconds = REPORT_SECONDS
        """How often a full report is said while anything is held; more seldom if there are very many workers."""
        self._deadline: float | None = None
        self._idle_since: float | None = None
        self._out: list[c.Command] = []

    def snapshot(self) -> WorkerSnapshot:
        """What a worker is doing, for people."""
        return WorkerSnapshot(
            phase=self.phase,
            run=self.run,
            task=self.task,
            slots=self.slots,
            queued_or_running=len(self._pending),
            kept=len(self._kept) + len(self._failures),
            kept_bytes=self._kept.size,
            executed=self.executed,
            failed=self.failed,
        )

    def held(self) -> set[int]:
        """The numbers of all items that are here, done or not, as long as they are not released."""
        return self._held.numbers()

    def check(self) -> None:
        """No item is in two places, and none is of no run."""
        self._held.check()
        self._outgoing.check()
        assert self.run or not len(self._held), "a worker holds items of no run"
        assert self.executed + len(self._pending) <= (self.lifespan.most or 1 << 53), "more than max_items"

    def _is_busy(self) -> bool:
        """Whether anything is at hand but for what waits for a word of the distributor."""
        return len(self._pending) > (self._trials.items if self._is_ready else 0)

    def _none_yet(self) -> m.Spans | None:
        """What can have begun when nothing runs: nothing at all before the init functions have returned."""
        return None if self._is_ready else ()

    # results -----------------------------------------------------------------------------------------------------

    def _keep(self, numbers: Sequence[int], payloads: m.Blobs, attempt: int) -> None:
        before = self._kept.size
        spans, payloads = self._held.keep(numbers, payloads, attempt)
        self._outgoing.observe(len(payloads), before)
        self._outgoing.send(attempt, spans, payloads)

    def _say_failed(self, items: list[m.FailedItem]) -> None:
        for some in in_messages(items):
            self._to_distributor(m.ItemsFailed(self.run, some))

    def _results_moved(self, now: float) -> None:
        """More is kept, or less: send what may be sent now; say whether items can be taken."""
        outgoing = self._outgoing
        if outgoing.waits:
            outgoing.send_unsent(now)
        if outgoing.turns():
            self._report(now, full=False)
            if outgoing.is_full:
                spare = len(self._pending) - outgoing.most_items(self.slots)
                if spare > 0:
                    self._do(c.TakeBack(spare))
        elif outgoing.is_over() and self._pending:
            self._take_back()

    def _take_back(self) -> None:
        """Nothing more is to be begun."""
        self._trials.end()
        self._do(c.TakeBack(None))

    def _release(self, spans: m.Spans) -> None:
        for start, stop in pairs(spans):
            self._outgoing.drop(start, stop)
            self._held.release(start, stop)

    # reports -----------------------------------------------------------------------------------------------------

    def _report(self, now: float, *, full: bool) -> None:
        if "workers" not in self._connected:
            self._report_at = self._room.tell_at = None
            return
        held = done = running = times = None
        if full:
            times = self._item_times()
            self._report_at = now + self._until_next()
            done, pending = self._held.done(), self._pending.spans()
            ready = RangeSet(done)
            ready.update(pending)
            held = ready.spans()
            running = self._running.named(pending, self._held.attempts, self.slots, self._idle_since or now, now)
        elif not self._answers:
            done = self._held.done()
        takes_nothing = self.phase in ("draining", "changing") or self._outgoing.is_full
        backlog = self._held.at_hand
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
                kept_bytes=self._kept.size,
                times=times,
                service_time=self._room.service_time,
            )
        )
        if full:
            self._say_failed(list(self._failures.values()))

    def _until_next(self) -> float:
        """Seconds until the next full report, if nothing calls for one before."""
        if not self.run or not self._answered:
            return REPORT_SECONDS
        if self.phase == "draining":
            # its time to end is short
            return min(self._report_seconds, IDLE_REPORT_SECONDS)
        is_busy = self._pending or self._kept or self._failures
        return self._report_seconds if is_busy else max(IDLE_REPORT_SECONDS, self._report_seconds)

    def _item_times(self) -> m.ItemTimes:
        """How long the items of this run took."""
        return without(self._times(), self._times_before)

    # out ---------------------------------------------------------------------------------------------------------

    def _to_distributor(self, body: m.Message) -> None:
        if "workers" in self._connected:
            self._do(c.Send(_TO_DISTRIBUTOR, self._workers.wrap(body)))

    def _do(self, command: c.Command) -> None:
        self._out.append(command)

    def _log(self, level: int, text: str) -> None:
        self._do(c.Log(level, text))
