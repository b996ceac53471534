"""Child processes in slots: each slot is filled again, with back-off, when its child dies.

`ChildSlots.judge` is the policy of everybody who starts processes; it takes time as an argument:

* Only a death before the child was ready is a failed start. When each place of a task has had five in a row, no item of
  the task can be tried any more. Nor when an init function of the user's, or the worker's class as it was made, raised
  the same thing three times in a row, in whatever places, and no child of the task has ever got beyond it: a bug, which
  the next one would meet, too.
* A launch command that ended before its worker was heard of is a failed start, but not in a place where it has led to a
  worker before: its server or scheduler is down, and is asked again.
* Any other death is an accident. The place is filled again: after 0.1 s if the child had begun an item, since an item
  costs at most `crash_limit` deaths, else after twice the delay of the last time. Deaths in other places do not count.
* An exit status says nothing, unless the child itself said that it ends with it (`child_report`).

Whatever may happen to a supervisor comes by one queue: a child's end, a signal, the end of a role that runs in a
thread.
"""

from __future__ import annotations

import logging
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from enum import Enum
from types import FrameType
from typing import Protocol, TypeAlias

from zmqpipeline.errors import ConfigurationError, PipelineError
from zmqpipeline.processes.engines import Engine
from zmqpipeline.processes.engines.local import THIS_MACHINE
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.messages import Status
from zmqpipeline.runtime import handlers
from zmqpipeline.runtime.child import LEAVE, Child, describe_death, describe_status
from zmqpipeline.runtime.child_report import Told

log = logging.getLogger("zmqpipeline.run")

FIRST_DELAY = 0.1
"""Seconds before a dead child is started again the first time; doubled each time."""

MAX_DELAY = 5.0
"""Seconds that the delay never exceeds."""

SETTLED_AFTER = 10.0
"""A child that lived so many seconds was well: the next delay is the first one again."""

FAILED_STARTS_LIMIT = 5
"""A place whose child failed to start so often in a row is hopeless."""

SAME_BUG_LIMIT = 3
"""A task whose children's init functions raised the same thing so often in a row is hopeless, unless another one may
get beyond them: see `MAY_BE_ABLE`."""

KILL_SECONDS, KILL_SECONDS_EACH = 5.0, 0.05
"""So long children have to be gone in that were killed, all of them, and for each one more."""

TRIAL_SECONDS = 0.2
"""Of several places whose children met a bug, one is tried after the other: how often the next one looks."""

MAY_BE_ABLE = 1.5
"""A child that is at its init functions for so many times longer than one that failed, and `FIRST_DELAY` besides, does
not meet what that one met: a server may let in so many clients and no more."""


class Verdict(Enum):
    """What the end of a child means."""

    LEFT = "it ended in good order, by its own decision"
    REPLACED = "it left so that another process takes its place, which is due at once"
    MISCONFIGURED = "it said what is wrong with the configuration: another one would say the same"
    HOPELESS = "its task has failed to start too often in a row"
    DIED = "it died; its place is due again"
    DISMISSED = "it was sent away, and ended otherwise than by draining; its place is due at once if it is wanted again"


@dataclass(eq=False)
class Slot:
    """Where one child works. `label` is for log lines; `task` is the task type of a worker, or empty.

    `engine` is what starts it.
    """

    label: str
    arguments: Sequence[str]
    task: str = ""
    child: Child | None = None
    restart_at: float | None = None
    delay: float = FIRST_DELAY
    is_new: bool = True
    """It has not been filled yet."""
    met_bug: bool = False
    """An init function of its last child raised."""
    failed_starts: int = 0
    """How many of its children in a row died before they were ready."""
    was_reached: bool = False
    """A launch command has led to a worker in this place: if it does not any more, it may again."""
    engine: Engine = THIS_MACHINE
    is_wanted: bool = True
    """Whether it is to be filled: places of a scaled task wait for more work, and for what is in them to drain."""
    is_leaving: bool = False
    """Its child was sent away, also if the place is wanted again by now."""

    def died(self, end: ChildEnded, now: float) -> None:
        """The child of this place died; the next one is due after a delay."""
        if end.told.has_worked or end.lived >= SETTLED_AFTER:
            self.delay = FIRST_DELAY
        self.was_reached = self.was_reached or bool(end.told.host)
        if end.told.is_ready:
            self.failed_starts = 0
        elif end.told.host or not self.was_reached:
            self.failed_starts += 1
        self.restart_at = now + self.delay
        self.delay = min(self.delay * 2, MAX_DELAY)


def about_child(end: ChildEnded) -> dict[str, str | int]:
    """What a log line about the end of a worker is about, for programs that read it."""
    host = end.told.host or socket.gethostname()
    return {"task": end.place.task, "worker": f"{host}/{end.pid}"} if end.place.task else {}


@dataclass(frozen=True)
class ChildEnded:
    """The child of this place ended with this status (negative: the signal), after `lived` seconds.

    `told` is what it had told of itself by then. `pid` is that of the worker, which may be of another machine.
    """

    place: Slot
    pid: int
    status: int
    lived: float
    told: Told

    def describe(self, now: float) -> str:
        """How it ended, and when its place is due again, for a log line."""
        place = self.place
        failed = f" It failed to start, {place.failed_starts} times in a row." if place.failed_starts > 1 else ""
        due = "" if place.restart_at is None else f"; a new one starts in {place.restart_at - now:.1f} s"
        where = f" on {self.told.host}" if self.told.host not in ("", socket.gethostname()) else ""
        how = f"{describe_status(self.status)}{self._signal()}"
        hint = "" if self.told.host or place.was_reached or place.failed_starts > 1 else place.engine.hint
        return f"The {place.label} (pid {self.pid}{where}) ended by {how} after {self.lived:.1f} s{due}.{failed}{hint}"

    def describe_death(self) -> str:
        """How it died, for the distributor: the end of a sentence."""
        return f"{describe_death(self.status)}{self._signal()}"

    def _signal(self) -> str:
        """By the custom of shells and containers, the signal that ended what a launch command had started."""
        is_other = self.told.host and self.told.status is None and 128 < self.status < 160
        return f" ({describe_status(128 - self.status)})" if is_other else ""


@dataclass(frozen=True)
class Signalled:
    """SIGINT or SIGTERM arrived."""

    signum: int


@dataclass(frozen=True)
class RoleEnded:
    """The role that runs in a thread of this process returned (None) or raised."""

    error: BaseException | None


@dataclass(frozen=True)
class Looked:
    """The distributor has said how the run stands."""

    status: Status


@dataclass(frozen=True)
class WorkersOrdered:
    """A task shall have so many worker processes; None: as many as `--workers` says."""

    task: str
    number: int | None


SupervisorEvent: TypeAlias = ChildEnded | Signalled | RoleEnded | Looked | WorkersOrdered


class ChildWatcher(Protocol):
    """Who is told of each process that begins and ends, on the thread that supervises; it must be brief."""

    def started(self, place: Slot) -> None:
        """There is a child in this place from now on."""
        ...

    def ended(self, end: ChildEnded, verdict: Verdict | None) -> None:
        """It has ended; no verdict: everybody was ended."""
        ...


@dataclass
class ChildSlots:
    """All places and the one queue. Children are started by the thread that calls `start`, which must outlive them."""

    places: list[Slot] = field(default_factory=list)
    stdout: int | None = None
    events: queue.SimpleQueue[SupervisorEvent] = field(default_factory=queue.SimpleQueue)
    bugs: dict[str, tuple[tuple[str, str], int, float]] = field(default_factory=dict)
    """By task, what its init functions raised last, type and place, how often in a row, and when it counted last."""
    proven: set[str] = field(default_factory=set)
    """The tasks of which a child got beyond its init functions."""
    watcher: ChildWatcher | None = None
    _is_asking: bool = field(default=False, init=False)
    """An engine is asked for a child, and has not returned."""
    _signals: int = field(default=0, init=False)

    def add(self, place: Slot, at: float) -> None:
        """A place that is filled at this time."""
        if place not in self.places:
            self.places.append(place)
        place.restart_at = at

    def start(self, place: Slot) -> None:
        """Fill a place with a new child."""
        if place not in self.places:
            self.places.append(place)
        place.restart_at, place.is_new, place.is_leaving = None, False, False
        try:
            place.child = self._started_by_engine(place)
        except (PipelineError, MemoryError):
            raise
        except Exception as error:
            if place.engine is THIS_MACHINE:
                raise
            # what it asked may answer the next time: so it counts as a failed start, as with a command that ended
            log.warning("The engine could not start the %s: %s: %s", place.label, type(error).__name__, error)
            self.events.put(ChildEnded(place, 0, 1, 0.0, Told()))
            return
        if self.watcher is not None:
            self.watcher.started(place)

    def _started_by_engine(self, place: Slot) -> Child:
        self._is_asking = place.engine is not THIS_MACHINE
        try:
            child = place.engine.start(
                place.label, place.arguments, lambda child: self._ended(place, child), stdout=self.stdout
            )
        finally:
            self._is_asking = False
        if not isinstance(child, Child):
            # nothing would ever be heard of it, and nobody could end it
            raise TypeError(
                f"start() of {type(place.engine).__name__} gives a {type(child).__name__}, which is no Child"
            )
        return child

    def want(self, place: Slot, now: float) -> None:
        """Fill a place from now on: at once, or when what is still in it has drained."""
        place.is_wanted = True
        place.failed_starts = 0
        if place.child is None:
            self.add(place, now)

    def dismiss(self, place: Slot) -> None:
        """Leave a place empty from now on: what is in it is asked to drain; a worker may finish what it has begun."""
        place.is_wanted, place.restart_at = False, None
        child = place.child
        place.is_leaving = child is not None
        # a signal has it give up after `drain_timeout`; of one that has not begun anything nothing is lost by that
        if child is not None and not (child.has_told().has_worked and child.tell(LEAVE)):
            child.terminate()

    def start_due(self, now: float) -> None:
        """Fill the places whose delay is over; what happened meanwhile comes first, so the others may still be due."""
        for place in self.places:
            if place.restart_at is None or place.restart_at > now:
                continue
            if place.met_bug and self._is_another_tried(place):
                place.restart_at = now + TRIAL_SECONDS
                continue
            self.start(place)
            # a thousand starts take minutes, in which a signal would wait
            if not self.events.empty():
                return

    def _is_another_tried(self, place: Slot) -> bool:
        """Whether another place of its task, which met a bug, too, has a child of which nobody knows how it gets on."""
        if self._is_proven(place.task):
            return False
        return any(one.met_bug for one in self.running() if one.task == place.task)

    def _is_proven(self, task: str) -> bool:
        """Whether a child of this task got beyond its init functions."""
        if any(one.child is not None and one.child.has_told().has_worked for one in self.places if one.task == task):
            self.proven.add(task)
        return task in self.proven

    def next_start(self) -> float | None:
        """When the next place is due, or None."""
        return min((place.restart_at for place in self.places if place.restart_at is not None), default=None)

    def wait(self, until: float | None) -> SupervisorEvent | None:
        """What happens next, or None when the time `until` (of `time.monotonic`) has come."""
        try:
            return self.events.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None

    def judge(self, end: ChildEnded, now: float) -> Verdict:
        """What the end of a child means; its place is empty now, and due again if it shall be filled."""
        verdict = self._verdict(end, now)
        if self.watcher is not None:
            self.watcher.ended(end, verdict)
        return verdict

    def tell_rest(self) -> None:
        """Tell the watcher of the children that have ended since nobody judged any more."""
        while not self.events.empty():
            event = self.events.get()
            if isinstance(event, ChildEnded) and self.watcher is not None:
                self.watcher.ended(event, None)

    def _verdict(self, end: ChildEnded, now: float) -> Verdict:
        place, told = end.place, end.told
        place.child = place.restart_at = None
        if place.is_leaving or not place.is_wanted:
            place.delay, place.met_bug, place.is_leaving = FIRST_DELAY, False, False
            place.restart_at = now if place.is_wanted else None
            if told.status != 0:
                return Verdict.DISMISSED
            return Verdict.REPLACED if place.is_wanted else Verdict.LEFT
        if told.status == ConfigurationError.exit_status:
            return Verdict.MISCONFIGURED
        if told.status == 0:
            place.failed_starts, place.delay = 0, FIRST_DELAY
            place.restart_at = now if told.wants_successor else None
            return Verdict.REPLACED if told.wants_successor else Verdict.LEFT
        place.died(end, now)
        alike = [one for one in self.places if one.task == place.task and one.is_wanted]
        is_hopeless = all(one.failed_starts >= FAILED_STARTS_LIMIT for one in alike)
        return Verdict.HOPELESS if self._has_bug(end, alike, now) or is_hopeless else Verdict.DIED

    def _has_bug(self, end: ChildEnded, alike: Sequence[Slot], now: float) -> bool:
        """Whether each child of this task meets the same bug."""
        task, trouble = end.place.task, end.told.init_trouble
        end.place.met_bug = False
        if end.told.has_worked:
            self.proven.add(task)
        # a time-out has no place: nothing was raised, and another child may be faster
        if self._is_proven(task) or trouble is None or not trouble.place:
            return False
        seen, count, at = self.bugs.get(task, (None, 0, 0.0))
        kind = (trouble.error, trouble.place)
        if seen != kind:
            count, at = 1, now
        elif now - end.lived >= at:
            # those that were begun before that met it at the same time, which says no more than one
            count, at = count + 1, now
        self.bugs[task] = kind, count, at
        end.place.met_bug = True
        least = MAY_BE_ABLE * end.lived + FIRST_DELAY
        is_hoped_for = any(one.child is not None and now - one.child.started > least for one in alike)
        return count >= SAME_BUG_LIMIT and not is_hoped_for

    def is_bug(self, task: str) -> bool:
        """Whether a task is hopeless since its init functions raised, and not since its children died."""
        return task in self.bugs and self.bugs[task][1] >= SAME_BUG_LIMIT and task not in self.proven

    def running(self) -> list[Slot]:
        """The places that have a child now."""
        return [place for place in self.places if place.child is not None]

    def stand_down(self) -> None:
        """Fill no place again."""
        for place in self.places:
            place.restart_at = None

    def terminate(self, places: Sequence[Slot] | None = None) -> None:
        """Ask children (all, or those of these places) to drain."""
        for place in self.places if places is None else places:
            if place.child is not None:
                place.child.terminate()

    def kill(self, places: Sequence[Slot] | None = None) -> None:
        """End children (all, or those of these places) at once, and wait until they are gone.

        The system may hold one in a call that does not return, of a disk that does not answer, say. It dies of the
        signal when that returns, and nobody waits for it: its place is empty.
        """
        self.stand_down()
        chosen = self.running() if places is None else places
        gone = [(place, place.child) for place in chosen if place.child is not None]
        for _, child in gone:
            child.kill()
        until = time.monotonic() + KILL_SECONDS + len(gone) * KILL_SECONDS_EACH
        for place, child in gone:
            child.join(max(0.0, until - time.monotonic()))
            if child.status is None:
                log.warning("The %s does not end although it was killed; it is left.", place.label)
                place.child = None

    @contextmanager
    def signals(self, *, is_last: bool = False) -> Iterator[None]:
        """SIGINT and SIGTERM become events, if this is the main thread; the handlers from before come back.

        Where the process ends after this (`is_last`), a SIGTERM that comes then has no effect: it has its status.
        While an engine does not return, nobody takes events: then the second signal raises what the system's would.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers.install(number, self._signalled)
        try:
            yield
        finally:
            is_default = handlers.before(signal.SIGTERM) == signal.SIG_DFL
            handlers.restore(signal.SIGINT)
            handlers.restore(signal.SIGTERM, ignore=is_last and is_default)

    def _signalled(self, signum: int, frame: FrameType | None) -> None:
        self.events.put(Signalled(signum))
        self._signals += 1
        if self._is_asking and self._signals > 1:
            log.warning("A second signal: the run ends at once, though the engine has not returned.")
            raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signum)

    def _ended(self, place: Slot, child: Child) -> None:
        status = child.status if child.status is not None else 1
        pid = child.told.pid or child.pid
        self.events.put(ChildEnded(place, pid, status, time.monotonic() - child.started, child.told))
