"""A crew of child processes: each place is filled again, with back-off, when its child dies.

The policy takes time as an argument. Whatever may happen to a supervisor comes by one queue: a child's end, a signal,
the end of a role that runs in a thread.
"""

from __future__ import annotations

import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeAlias

from zmqpipeline.runtime.processes import Child

FIRST_DELAY = 0.1
"""Seconds before a dead child is started again the first time; doubled each time."""

LONGEST_DELAY = 5.0
"""Seconds that the delay never exceeds."""

SETTLED_AFTER = 10.0
"""A child that lived so many seconds was well: the next delay is the first one again."""


@dataclass(eq=False)
class Place:
    """Where one child works. `label` is for log lines; `task` is the task type of a worker, or empty."""

    label: str
    arguments: Sequence[str]
    task: str = ""
    child: Child | None = None
    restart_at: float | None = None
    delay: float = FIRST_DELAY
    is_new: bool = True
    """It has not been filled yet."""
    failed_starts: int = 0
    """How often in a row the child ended with status 1: a worker whose `worker_init` raised."""

    def ended(self, status: int, lived: float, now: float) -> float:
        """The child ended after `lived` seconds; it is due again after the returned delay."""
        if lived >= SETTLED_AFTER:
            self.delay = FIRST_DELAY
        self.failed_starts = self.failed_starts + 1 if status == 1 else 0
        delay, self.delay = self.delay, min(self.delay * 2, LONGEST_DELAY)
        self.child, self.restart_at = None, now + delay
        return delay


def about_child(place: Place, pid: int) -> dict[str, str | int]:
    """What a log line about the worker in this place is about, for programs that read it."""
    return {"task": place.task, "worker": f"{socket.gethostname()}/{pid}"} if place.task else {}


@dataclass(frozen=True)
class ChildEnded:
    """The child of this place ended with this status (negative: the signal), after `lived` seconds."""

    place: Place
    pid: int
    status: int
    lived: float


@dataclass(frozen=True)
class Signalled:
    """SIGINT or SIGTERM arrived."""

    signum: int


@dataclass(frozen=True)
class RoleEnded:
    """The role that runs in a thread of this process returned (None) or raised."""

    error: BaseException | None


Happening: TypeAlias = ChildEnded | Signalled | RoleEnded


@dataclass
class Crew:
    """All places and the one queue. Children are started by the thread that calls `start`, which must outlive them."""

    places: list[Place] = field(default_factory=list)
    stdout: int | None = None
    happenings: queue.SimpleQueue[Happening] = field(default_factory=queue.SimpleQueue)

    def add(self, place: Place, at: float) -> None:
        """A place that is filled at this time."""
        self.places.append(place)
        place.restart_at = at

    def start(self, place: Place) -> None:
        """Fill a place with a new child."""
        if place not in self.places:
            self.places.append(place)
        place.restart_at, place.is_new = None, False
        place.child = Child(place.label, place.arguments, lambda child: self._ended(place, child), stdout=self.stdout)

    def start_due(self, now: float) -> None:
        """Fill the places whose delay is over."""
        for place in self.places:
            if place.restart_at is not None and place.restart_at <= now:
                self.start(place)

    def next_start(self) -> float | None:
        """When the next place is due, or None."""
        return min((place.restart_at for place in self.places if place.restart_at is not None), default=None)

    def wait(self, until: float | None) -> Happening | None:
        """What happens next, or None when the time `until` (of `time.monotonic`) has come."""
        try:
            return self.happenings.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None

    def running(self) -> list[Place]:
        """The places that have a child now."""
        return [place for place in self.places if place.child is not None]

    def stand_down(self) -> None:
        """Fill no place again."""
        for place in self.places:
            place.restart_at = None

    def terminate(self, places: Sequence[Place] | None = None) -> None:
        """Ask children (all, or those of these places) to drain."""
        for place in self.places if places is None else places:
            if place.child is not None:
                place.child.terminate()

    def kill(self) -> None:
        """End every child at once, and wait until they are gone."""
        self.stand_down()
        gone = [place.child for place in self.running() if place.child is not None]
        for child in gone:
            child.kill()
        for child in gone:
            child.join(5.0)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM become happenings, if this is the main thread; the handlers from before come back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _signalled(self, signum: int, frame: FrameType | None) -> None:
        self.happenings.put(Signalled(signum))

    def _ended(self, place: Place, child: Child) -> None:
        status = child.status if child.status is not None else 1
        self.happenings.put(ChildEnded(place, child.pid, status, time.monotonic() - child.started))
