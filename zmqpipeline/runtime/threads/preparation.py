"""What workers of tasks and of services have in common: how their threads begin, and what they close at the end."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from zmqpipeline.errors import WorkerInitError
from zmqpipeline.protocol.delivery.failure_kinds import said
from zmqpipeline.protocol.events import InitDone, InitFailed
from zmqpipeline.runtime import child_report, forks
from zmqpipeline.runtime.error_text import place_of, trouble_of
from zmqpipeline.runtime.threads.serial import Post

WARN_AFTER = 5.0
"""Seconds after which a line says which function has not returned."""

_log = logging.getLogger("zmqpipeline.worker")


class Preparation:
    """Readies a worker's threads: the first one initializes the worker while the others wait, then each itself.

    At the end each thread closes what it made, and the last one what was made for the worker. `error` is what an
    initialization raised, if one did; then no further thread begins.
    """

    def __init__(
        self,
        init_worker: Callable[[], object],
        init_thread: Callable[[int], object],
        names: tuple[str, str] = ("init_worker", "init_thread"),
        *,
        close_worker: Callable[[], object] = lambda: None,
        close_thread: Callable[[int], object] = lambda index: None,
    ) -> None:
        """All are the user's; `init_thread` gets the number of its thread, from 0. `names` is what they are called."""
        self.error: BaseException | None = None
        self.calls: dict[int, str] = {}
        """What is called now, by the identifier of its thread, the longest call first."""
        self._init_worker = init_worker
        self._init_thread = init_thread
        self._close_worker = close_worker
        self._close_thread = close_thread
        self._names = names
        self._lock = threading.Lock()
        self._is_ready = False
        self._open: set[int] = set()
        """Threads that have begun, and not finished."""
        self._closed = threading.Condition()
        self._closing = 0
        """So many threads are in functions that close something."""

    def begin(self, index: int) -> None:
        """Called in each thread, first; raises what the user's function raised."""
        try:
            with self._lock:
                self._open.add(index)
                if self.error is not None:
                    raise self.error
                if not self._is_ready:
                    self._call(self._names[0], self._init_worker)
                    self._is_ready = True
            self._call(self._names[1], partial(self._init_thread, index))
        except BaseException as error:
            self.error = self.error or error
            raise

    def finish(self, index: int) -> None:
        """Called in each thread, last: close what it made, and what the worker made, if this is the last thread.

        What a function raises then is logged: there is nobody to tell who could do something about it.
        """
        with self._lock:
            if index not in self._open:
                return
        with self._closed:
            self._closing += 1
        try:
            self._close(self._names[1], partial(self._close_thread, index))
            with self._lock:
                self._open.discard(index)
                is_last = self._is_ready and not self._open
                if is_last:
                    self._is_ready = False
            if is_last:
                self._close(self._names[0], self._close_worker)
        finally:
            with self._closed:
                self._closing -= 1
                self._closed.notify_all()

    def _close(self, name: str, function: Callable[[], object]) -> None:
        try:
            self._call(name, function)
        except BaseException as error:
            trouble = trouble_of(error)
            # where no code of the user was at work there are no frames
            frames = f"\n{trouble.traceback.rstrip()}" if trouble.place else ""
            if isinstance(error, WorkerInitError) and not frames:
                # it yielded twice, which is all there is to say
                _log.error("%s", error)
                return
            text = "The %s raised when it was to close what it had made; the worker ends without that: %s.%s"
            _log.error(text, name, said(trouble).rstrip("."), frames)

    def wait(self, limit: float) -> None:
        """Wait for what is being closed, for so many seconds at most; a line says what takes long."""
        end = time.monotonic() + limit
        first = min(WARN_AFTER, limit)
        with self._closed:
            if self._closed.wait_for(lambda: not self._closing, first):
                return
            name, where = self.called()
            text = "The %s has been closing what it made for %g s%s. It may take %g s (drain_timeout)."
            _log.warning(text, name, first, where, limit)
            if not self._closed.wait_for(lambda: not self._closing, max(0.0, end - time.monotonic())):
                _log.error("The %s has not closed what it made within %g s; it is left alone.", name, limit)

    def called(self) -> tuple[str, str]:
        """What is called for the longest time, and where its thread is, as the end of a sentence."""
        thread, name = next(iter([*self.calls.items()]), (0, "init function"))
        frame = sys._current_frames().get(thread)
        if frame is None:
            return name, ""
        if frame.f_code.co_filename.endswith("selectors.py"):
            return name, "; it waits on its event loop"
        return name, f"; it is in {frame.f_code.co_name}, line {frame.f_lineno} of {frame.f_code.co_filename}"

    def _call(self, name: str, function: Callable[[], object]) -> None:
        thread = threading.get_ident()
        self.calls[thread] = name
        try:
            function()
            forks.end_child()
        except BaseException as error:
            forks.end_child(error)
            raise
        finally:
            del self.calls[thread]

    def conclude(self, whose: str) -> None:
        """Raise WorkerInitError, caused by the error, if there was one; `whose` names the worker."""
        if self.error is not None:
            place = place_of(self.error.__traceback__)
            where = f" in {place}" if place else ""
            raise WorkerInitError(f"{whose} could not start: {type(self.error).__name__}: {self.error}{where}") from (
                self.error
            )


class Beginning:
    """How the threads of a pool begin: together, within a time limit, and not without a word.

    No thread executes an item before all are ready, so that a process that dies of an init function has executed none.
    """

    def __init__(
        self,
        preparation: Preparation,
        threads: int,
        limit: float | None,
        post: Post,
        tell: Callable[[str], object],
        log: logging.Logger,
    ) -> None:
        """All init functions together have `limit` seconds; None: they may take as long as they like.

        `tell` is told the words of `runtime.child_report`; InitDone is posted when all have returned, InitFailed when
        the time is over.
        """
        self._preparation, self._limit = preparation, limit
        self._post, self._tell, self._log = post, tell, log
        self._together = threading.Barrier(threads, action=self._all_ready)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._has_begun = False

    def begin(self, index: int) -> None:
        """Called in each thread, first; raises what any of them raised, and TimeoutError when the time is over."""
        with self._lock:
            if not self._has_begun:
                self._has_begun = True
                self._tell(child_report.STARTING)
                threading.Thread(target=self._watch, name="zmqpipeline-worker-init", daemon=True).start()
        try:
            self._preparation.begin(index)
            self._together.wait()
        except threading.BrokenBarrierError:
            assert self._preparation.error is not None
            raise self._preparation.error from None
        except BaseException as error:
            self._preparation.error = self._preparation.error or error
            self._over.set()
            self._together.abort()
            raise

    def close(self) -> None:
        """The worker ends: nobody waits for what is still called."""
        self._over.set()

    def _all_ready(self) -> None:
        """By the last thread, before any of them goes on; raises if the time was over a moment ago."""
        with self._lock:
            if self._preparation.error is not None:
                raise self._preparation.error
            self._over.set()
        self._tell(child_report.WORKING)
        self._post(InitDone())

    def _watch(self) -> None:
        limit = self._limit
        first = WARN_AFTER if limit is None else min(WARN_AFTER, limit)
        if self._over.wait(first):
            return
        if limit is None or limit > first:
            ends = "as long as it likes (init_timeout=None)" if limit is None else f"{limit:g} s (init_timeout=)"
            text = "The %s has not returned for %g s%s. No item is executed before it does; it may take %s."
            name, place = self._preparation.called()
            self._log.warning(text, name, first, place, ends)
        if limit is not None and not self._over.wait(limit - first):
            self._time_is_over(limit)

    def _time_is_over(self, limit: float) -> None:
        with self._lock:
            if self._over.is_set():
                return
            name, place = self._preparation.called()
            error = TimeoutError(f"The {name} did not return within {limit:g} s (init_timeout=){place}.")
            self._preparation.error = error
            self._over.set()
        self._together.abort()
        self._post(InitFailed(trouble_of(error)))
