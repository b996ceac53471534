"""When a stream of requests asks its iterable for the next one, and when it gives a reply.

Both happen on one thread, that of the program. While the iterable makes a request no reply can be given; and while the
program is at a reply the workers need requests that were made before. So:

* Of a quick iterable one is taken between any two replies, and more until a reply is there.
* Replies that are there go before the next one of a slow iterable; and before it is asked, a reply is waited for, for
  a part of the time that it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

SLOW_SECONDS = 0.01
"""An iterable is slow if it took so long for its last request."""

WAIT_SHARE = 0.1
"""For this part of it a reply is waited for: one that comes so soon is not held back, and the stream loses little."""

_END = object()


class OpenRequests:
    """The requests of a stream that are open, `at_once` of them at most."""

    def __init__(self, source: Iterator[Any], submit: Callable[[Any], Future[Any]], at_once: int) -> None:
        """Nothing is taken from the source yet; `submit` asks."""
        self._source, self._submit, self._at_once = source, submit, at_once
        self._open: set[Future[Any]] = set()
        self._done: SimpleQueue[Future[Any]] = SimpleQueue()
        self._took = 0.0
        """Seconds, the source for its last request."""

    def next(self) -> Future[Any] | None:
        """The next one that is answered, after what was to be asked before; None if all are."""
        answered = None
        while answered is None and len(self._open) < self._at_once:
            answered = self._ask_one()
        if not self._open:
            return None
        if answered is None:
            answered = self._done.get()
        self._open.discard(answered)
        return answered

    def _ask_one(self) -> Future[Any] | None:
        """Ask for one more, unless a reply goes first; the reply that comes next, if one is there."""
        if self._took >= SLOW_SECONDS and self._open and (first := self._wait(self._took * WAIT_SHARE)):
            return first
        began = time.monotonic()
        one = next(self._source, _END)
        self._took = time.monotonic() - began
        if one is _END:
            self._at_once = 0
            return None
        future = self._submit(one)
        self._open.add(future)
        future.add_done_callback(self._done.put)
        return self._done.get() if self._took < SLOW_SECONDS and not self._done.empty() else None

    def _wait(self, seconds: float) -> Future[Any] | None:
        try:
            return self._done.get(timeout=seconds)
        except Empty:
            return None

    def withdraw(self) -> None:
        """Nobody reads on."""
        for future in self._open:
            future.cancel()
