"""What `run --report` keeps of a run while it goes on, of bounded size however long that is and however much happens.

Where the facts come from, none of which costs an item anything but the last:

* which processes began and ended, and how: the supervisor, which starts them;
* how many items were done when: the progress of the collector, which runs in this process;
* which workers were busy, and with what: the distributor is asked now and then, as `status` does;
* how long items took, and which took longest: each worker tells it at its end. For that it times each call.

The run is cut into slices of equal length. When there would be more than MAX_SLICES, two become one. Each place that a
worker has in the run is a row, whatever number of processes has filled it; workers that others have started have rows
of their own.
"""

from __future__ import annotations

import heapq
import socket
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from zmqpipeline.errors import ConfigurationError
from zmqpipeline.processes.restarts import ChildEnded, Slot, Verdict
from zmqpipeline.protocol.delivery.workers import report_seconds
from zmqpipeline.protocol.messages import ItemTimes, RunningItem, Status, WorkerStatus
from zmqpipeline.protocol.status_records import ITEM_SECONDS
from zmqpipeline.runtime.child_report import SlowItem
from zmqpipeline.runtime.progress import Progress

MAX_SLICES = 240
"""So many slices a run has at most."""

FIRST_SLICE = 0.05
"""Seconds of a slice in the beginning."""

MAX_ROWS = 4000
"""So many rows there are at most; workers beyond that are counted."""

MAX_LEFT_OUT = 100_000
"""So many of these are counted."""

MAX_ENDS = 100
"""So many deaths of processes are kept, the first ones."""

MAX_MARKS = 20
"""So many deaths in one row are marked."""

SLOWEST = 20
"""So many of the slowest items are kept, and told by each thread of a worker."""

MAX_LATENESS = 2.0
"""Seconds: what a worker has done is told so long afterwards, about; of very many workers, as they tell it."""


Launched: TypeAlias = Callable[[], Mapping[tuple[str, int], Slot]]
"""Gives places by the host and the process id of the worker that is there."""


class Slices:
    """One number for each slice; all of a record have the same length."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        """All are 0."""
        self.values = array("d", [0.0]) * MAX_SLICES

    def add(self, index: int, amount: float) -> None:
        """So much more in this slice."""
        self.values[index] += amount

    def merge(self) -> None:
        """Two slices become one."""
        for index in range(MAX_SLICES // 2):
            self.values[index] = self.values[2 * index] + self.values[2 * index + 1]
        for index in range(MAX_SLICES // 2, MAX_SLICES):
            self.values[index] = 0.0


@dataclass(eq=False)
class Row:
    """A place that processes had one after the other. Times in seconds since the beginning of the run."""

    label: str
    task: str = ""
    alive: Slices = field(default_factory=Slices)
    """For how many seconds of each slice a process was there."""
    busy: Slices = field(default_factory=Slices)
    """How many seconds of calls it made in each slice, by its threads together, divided by their number."""
    deaths: list[float] = field(default_factory=list)
    """When a process of it died; the first MAX_MARKS."""
    processes: int = 0
    executed: int = 0
    """By processes that are gone."""
    where: str = ""
    """HOST/PID of the last one."""
    began: float | None = None
    """Of the process that is there now."""
    threads: int = 1
    told_at: float = 0.0
    told_busy: float = 0.0
    told_executed: int = 0
    """What is known of the process that is there now, and since when."""
    running: Sequence[RunningItem] = ()
    is_stranger: bool = False
    """Somebody else has started its process."""


@dataclass(frozen=True)
class Death:
    """A process that ended otherwise than in good order."""

    at: float
    label: str
    where: str
    how: str
    lived: float


@dataclass(frozen=True, order=True)
class Slow:
    """One of the slowest items."""

    seconds: float
    task: str
    number: int
    attempt: int
    where: str
    ended: float
    """In seconds since the beginning of the run."""
    is_done: bool = True
    """False: its process died while it ran."""


def _is_good(end: ChildEnded, verdict: Verdict | None) -> bool:
    """Whether a process ended in good order. A distributor's status is that of the run."""
    status = end.told.status
    if verdict is None or not end.place.task:
        return status is not None and (status != ConfigurationError.exit_status if not end.place.task else status == 0)
    return verdict in (Verdict.LEFT, Verdict.REPLACED)


class RunRecord:
    """See the module. May be told from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """The run begins now."""
        self.began_at = time.time()
        self.seconds = 0.0
        """How long the run took; known when it is closed."""
        self.width = FIRST_SLICE
        """Of a slice, in seconds."""
        self.rows: list[Row] = []
        self._left_out: set[object] = set()
        self.deaths: list[Death] = []
        self.deaths_in_all = 0
        self.done: dict[str, Slices] = {}
        """By task, how many items were done in each slice, by this run."""
        self.times: dict[str, ItemTimes] = {}
        """By task, how long its items took, as the workers told at their end."""
        self.silent = 0
        """How many processes of workers ended without telling that."""
        self.slowest: list[Slow] = []
        """A heap."""
        self.answers = 0
        """How often the distributor has answered how the run stands."""
        self.unasked = ""
        """Why it could not be asked, if so."""
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._of_place: dict[int, Row] = {}
        self._of_worker: dict[tuple[str, int], Row] = {}
        self._counted: dict[str, int] = {}
        self._observed_at = 0.0
        self._inherited: int | None = None

    @property
    def left_out(self) -> int:
        """How many workers have no row, as far as they are counted."""
        return len(self._left_out)

    # told by the supervisor -------------------------------------------------------------------------------------------

    def started(self, place: Slot) -> None:
        """A process has been started in this place."""
        with self._lock:
            now = self._now()
            row = self._of_place.get(id(place))
            if row is None:
                row = self._new_row(place.label, place.task, id(place))
                if row is None:
                    return
                self._of_place[id(place)] = row
            self._begin(row, now)
            if place.child is not None:
                self._of_worker[socket.gethostname(), place.child.pid] = row

    def ended(self, end: ChildEnded, verdict: Verdict | None) -> None:
        """It has ended; None: as the run ended it."""
        with self._lock:
            now, place, told = self._now(), end.place, end.told
            row = self._of_place.get(id(place))
            where = f"{told.host or socket.gethostname()}/{end.pid}"
            is_good = _is_good(end, verdict)
            if not is_good:
                how = end.describe_death() + ("" if verdict else ", by the run, which did not wait any longer")
                self._died(row, Death(now, place.label, where, how, end.lived), is_ours=verdict is None)
            if place.task:
                self._count(place.task, told.times, told.slowest, where)
            if row is not None:
                times, row.threads = told.times, told.slots or row.threads
                busy = row.told_busy if times is None else max(row.told_busy, times.seconds)
                row.executed += row.told_executed if times is None else sum(times.counts)
                self._was_busy(row, busy, now)
                self._end(row, now, where)
                if times is None and not is_good:
                    self._keep(
                        Slow(one.seconds, place.task, one.number, one.attempt, where, now, False) for one in row.running
                    )
                row.running = ()
            self._of_worker.pop((told.host or socket.gethostname(), end.pid), None)

    def _died(self, row: Row | None, death: Death, *, is_ours: bool) -> None:
        self.deaths_in_all += 1
        if len(self.deaths) < MAX_ENDS:
            self.deaths.append(death)
        if row is not None and len(row.deaths) < MAX_MARKS and not is_ours:
            row.deaths.append(death.at)

    def _count(self, task: str, times: ItemTimes | None, slowest: Sequence[SlowItem], where: str) -> None:
        if times is None:
            self.silent += 1
            return
        before = self.times.get(task) or ItemTimes([0] * (len(ITEM_SECONDS) + 1), 0.0)
        counts = [one + other for one, other in zip(before.counts, times.counts, strict=True)]
        self.times[task] = ItemTimes(counts, before.seconds + times.seconds)
        self._keep(
            Slow(one.seconds, task, one.number, one.attempt, where, max(0.0, one.ended - self.began_at))
            for one in slowest
        )

    def _keep(self, items: Iterable[Slow]) -> None:
        for item in items:
            heapq.heappush(self.slowest, item)
            if len(self.slowest) > SLOWEST:
                heapq.heappop(self.slowest)

    # told by the progress ---------------------------------------------------------------------------------------------

    def observe(self, progress: Progress) -> None:
        """So many items are done by now."""
        with self._lock:
            now = self._now()
            if progress.inherited != self._inherited:
                # what was done before is known from now on: nobody has done it in this time
                was_known = self._inherited is not None
                self._inherited = progress.inherited
                if was_known or progress.inherited:
                    self._counted = {one.task: one.collected + one.failed for one in progress.counts}
            for one in progress.counts:
                done = one.collected + one.failed
                more = done - self._counted.get(one.task, 0)
                if more > 0:
                    self._counted[one.task] = done
                    self._spread(self.done.setdefault(one.task, Slices()), self._observed_at, now, more)
            self._observed_at = now

    # told by whoever asks the distributor -----------------------------------------------------------------------------

    def answered(self, status: Status, launched: Launched) -> None:
        """The distributor says how the run stands; `launched` gives the workers that a launch command has started."""
        with self._lock:
            now = self._now()
            self.answers += 1
            late = MAX_LATENESS + report_seconds(sum(task.workers for task in status.tasks))
            for worker in status.workers:
                row = self._row_of(worker, launched, now)
                if row is None:
                    continue
                row.threads = max(1, worker.threads)
                row.running = worker.running
                row.told_executed = max(row.told_executed, worker.executed)
                row.where = worker.address
                if worker.busy_seconds > row.told_busy:
                    self._was_busy(row, worker.busy_seconds, now)
                elif worker.state == "ready" and not worker.running:
                    # what it is told to have done later on was not done in this rest
                    row.told_at = max(row.told_at, now - late)
            there = {(one.host, one.pid) for one in status.workers}
            for key, row in list(self._of_worker.items()):
                if row.is_stranger and key not in there:
                    # nobody tells how a process ended that others have started
                    row.executed += row.told_executed
                    self._end(row, now, row.where)
                    del self._of_worker[key]

    def _row_of(self, worker: WorkerStatus, launched: Launched, now: float) -> Row | None:
        key = worker.host, worker.pid
        row = self._of_worker.get(key)
        if row is not None:
            return row
        place = launched().get(key)
        if place is not None:
            row = self._of_place.get(id(place))
        else:
            row = self._new_row(worker.address, worker.task, key)
            if row is not None:
                row.is_stranger = True
                self._begin(row, now)
        if row is not None:
            self._of_worker[key] = row
        return row

    # rows and slices --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """The run is over."""
        with self._lock:
            now = self.seconds = self._now()
            self._slice(now)
            for row in self.rows:
                if row.began is not None:
                    row.executed += row.told_executed
                    self._end(row, now, row.where)

    def _now(self) -> float:
        return self._clock() - self._began

    def _new_row(self, label: str, task: str, key: object) -> Row | None:
        if len(self.rows) >= MAX_ROWS:
            if len(self._left_out) < MAX_LEFT_OUT:
                self._left_out.add(key)
            return None
        row = Row(label, task)
        self.rows.append(row)
        return row

    def _begin(self, row: Row, now: float) -> None:
        row.began = row.told_at = now
        row.told_busy, row.told_executed, row.running = 0.0, 0, ()
        row.processes += 1

    def _end(self, row: Row, now: float, where: str) -> None:
        if row.began is not None:
            self._spread(row.alive, row.began, now, now - row.began)
        row.began, row.where = None, where
        row.told_executed = 0

    def _was_busy(self, row: Row, busy: float, now: float) -> None:
        """Its calls have taken so long in sum."""
        more = (busy - row.told_busy) / row.threads
        if more > 0:
            # when in this time is not known; no more of it than there was
            self._spread(row.busy, row.told_at, now, min(more, max(0.0, now - row.told_at)))
        row.told_busy, row.told_at = max(busy, row.told_busy), now

    def _spread(self, slices: Slices, start: float, stop: float, amount: float) -> None:
        """So much, evenly between these times."""
        first, last = self._slice(start), self._slice(stop)
        first = self._slice(start)  # the second may have made them longer
        if first >= last or stop <= start:
            slices.add(last, amount)
            return
        for index in range(first, last + 1):
            begin, end = index * self.width, (index + 1) * self.width
            slices.add(index, amount * max(0.0, min(stop, end) - max(start, begin)) / (stop - start))

    def _slice(self, at: float) -> int:
        """The slice of this time; makes all of them longer if there is none."""
        while at >= self.width * MAX_SLICES:
            self.width *= 2
            for slices in (*self.done.values(), *(one for row in self.rows for one in (row.alive, row.busy))):
                slices.merge()
        return int(max(0.0, at) / self.width)
