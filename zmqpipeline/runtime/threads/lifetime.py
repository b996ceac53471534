"""What an init function makes, from its first line to the one that closes it.

An init function returns what it makes, or it is a generator: what it yields is the resource, and what follows the
`yield` closes it, once, at the end. An async generator goes through both parts in one task of the event loop, as time
limits and task groups that are open across the `yield` ask of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from zmqpipeline.errors import WorkerInitError
from zmqpipeline.runtime import forks

if TYPE_CHECKING:
    import asyncio

Waits = Coroutine[Any, Any, None]
"""What is to be awaited on the event loop before it has happened."""

Keep = Callable[[Any], object]


class Lifetime:
    """Of what one init function makes, for the worker or for one thread. `name` is what the function is called."""

    def __init__(self, name: str) -> None:
        """Nothing is open yet."""
        self.name = name
        self._close: Callable[[], Waits | None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is something to close."""
        return self._close is not None

    def open(self, made: Any, keep: Keep) -> Waits | None:
        """`made` is what the function returned when it was called; `keep` gets the resource."""
        if isinstance(made, Generator):
            keep(self._first(made))
            self._close = lambda: self._finish(made)
            return None
        if isinstance(made, AsyncGenerator):
            return self._open_async(made, keep)
        if isinstance(made, Coroutine):
            return _keep_awaited(made, keep)
        keep(made)
        return None

    def close(self) -> Waits | None:
        """Go on behind the `yield`, if there is one; once. Raises what the function raises."""
        close, self._close = self._close, None
        return None if close is None else close()

    def _first(self, made: Generator[Any, Any, Any]) -> Any:
        try:
            return next(made)
        except StopIteration:
            raise self._yields_nothing() from None

    def _finish(self, made: Generator[Any, Any, Any]) -> None:
        try:
            next(made)
        except StopIteration:
            return
        made.close()
        raise self._yields_twice()

    async def _open_async(self, made: AsyncGenerator[Any, Any], keep: Keep) -> None:
        # here, since a plain worker does without it, and is there sooner
        import asyncio

        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Any] = loop.create_future()
        over = asyncio.Event()

        async def live() -> None:
            try:
                value = await made.__anext__()
                forks.end_child()
            except StopAsyncIteration:
                opened.set_exception(self._yields_nothing())
                return
            except BaseException as error:
                forks.end_child(error)
                # whoever waited for it may have been cancelled, too
                if not opened.done():
                    opened.set_exception(error)
                return
            if not opened.done():
                opened.set_result(value)
                await over.wait()
            try:
                await made.__anext__()
                forks.end_child()
            except StopAsyncIteration:
                forks.end_child()
                return
            except BaseException as error:
                forks.end_child(error)
                raise
            await made.aclose()
            raise self._yields_twice()

        task = loop.create_task(live())

        async def close() -> None:
            over.set()
            await task

        keep(await _opened(opened, task))
        self._close = close

    def _yields_nothing(self) -> WorkerInitError:
        return WorkerInitError(f"The {self.name} has a `yield`, and ended before it. Let it yield the resource, once.")

    def _yields_twice(self) -> WorkerInitError:
        return WorkerInitError(
            f"The {self.name} yielded a second time when it was to close what it had made. Let it yield once."
        )


def complete(call: Callable[[], Any]) -> Any:
    """Call a function within the event loop of this thread, and await what it returns, if that can be awaited.

    For what comes before the first item and after the last one: the loop does not run otherwise by then.
    """
    # here, since a plain worker does without it
    import asyncio

    from zmqpipeline.runtime.threads.event_loop import settle

    async def made() -> Any:
        try:
            value = call()
            if isinstance(value, Coroutine):
                value = await value
        except BaseException as error:
            forks.end_child(error)
            raise
        forks.end_child()
        return value

    return settle(asyncio.get_event_loop(), made())


async def _opened(opened: asyncio.Future[Any], task: asyncio.Task[None]) -> Any:
    """What this task sets, or its end if who waits for it is cancelled before that: the function may clean up."""
    import asyncio

    try:
        return await opened
    finally:
        if opened.cancelled():
            task.cancel()
            await asyncio.wait({task})


async def _keep_awaited(made: Coroutine[Any, Any, Any], keep: Keep) -> None:
    keep(await made)
