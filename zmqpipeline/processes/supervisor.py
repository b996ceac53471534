"""`run`: the collector in this process, the distributor and the workers as child processes, on private addresses.

The calling thread supervises: signals, children, the time limit and the progress line reach it by one queue. The
collector runs in a thread beside it, as do all its user functions. A child that dies is started again; a distributor
then takes the run over from the collector. The order of the end, written where it happens:

1. the distributor ends (or is asked to drain, with the workers, by a signal, a time limit or a fault);
2. workers that still run have not heard END, and have nothing to do: they are asked to drain at once, and those that
   do not answer soon are killed (`unanswering`);
3. the collector ends by itself after the distributor's BYE, or is asked to when all children are gone;
4. what is still there when the drain time-out is over is killed.

While the collector's `finished` runs, nothing of this has begun: a distributor that dies then is started again, and
waits with the others for as long as it takes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING

from zmqpipeline.errors import ConfigurationError, PipelineError, PipelineTimeout, RoleDied, WorkerInitError
from zmqpipeline.processes.cores import usable_cores
from zmqpipeline.processes.engines.local import THIS_MACHINE
from zmqpipeline.processes.failed_starts import FailedStarts
from zmqpipeline.processes.restarts import (
    ChildEnded,
    ChildSlots,
    Looked,
    RoleEnded,
    Signalled,
    Slot,
    SupervisorEvent,
    Verdict,
    WorkersOrdered,
    about_child,
)
from zmqpipeline.processes.unanswering import ask, unanswering
from zmqpipeline.processes.unheard import UNHEARD_LOOK, UNHEARD_SECONDS, unheard
from zmqpipeline.processes.worker_places import waves
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.roles.collector import Collector, CollectorRunner
from zmqpipeline.roles.results import Reason, Summary
from zmqpipeline.runtime.child import death_notice, describe_status
from zmqpipeline.runtime.progress import Progress, read_progress

if TYPE_CHECKING:
    from zmqpipeline.processes.scaling import Scaler
    from zmqpipeline.processes.worker_places import WorkerPlaces

log = logging.getLogger("zmqpipeline.run")

GRACE = 1.0
"""Seconds that who hangs together with the distributor has to end after it, before it is asked to, or killed."""

FAREWELL = 12.0
"""Seconds that the collector may wait for the distributor's BYE, which the distributor's end makes impossible."""

CLOSING_LOOK = 0.1
"""Seconds between two looks whether children that close what user code opened have ended."""

OVERTIME = 3.0
"""Seconds beyond the drain time-out before a child that still runs is killed."""

DISTRIBUTOR_DEATHS_LIMIT = 5
"""So many deaths of the distributor in a row without one item collected or failed between them end the run.

Those while the collector's `finished` runs do not count: there is no item left, and `finished` needs no distributor.
"""

FIRST_WAVE_SECONDS, FIRST_WAVE_LOOK = 2.0, 0.02
"""Seconds after which the workers that were not started at once are started at the latest, and between two looks
whether the run has begun: then they are started, too."""

PROGRESS_INTERVAL = 0.1
"""Seconds between two looks at the numbers, for whoever watches, and for failures that are too many."""


@dataclass
class Plan:
    """What to run: the places to fill, the collector, and the limits. All times in seconds."""

    name: str
    collector: Collector
    runner: CollectorRunner
    """The collector's own."""
    distributor: Slot
    workers: list[Slot]
    totals: Mapping[str, int | None]
    drain_timeout: float
    timeout: float | None = None
    max_failures: int | None = None
    grace: float = GRACE
    """What a worker has to end in after a distributor that drains."""
    observe: Callable[[Progress], None] | None = None
    scaler: Scaler | None = None
    """Of a run whose number of workers changes with the work."""
    places: WorkerPlaces | None = None
    """What knows which of the `workers` each task is to have; None: all of them, always."""


@dataclass
class Outcome:
    """How the run went. `status` is the exit status; `error` is what `Pipeline.run` raises, if anything."""

    summary: Summary
    status: int
    error: BaseException | None = None
    signum: int | None = None
    abandoned: bool = False
    """The collector's thread still runs: a function of it did not return in time."""
    is_whole: bool = False
    """Every item was collected, though a function for no one item, `finished` say, may have raised."""
    was_finished: bool = False
    """The journal says that the run was over before: nothing was started."""
    workers: Mapping[str, int] = field(default_factory=dict)
    """How many worker processes each task was given; the most, where that changed with the work."""
    least: Mapping[str, int] = field(default_factory=dict)
    """The fewest that each task was given."""
    tracebacks: Sequence[str] = ()
    """Of each of the summary's reasons, that of its first failure."""


@dataclass
class RunSupervisor:
    """One run, from the first child to the last."""

    plan: Plan
    slots: ChildSlots
    began: float = field(default_factory=time.monotonic)
    ending: bool = False
    """No child is started again: the distributor has ended, or the run drains."""
    draining: bool = False
    drain_by: float | None = None
    """When all that drains is to have ended."""
    killed: bool = False
    signum: int | None = None
    error: BaseException | None = None
    distributor_status: int | None = None
    """The exit status that the last distributor chose, if it did."""
    distributor_deaths: int = 0
    """How many in a row, with no item done between them."""
    done: int = -1
    """How many items were done when it died last."""
    collector_ended: bool = False
    closing_by: float | None = None
    """When children that close what user code opened are killed, too; None: nobody has been yet."""
    status: int = 0
    """The exit status of a run whose workers cannot start: 1 if that is a bug of its program."""
    starts: FailedStarts = field(default_factory=lambda: FailedStarts(log, beside_distributor=True))
    stopped: str = ""
    """Why the run drains, if too many items failed."""
    deadlines: dict[str, float] = field(default_factory=dict)
    """What is due when: timeout, progress, failures, first_wave (the other workers), farewell (collector), overtime,
    answers (of workers that have not ended)."""

    def run(self) -> Outcome:
        """Fill the places, see the run through, and leave no process behind, whatever happens."""
        with self.slots.signals():
            try:
                self._start()
                while not self._over():
                    self._turn()
            except BaseException:
                self._end_collector()
                raise
            finally:
                self.slots.kill()
                self.slots.tell_rest()
                self.starts.close()
        self._observe()
        return self._outcome()

    # the turn ---------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        threading.Thread(target=self._collect, name=f"collector of {self.plan.name}", daemon=True).start()
        first, rest = waves([place for place in self.plan.workers if place.is_wanted], usable_cores())
        for place in (self.plan.distributor, *first):
            self.slots.start(place)
        for place in rest:
            self.slots.add(place, self.began + FIRST_WAVE_SECONDS)
        if rest:
            self.deadlines["first_wave"] = self.began + FIRST_WAVE_LOOK
        if any(place.engine is not THIS_MACHINE for place in self.plan.workers):
            self.deadlines["unheard"] = self.began + UNHEARD_SECONDS
        if self.plan.timeout is not None:
            self.deadlines["timeout"] = self.began + self.plan.timeout
        if self.plan.observe is not None:
            self.deadlines["progress"] = self.began
        if self.plan.max_failures is not None:
            self.deadlines["failures"] = self.began

    def _collect(self) -> None:
        """In a thread of its own; its end, good or bad, is an event."""
        error: BaseException | None = None
        try:
            self.plan.runner.run(raise_failed_run=False)
        except BaseException as raised:
            error = raised
        self.slots.events.put(RoleEnded(error))

    def _over(self) -> bool:
        return self.killed or (self.collector_ended and not self.slots.running() and self.slots.next_start() is None)

    def _turn(self) -> None:
        dues = [due for due in (*self.deadlines.values(), self.slots.next_start()) if due is not None]
        event = self.slots.wait(min(dues, default=None))
        now = time.monotonic()
        if event is not None:
            self._take(event, now)
        for name in [name for name, due in self.deadlines.items() if due <= now]:
            del self.deadlines[name]
            getattr(self, f"_{name}_is_due")(now)
        if not self.ending:
            self.slots.start_due(now)
        if not self.slots.running() and not self.collector_ended and self.draining:
            self._release_collector(now)
        if self.plan.places is not None:
            self.plan.places.tell(self.plan.distributor.child, is_ending=self.ending)

    def _take(self, event: SupervisorEvent, now: float) -> None:
        if isinstance(event, Signalled):
            self._signal(event.signum, now)
        elif isinstance(event, RoleEnded):
            self._collector_ended(event.error, now)
        elif isinstance(event, Looked):
            if self.plan.scaler is not None and not self.ending:
                self.plan.scaler.take(event.status, self.slots, now)
        elif isinstance(event, WorkersOrdered):
            self._order(event, now)
        else:
            verdict = self.slots.judge(event, now)
            if event.place is self.plan.distributor:
                self._distributor_ended(event, verdict, now)
            else:
                self._tell_distributor(event, verdict)
                self._worker_ended(event, verdict, now)

    # what may happen --------------------------------------------------------------------------------------------------

    def _order(self, order: WorkersOrdered, now: float) -> None:
        if self.ending:
            log.warning("The number of workers of task %r is not changed: the run ends.", order.task)
        elif self.plan.places is not None:
            self.plan.places.order(order.task, order.number, self.slots, now)

    def _signal(self, signum: int, now: float) -> None:
        if self.signum is not None:
            log.warning("A second signal: the run ends at once, with what was collected.")
            self.killed = True
            return
        self.signum = signum
        log.warning(
            "The run drains (%s): at most %.0f s; a second signal ends it at once.",
            describe_status(-signum),
            self.plan.drain_timeout,
        )
        self._drain(now)

    def _collector_ended(self, error: BaseException | None, now: float) -> None:
        self.collector_ended = True
        self.deadlines.pop("release", None)
        if error is not None:
            self.error = self.error or error
            self._drain(now)
        elif not self._is_over and not self.draining:
            self._give_up(RoleDied("The collector ended before the run was over; what was collected is kept."), now)
        else:
            self._stop_restarts()
            self.deadlines.setdefault("overtime", now + self.plan.drain_timeout + OVERTIME)

    def _distributor_ended(self, end: ChildEnded, verdict: Verdict, now: float) -> None:
        self.distributor_status = end.told.status
        is_final = self.distributor_status in (0, 1)
        how = f"The distributor (pid {end.pid}) ended by {describe_status(end.status)}"
        if verdict is Verdict.MISCONFIGURED:
            self._give_up(ConfigurationError("The distributor could not start: its message is above."), now)
        elif self.draining:
            end.place.restart_at = None
            # it waited for all that was leased; a worker that has not heard so by now will not hear it any more
            due = now + self.plan.grace
            self.deadlines["overtime"] = min(self.deadlines.get("overtime", due), due)
        elif self._is_over and not self.plan.collector.is_finishing:
            if end.status not in (0, 1):
                log.warning("%s after its last item was collected; the run ends all the same.", how)
            self._stop_restarts()
            # the workers that it knew have said goodbye: those that are left came too late, and hold nothing
            self.slots.terminate(self.plan.workers)
            self.deadlines["answers"] = now + ask(self.plan.workers)
            self.deadlines["overtime"] = now + self.plan.drain_timeout + OVERTIME
            self.deadlines["farewell"] = now + FAREWELL
        elif is_final:
            self._give_up(RoleDied(f"{how} before the run was over. What was collected is kept."), now)
        elif self._distributor_keeps_dying():
            text = (
                f"The distributor kept dying ({DISTRIBUTOR_DEATHS_LIMIT} times in a row, last by "
                f"{describe_status(end.status)}), and no item was collected in between. What was collected is kept."
            )
            self._give_up(RoleDied(text), now)
        else:
            log.warning("%s The run goes on.", end.describe(now))

    def _distributor_keeps_dying(self) -> bool:
        if self.plan.collector.is_finishing:
            self.distributor_deaths = 0
            return False
        done, before = self._progress().done, self.done
        self.done, self.distributor_deaths = done, self.distributor_deaths + 1 if done == before else 1
        return self.distributor_deaths >= DISTRIBUTOR_DEATHS_LIMIT

    def _tell_distributor(self, end: ChildEnded, verdict: Verdict) -> None:
        """It sees that a worker is gone, and which items go back; only we know how the worker died."""
        distributor = self.plan.distributor.child
        is_good = verdict in (Verdict.LEFT, Verdict.REPLACED)
        # of one that was not started, or not heard of, it knows nothing
        if distributor is not None and not is_good and end.pid:
            distributor.tell(death_notice(end.pid, end.describe_death()))

    def _worker_ended(self, end: ChildEnded, verdict: Verdict, now: float) -> None:
        place, is_told = end.place, self.starts.note(end)
        if self.ending or not place.is_wanted:
            place.restart_at = None
        elif verdict is Verdict.MISCONFIGURED:
            self._give_up(ConfigurationError(f"The {place.label} could not start: its message is above."), now)
        elif verdict is Verdict.HOPELESS:
            self._give_up(WorkerInitError(self.starts.verdict(place)), now)
            self.status = 1 if self.slots.is_bug(place.task) else RoleDied.exit_status
        elif verdict is Verdict.LEFT:
            place.restart_at = now + GRACE  # most likely it heard END a moment before us
        elif verdict is Verdict.DIED and not is_told:
            # what becomes of its items is the distributor's to say
            log.warning("%s", end.describe(now), extra={"about": about_child(end)})

    def _timeout_is_due(self, now: float) -> None:
        if not self.ending:
            self._give_up(
                PipelineTimeout(
                    f"The run of pipeline {self.plan.name!r} was not over within {self.plan.timeout:g} s; "
                    f"{self._progress().done} items were done."
                ),
                now,
            )

    def _first_wave_is_due(self, now: float) -> None:
        waiting = [place for place in self.plan.workers if place.is_new and place.restart_at is not None]
        if self._has_begun:
            for place in waiting:
                place.restart_at = now
        elif waiting:
            self.deadlines["first_wave"] = now + FIRST_WAVE_LOOK

    def _unheard_is_due(self, now: float) -> None:
        self.deadlines["unheard"] = now + UNHEARD_LOOK
        if not self.ending and (text := unheard(self.plan.workers, now)):
            log.warning("%s", text)
            self.deadlines["unheard"] = now + max(UNHEARD_SECONDS, now - self.began)

    def _progress_is_due(self, now: float) -> None:
        self._observe()
        self.deadlines["progress"] = now + PROGRESS_INTERVAL

    def _failures_is_due(self, now: float) -> None:
        progress, most = self._progress(), self.plan.max_failures
        failed = progress.failed - progress.inherited_failed
        if self.draining or most is None or failed <= most:
            self.deadlines["failures"] = now + PROGRESS_INTERVAL
        elif not self._is_over:
            self.stopped = f"{failed} items failed, and max_failures is {most}"
            log.warning("The run drains: %s. What runs is finished, and what was collected is kept.", self.stopped)
            self._drain(now)

    def _farewell_is_due(self, now: float) -> None:
        self._release_collector(now)

    def _answers_is_due(self, now: float) -> None:
        self.slots.kill(unanswering(self.plan.workers))

    def _overtime_is_due(self, now: float) -> None:
        """The drain time-out is over: only children that close what user code opened still end by themselves."""
        running = self.slots.running()
        closing = [place for place in running if place.child is not None and place.child.has_told().is_closing]
        if self.closing_by is None:
            self.closing_by = now + self.plan.drain_timeout + OVERTIME
        if now >= self.closing_by:
            closing = []
        for place in running:
            if place not in closing:
                log.warning("The %s did not end in time; it is killed.", place.label)
        self.slots.kill([place for place in running if place not in closing])
        if closing:
            self.deadlines["overtime"] = now + CLOSING_LOOK
        else:
            self._release_collector(now)

    def _release_is_due(self, now: float) -> None:
        log.warning("The collector did not end in time: a function of it still runs. It is left alone.")
        self.killed = True

    def _end_collector(self) -> None:
        """Something broke down, such as the start of a child: leave no thread, and no journal that it has locked."""
        self.plan.collector.shutdown()
        until = time.monotonic() + self.plan.drain_timeout + OVERTIME
        while not self.collector_ended and (event := self.slots.wait(until)) is not None:
            self.collector_ended = isinstance(event, RoleEnded)

    # ways to the end --------------------------------------------------------------------------------------------------

    def _give_up(self, error: PipelineError, now: float) -> None:
        if self.error is None:
            self.error = error
        self._drain(now)

    def _drain(self, now: float) -> None:
        if self.draining:
            return
        self.draining, self.drain_by = True, now + self.plan.drain_timeout
        self._stop_restarts()
        self.plan.runner.distributor_ends()
        self.slots.terminate()
        # Without a collector no result arrives, and without a distributor nobody says so: they would wait in vain.
        is_whole = self.plan.distributor.child is not None and not self.collector_ended
        patience = self.plan.drain_timeout + OVERTIME if is_whole else self.plan.grace
        self.deadlines["overtime"] = now + patience

    def _stop_restarts(self) -> None:
        self.ending = True
        self.deadlines.pop("timeout", None)
        self.slots.stand_down()

    def _release_collector(self, now: float) -> None:
        if not self.collector_ended and "release" not in self.deadlines:
            seconds = self.plan.drain_timeout
            if self.drain_by is not None:
                # it is given what is left of the one time for all, and a moment for what the last of the others said
                seconds = max(min(seconds, self.plan.grace), self.drain_by - now)
            self.plan.runner.end(final=False, seconds=seconds)
            self.deadlines["release"] = now + seconds + OVERTIME

    # the numbers ------------------------------------------------------------------------------------------------------

    @property
    def _has_begun(self) -> bool:
        """The distributor has told the collector of the run."""
        machine = self.plan.collector.machine
        return machine is not None and bool(machine.run)

    @property
    def _is_over(self) -> bool:
        """The distributor has told the collector that everything is done, and what became of it."""
        return bool(self.plan.collector.counts)

    def _progress(self) -> Progress:
        workers = sum(place.child is not None for place in self.plan.workers)
        seconds = time.monotonic() - self.began
        return read_progress(self.plan.collector.machine, self.plan.totals, seconds, workers)

    def _observe(self) -> None:
        if self.plan.observe is not None:
            self.plan.observe(self._progress())

    def _outcome(self) -> Outcome:
        collector, status = self.plan.collector, self._status()
        counts = list(collector.counts) or self._progress().counts
        inits = self.starts.troubles() if isinstance(self.error, WorkerInitError) else {}
        seconds = time.monotonic() - self.began
        reasons = [*Reason.of_functions(inits, "init"), *self.plan.runner.reasons()]
        tracebacks = [*(one.traceback for one in inits.values()), *self.plan.runner.tracebacks()]
        summary = Summary.from_counts(counts, ok=status == 0, seconds=seconds, reasons=reasons, stopped=self.stopped)
        is_whole = self._is_over and collector.machine.ok
        abandoned = not self.collector_ended
        return Outcome(
            summary, status, self.error, self.signum, abandoned=abandoned, is_whole=is_whole, tracebacks=tracebacks
        )

    def _status(self) -> int:
        if self.error is not None and not isinstance(self.error, PipelineTimeout):
            return self.status or _status_of(self.error)
        if self.signum is not None:
            return 128 + self.signum
        if self.error is not None or not self._is_over:
            return 1
        collector = self.plan.collector
        told = self.distributor_status if self.distributor_status in (0, 1) else 0
        return told or collector.status or (0 if collector.ok else 1)


def _status_of(error: BaseException) -> int:
    return error.exit_status if isinstance(error, PipelineError) else 1
