"""Tells a role's observers what happened: on a thread of its own, a tenth of a second after the first of it.

While an observer takes its time, what happens meanwhile is summed up by the recorder: the role waits for nobody.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

from zmqpipeline import events
from zmqpipeline.protocol.commands import Ended
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.observed import front_of
from zmqpipeline.protocol.recorder import Recorder
from zmqpipeline.runtime import forks

BATCH_SECONDS = 0.1
"""So long what happens is summed up before it is told."""

CLOSE_SECONDS = 2.0
"""So long a role that has ended waits for its observers."""


TURN_SECONDS = 5.0
"""So long an observer waits for one of another role in the same process."""


class _OneAtATime:
    """Held while an observer is called: of several roles in one process, as in test runs, one calls at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # a forked child has no thread that could let go of it
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.lock = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold it meanwhile; one that never returns keeps those of other runs waiting, but not for ever."""
        lock = self.lock
        is_held = lock.acquire(timeout=TURN_SECONDS)
        try:
            yield
        finally:
            if is_held:
                lock.release()


_turn = _OneAtATime()


class Subscription(NamedTuple):
    """An observer, the events that it is called with, and what it is called in log lines."""

    event_type: type[events.Event]
    function: events.Observer
    what: str
    in_turn: bool = True
    """Whether it waits until no other observer of the process is called."""


class ObserverThread:
    """Calls the observers of one role. `recorder` is what the role tells."""

    def __init__(self, role: str, subscriptions: Sequence[Subscription], log: logging.Logger) -> None:
        """The thread begins at once; it is a daemon, so that an observer that hangs keeps nothing alive."""
        self._subscriptions = tuple(subscriptions)
        self._log = log
        self._news = threading.Event()
        self._closing = threading.Event()
        self._untold: deque[events.Event] = deque()
        """Taken from the recorder, and not told to anybody."""
        self._raised: set[tuple[str, str]] = set()
        epoch = time.time() - time.monotonic()
        self.recorder = Recorder(role, epoch=epoch, lock=threading.Lock(), wake=self._news.set)
        self._thread = threading.Thread(target=self._run, name="zmqpipeline observers", daemon=True)
        self._thread.start()

    def front_of(self, machine: Any) -> Machine:
        """What the role's loop takes for the machine: it tells the recorder what the machine is told."""
        return front_of(machine, self.recorder)

    def role_is_up(self, task: str) -> None:
        """The role is ready; `task` is the one that it serves alone."""
        self.tell(events.RoleUp, pid=os.getpid(), task=task)

    def role_is_down(self, ended: Ended) -> None:
        """Nothing more will happen in it."""
        self.tell(events.RoleDown, status=ended.status, reason=ended.reason)

    def tell(self, kind: type[events.Event], **fields: Any) -> None:
        """Something happened to the role itself."""
        self.recorder.at(time.monotonic())
        self.recorder.add(kind, **fields)

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Tell what is left, and wait for that, but no longer than so many seconds."""
        self._closing.set()
        self._news.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            left = len(self._untold) + len(self.recorder.take())
            self._untold.clear()
            self._log.warning(
                "The observers are not done %g s after the end of the role; %d event(s) are not told. Hand over what "
                "takes long to a thread or a process of your own.",
                seconds,
                left,
            )

    def _run(self) -> None:
        forks.calls_user_code()
        while not self._closing.is_set():
            self._news.wait()
            self._closing.wait(BATCH_SECONDS)
            self._news.clear()
            self._deliver()
        # what was told between the last look and the end
        self._deliver()

    def _deliver(self) -> None:
        self._untold.extend(self.recorder.take())
        while self._untold:
            event = self._untold.popleft()
            for one in self._subscriptions:
                if isinstance(event, one.event_type):
                    self._call(one, event)

    def _call(self, one: Subscription, event: events.Event) -> None:
        try:
            with _turn.taken() if one.in_turn else nullcontext():
                one.function(event)
                forks.end_child()
        except BaseException as error:
            forks.end_child(error)
            # a run is not ended by who watches it, not by SystemExit either
            kind = (one.what, type(error).__name__)
            if kind not in self._raised:
                self._raised.add(kind)
                self._log.exception(
                    "%s raised %s at %s; the run goes on. Further ones of this kind are not logged.",
                    one.what,
                    kind[1],
                    type(event).__name__,
                )
