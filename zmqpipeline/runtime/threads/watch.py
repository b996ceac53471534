"""Watches the event loop of an async worker from outside: whether it turns, what it is late with, what fills it.

One plain call that blocks holds up all others of its process, and nothing fails: it only gets slow. So a thread of its
own asks the event loop for a sign of life while calls go on, and a line names the function that keeps it waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any, Protocol

from zmqpipeline.protocol.events import Running
from zmqpipeline.runtime.error_text import users_frame
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.threads.parts import Parts
from zmqpipeline.runtime.threads.ticker import Ticker

LOOK = 0.25
"""Seconds between two looks while calls go on."""

BLOCKED_SECONDS = 5.0
"""An event loop that has not turned for so long is told of."""

_log = logging.getLogger("zmqpipeline.worker")


class Watched(Protocol):
    """What is asked of a pool of coroutines, from any thread."""

    def waiting(self) -> int:
        """How many items have not begun."""

    def running(self) -> list[int]:
        """The items whose calls go on."""

    def is_full(self) -> bool:
        """Whether no call can begin before one of those that go on ends."""

    def give_up_blocked(self, moment: float) -> bool:
        """The event loop does not turn: whether the call that it is in is past its time, and was given up now."""


class LoopWatch:
    """Watches one event loop while calls go on."""

    def __init__(
        self, pool: Watched, parts: Parts, what: str, post: Callable[[Any], object], failures: FailureLog
    ) -> None:
        """`what` is the function that is called, for the line."""
        self._parts = parts
        self._pool = pool
        self._what = what
        self._post = post
        self._failures = failures
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._ticker = Ticker("zmqpipeline-worker-watch", self._look)
        self._is_awake = False
        self._numbers: list[int] = []
        """What ran when it looked last."""
        self._asked: float | None = None
        """When the event loop was asked for a sign of life; None: it has given it."""
        self._has_warned = self._has_given_up = False
        self._looked = 0.0

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch this one from the next kick on."""
        self._loop = loop
        # its thread starts now: later there may be no memory left for one
        self._ticker.kick()

    def is_on(self, thread: int) -> None:
        """The event loop runs on the thread with this identifier."""
        self._thread = thread

    def kick(self) -> None:
        """Calls go on from now on."""
        if not self._is_awake:
            self._is_awake = True
            self._ticker.kick()

    def close(self) -> None:
        """End its thread."""
        self._ticker.close(0.1)

    def _look(self, moment: float) -> float | None:
        self._is_awake = False
        numbers = self._pool.running()
        sums = self._failures.look(moment)
        if not numbers and not self._pool.waiting() and self._asked is None:
            self._numbers = numbers
            self._parts.hand_over_late(moment)
            return sums
        self._is_awake = True
        self._parts.hand_over_late(moment)
        self._tell_running(numbers)
        self._ask(moment)
        self._looked = moment
        return LOOK if sums is None else min(LOOK, sums)

    def _tell_running(self, numbers: list[int]) -> None:
        """Tell which items have begun, if they have filled the pool since the last look, and others wait."""
        if numbers != self._numbers:
            self._numbers = numbers
        elif not self._parts.is_urgent and self._pool.waiting() and self._pool.is_full():
            self._parts.is_urgent = True
            if self._pool.running() == numbers:
                self._post(Running(numbers))

    def _ask(self, moment: float) -> None:
        """Have the event loop give a sign of life, or say that it gives none."""
        # this process itself may have stood still
        if self._asked is None or moment - self._looked > 4 * LOOK:
            self._asked = moment
            loop = self._loop
            assert loop is not None
            # it is closed when the worker ends
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._lives)
            return
        if moment - self._asked < BLOCKED_SECONDS:
            return
        if not self._has_warned:
            self._has_warned = True
            where = users_frame(sys._current_frames().get(self._thread))
            _log.warning(
                "%s holds up its event loop: for %.0f s no other call of this process has gone on%s. What takes long "
                "must be awaited; plain code that blocks can run on a thread: await asyncio.to_thread(...).",
                *(self._what, moment - self._asked, f"; it is in {where}" if where else ""),
            )
        if not self._has_given_up:
            self._has_given_up = self._pool.give_up_blocked(moment)

    def _lives(self) -> None:
        self._asked, self._has_warned = None, False
