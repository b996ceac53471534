"""The event loop of a role's async functions that are called one at a time: sources, feeders, the collector's.

It runs on a thread of its own as long as the role does, so that what such a function has opened (a connection that
answers pings, a pool) lives on between two calls. Whoever calls a function waits for it on its own thread, as it would
for a plain one: nothing else of the role waits. asyncio is imported by the first call, and by no role without one.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from zmqpipeline.runtime import forks

if TYPE_CHECKING:
    import asyncio

Made = TypeVar("Made")

CHUNK = 100
"""So many items of an async generator are taken at once, where all of them are wanted."""

_log = logging.getLogger("zmqpipeline.async")


class CallCancelled(BaseException):
    """The role ends, and its call was cancelled by that: what it was for has neither succeeded nor failed."""


class EventLoopThread:
    """One event loop; its thread begins with the first call, and again with the first one after `close`."""

    def __init__(self, name: str) -> None:
        """`name` is that of the thread."""
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        """Of the thread that goes on now: what is under way there is cancelled."""
        self._ended = threading.Event()
        """Of the same: it has no more to do."""

    def plain(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function as a plain one: what it awaits is waited for, what it yields asynchronously is iterated."""

        def call(*args: Any, **keywords: Any) -> Any:
            made = self.call(_called(function, args, keywords))
            return AsyncItems(made, self) if hasattr(made, "__aiter__") else made

        # messages name the line in which the user's function is written
        call.__wrapped__ = function.func if isinstance(function, partial) else function  # type: ignore[attr-defined]
        return call

    def call(self, coroutine: Coroutine[Any, Any, Made]) -> Made:
        """Run this on the event loop; what it returns or raises; CallCancelled if it is closed meanwhile."""
        import asyncio
        from concurrent.futures import CancelledError

        loop = self._running()
        future = asyncio.run_coroutine_threadsafe(_guarded(coroutine, self._closing), loop)
        try:
            made, error = future.result()
        except CancelledError:
            raise CallCancelled("the role ends") from None
        if error is not None:
            raise error
        return made  # type: ignore[return-value]

    @property
    def ident(self) -> int:
        """That of the thread."""
        self._running()
        assert self._thread is not None
        assert self._thread.ident is not None
        return self._thread.ident

    def close(self, timeout: float) -> None:
        """Cancel what is under way, close generators that are not at their end, and end the thread.

        A call that does not let itself be cancelled within `timeout` seconds is left with the thread.
        """
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            self._closing.set()
            ended = self._ended
        if loop is None or thread is None:
            return
        import asyncio

        asyncio.run_coroutine_threadsafe(_end(loop, ended), loop)
        thread.join(timeout)
        if thread.is_alive():
            _log.warning("An async function of %s does not end within %g s; it is left alone.", self._name, timeout)

    def _running(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._lock:
            if self._loop is None:
                self._loop, self._closing, self._ended = asyncio.new_event_loop(), threading.Event(), threading.Event()
                given = (self._loop, self._ended)
                self._thread = threading.Thread(target=_serve, args=given, name=self._name, daemon=True)
                self._thread.start()
            return self._loop


class AsyncItems:
    """What an async generator yields, for a thread that waits for it."""

    def __init__(self, items: AsyncIterator[Any], thread: EventLoopThread) -> None:
        """Nothing is asked of it yet."""
        self._items, self._thread = aiter(items), thread
        self._chunk: list[Any] = []
        self._end: BaseException | None = None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        """Some are taken ahead: for who wants all of them."""
        if not self._chunk and self._end is None:
            taken: list[Any] = []
            try:
                if self.take(CHUNK, taken.append) < CHUNK:
                    self._end = StopIteration()
            except Exception as error:
                # what came before it counts
                self._end = error
            self._chunk = taken[::-1]
        if self._chunk:
            return self._chunk.pop()
        assert self._end is not None
        raise self._end

    def take(self, count: int, keep: Callable[[Any], object]) -> int:
        """Take so many, and no more, and keep each as it comes; how many there were: fewer only at the end."""
        return self._thread.call(self._take(count, keep))

    async def _take(self, count: int, keep: Callable[[Any], object]) -> int:
        for taken in range(count):
            try:
                item = await anext(self._items)
            except StopAsyncIteration:
                return taken
            if forks.in_child:
                forks.end_child()
            keep(item)
        return count


async def _called(function: Callable[..., Any], args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    made = function(*args, **keywords)
    return await made if inspect.isawaitable(made) else made


async def _guarded(
    coroutine: Coroutine[Any, Any, Made], closing: threading.Event
) -> tuple[Made | None, BaseException | None]:
    """What it came to: some exceptions would end the event loop."""
    import asyncio

    try:
        made = await coroutine
        if forks.in_child:
            forks.end_child()
        return made, None
    except asyncio.CancelledError as error:
        forks.end_child(error)
        if closing.is_set():
            raise
        # user code has cancelled something: the traceback says where
        return None, error
    except BaseException as error:
        forks.end_child(error)
        return None, error


def _serve(loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
    import asyncio

    asyncio.set_event_loop(loop)
    forks.calls_user_code(loop.call_soon)
    try:
        turn_until(loop, ended.is_set, _log)
    finally:
        loop.close()


def turn_until(loop: asyncio.AbstractEventLoop, is_over: Callable[[], bool], log: logging.Logger) -> None:
    """Run the loop until then, whatever user code does to it: it is not its own.

    Who stops it would stop all calls. And asyncio lets SystemExit and KeyboardInterrupt of any task out of the loop,
    besides giving it to who waits for that task.
    """
    while not is_over():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            forks.end_child(error)
            # Ctrl-C comes to the main thread, which runs a loop in a simulation only
            if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise
            if not is_over():
                log.warning("A task that an async function has begun raised %r; its event loop goes on.", error)


_settling: dict[asyncio.AbstractEventLoop, asyncio.Task[Any]] = {}
"""What `settle` waits for, by the loop."""


def settle(loop: asyncio.AbstractEventLoop, awaited: Coroutine[Any, Any, Made]) -> Made:
    """Run the loop until this has ended; what it returns or raises, and nothing that another task of it raises."""
    task = loop.create_task(awaited)
    _settling[loop] = task
    task.add_done_callback(lambda _: loop.stop())
    try:
        turn_until(loop, task.done, _log)
    finally:
        del _settling[loop]
    return task.result()


def cancel_settling(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what `settle` waits for on this loop, and nothing else that goes on there; called within the loop."""
    if loop in _settling:
        _settling[loop].cancel()


async def _end(loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
    import asyncio

    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    try:
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await loop.shutdown_asyncgens()
    finally:
        # also where one of them has cancelled this one
        ended.set()
        loop.stop()
