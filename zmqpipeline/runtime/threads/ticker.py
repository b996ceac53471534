"""A thread that looks after others while they are stuck in user code, and sleeps while they are not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

INTERVAL = 0.002
"""Seconds between two looks while there is something to look after."""


class Ticker:
    """Calls `look(now)` again and again while that is of use. Cheap to `kick`; the thread starts with the first kick.

    `look` gets time.perf_counter() and returns in how many seconds it wants to be called again; None: not before the
    next kick. It must not raise.
    """

    def __init__(
        self, name: str, look: Callable[[float], float | None], interval: float = INTERVAL, *, longest: float = 0.0
    ) -> None:
        """`name` is that of the thread; `interval` the shortest time (seconds) between two looks of a busy one.

        A time up to `longest` that `look` asks for is slept whatever is kicked meanwhile, beyond it a kick is heard.
        """
        self._look = look
        self._interval = interval
        self._longest = max(interval, longest)
        self._asleep = True
        self._kicked = False
        """Since the last look."""
        self._closed = False
        self._started = False
        self._start_lock = threading.Lock()
        self._event = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def kick(self) -> None:
        """There is something to look after from now on; from any thread."""
        self._kicked = True
        if self._asleep:
            self._event.set()
            if not self._started:
                self._start()

    def _start(self) -> None:
        with self._start_lock:
            if not self._started and not self._closed:
                self._thread.start()
                self._started = True

    def _run(self) -> None:
        last = float("-inf")
        while True:
            # Kicks count from here on: what came before them, the look sees.
            self._asleep = True
            self._event.clear()
            if self._closed:
                return
            was_kicked, self._kicked = self._kicked, False
            moment = time.perf_counter()
            try:
                wait = self._look(moment)
            except MemoryError:
                # whoever has taken it all is told so, and lets go of it
                wait = self._interval
            if wait is None and was_kicked and moment - last < 2 * self._interval:
                # kicked as often as this, to look costs less than to be woken
                wait = self._interval
            last = moment
            if wait is not None and wait <= self._longest:
                self._asleep = False
                time.sleep(max(self._interval, wait))
            else:
                self._event.wait(wait)

    def close(self, timeout: float) -> None:
        """End the thread; wait for it at most `timeout` seconds."""
        with self._start_lock:
            self._closed = True
        self._event.set()
        if self._started:
            self._thread.join(timeout)
