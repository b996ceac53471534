"""Asks how the run stands, once for all browsers, and keeps what a page that is opened late shall see.

While a browser listens it asks each `interval`, and otherwise every `IDLE_SECONDS`; at most a twentieth of the time
goes by with asking, so that an answer about thousands of workers is not put together all the time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

from zmqpipeline.cli.asker import Asker
from zmqpipeline.cli.page.history import History
from zmqpipeline.cli.page.shown import Moment, RunOver
from zmqpipeline.errors import PipelineError
from zmqpipeline.processes.worker_places import Staff
from zmqpipeline.protocol.messages import LogLine, Status
from zmqpipeline.runtime.status_client import Pacing

log = logging.getLogger("zmqpipeline.dashboard")

IDLE_SECONDS = 5.0
"""Between two questions while no browser listens."""

MAX_PART = 0.05
"""So much of the time goes by with asking, at most."""

MAX_AGE = 0.5
"""Seconds: an answer that is no older is as good as a new one."""

MAX_LINES = 50
"""So many warnings of `run` are kept."""

LOOK_SECONDS = 0.5
"""So often a browser that listens is looked after."""


class Watch:
    """What is known of the run. All of it is for the thread of the event loop."""

    def __init__(self, asker: Asker, interval: float) -> None:
        """`interval`: seconds between two questions while a browser listens."""
        self.history = History()
        self.number = 0
        """Of the newest answer."""
        self.listeners = 0
        self.over: RunOver | None = None
        self._asker = asker
        self._interval = interval
        self._answers: Sequence[Status] = ()
        self._before: Sequence[Status] = ()
        self._was_seen = False
        self._staff: dict[int, Staff] = {}
        self._lines: deque[tuple[float, str, str]] = deque(maxlen=MAX_LINES)
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Ask, again and again, until the run is over or this is cancelled."""
        pacing = Pacing(MAX_PART)
        while self.over is None:
            began = time.monotonic()
            answers = await asyncio.to_thread(self._ask)
            taken = time.monotonic() - began
            if self.over is None:
                self._take(answers)
            self._wanted.clear()
            least = self._interval if self.listeners else max(IDLE_SECONDS, self._interval)
            rest = pacing.rest(taken, least)
            # who nobody has answered is asked at once again: that has taken long enough
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), rest if answers else self._interval)

    def _ask(self) -> Sequence[Status]:
        try:
            return self._asker.ask(MAX_AGE)
        except PipelineError as error:
            log.warning("The run cannot be asked: %s", error)
            return ()

    def _take(self, answers: Sequence[Status]) -> None:
        self.history.add(answers, self._answers, time.time())
        if answers:
            self._was_seen = True
        self._before, self._answers = self._answers or self._before, answers
        self._tell()

    def _tell(self) -> None:
        self.number += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    def moment(self) -> Moment:
        """All that is known now."""
        now = time.monotonic()
        lines = [LogLine(level, text, now - at) for at, level, text in self._lines]
        answers = self._answers
        if self.over is not None and not answers:
            answers = self._before
        return Moment(answers, self._before, self.over, lines, self._was_seen, dict(self._staff))

    async def numbers(self, is_closing: Callable[[], bool]) -> AsyncIterator[int]:
        """The number of the newest answer, and of each one that follows, until the run is over or the server ends."""
        self.listeners += 1
        self._wanted.set()
        last = -1
        try:
            while not is_closing():
                news = self._news
                if self.number != last and self.number:
                    last = self.number
                    yield last
                if self.over is not None and self.number == last:
                    return
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), LOOK_SECONDS)
        finally:
            self.listeners -= 1

    def say(self, level: str, text: str) -> None:
        """A warning of `run`."""
        self._lines.append((time.monotonic(), level, text))

    def staff(self, which: int, staff: Staff) -> None:
        """How many workers a task of the plan has, says `run`."""
        self._staff[which] = staff
        self._tell()

    def unstaff(self) -> None:
        """The run ends, says `run`: the number of its workers is not changed any more."""
        self._staff.clear()
        self._tell()

    def end(self, over: RunOver) -> None:
        """The run is over, says `run`."""
        self.over = over
        self._wanted.set()
        self._tell()
