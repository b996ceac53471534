"""The event loop of async sources and collector's functions: how calls end, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from zmqpipeline.runtime.threads.event_loop import AsyncItems, EventLoopThread


@pytest.fixture
def thread() -> Iterator[EventLoopThread]:
    """One that is closed afterwards."""
    made = EventLoopThread("test-async")
    yield made
    made.close(60)
    assert "test-async" not in [one.name for one in threading.enumerate()]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, StopIteration, asyncio.CancelledError])
def test_whatever_is_raised_comes_to_the_caller_and_the_loop_goes_on(
    thread: EventLoopThread, error: type[BaseException]
) -> None:
    """SystemExit would end asyncio's own loop, and StopIteration cannot be a future's."""

    def function() -> Any:
        async def raises() -> None:
            if error is StopIteration:
                raise RuntimeError("coroutine raised StopIteration")
            raise error("as planned")

        return raises()

    with pytest.raises(RuntimeError if error is StopIteration else error) as raised:
        thread.plain(function)()
    # what is told of it names the line
    assert raised.traceback[-1].name in ("raises", "function")
    assert thread.plain(asyncio.sleep)(0, "on") == "on"


def test_what_was_opened_lives_on_between_two_calls(thread: EventLoopThread) -> None:
    """A task of the first call goes on, without anybody who calls."""
    done = threading.Event()
    kept = []

    async def first() -> None:
        async def later() -> None:
            await asyncio.sleep(0.01)
            done.set()

        kept.append(asyncio.create_task(later()))

    thread.plain(first)()
    assert done.wait(60)


def test_closing_cancels_who_waits_and_runs_what_is_left(thread: EventLoopThread) -> None:
    """The caller gets an exception; a generator that is not at its end runs its `finally`."""
    begun, ended, raised = threading.Event(), [], []

    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
            begun.set()
            await asyncio.sleep(3600)
        finally:
            ended.append("waiting")

    async def unfinished() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            ended.append("unfinished")

    left = thread.plain(unfinished)()
    assert left.take(1, [].append) == 1
    items = thread.plain(endless)()

    def take() -> None:
        try:
            items.take(2, [].append)
        except BaseException as error:
            raised.append(error)

    caller = threading.Thread(target=take)
    caller.start()
    assert begun.wait(60)
    thread.close(60)
    caller.join(60)
    assert not caller.is_alive()
    assert sorted(ended) == ["unfinished", "waiting"]
    assert len(raised) == 1


def test_who_does_not_end_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A call that blocks its loop is told of; the role ends without it."""
    thread, released, begun = EventLoopThread("test-stuck"), threading.Event(), threading.Event()

    async def blocks() -> None:
        begun.set()
        released.wait(60)

    caller = threading.Thread(target=lambda: thread.plain(blocks)())
    caller.start()
    assert begun.wait(60)
    thread.close(0.05)
    assert "does not end within 0.05 s" in caplog.text
    released.set()
    caller.join(60)
    for one in threading.enumerate():
        if one.name == "test-stuck":
            one.join(60)


def test_it_begins_again_after_it_was_closed(thread: EventLoopThread) -> None:
    """As a role that runs again."""
    assert thread.plain(asyncio.sleep)(0, 1) == 1
    thread.close(60)
    assert thread.plain(asyncio.sleep)(0, 2) == 2


def test_items_that_came_before_an_error_count(thread: EventLoopThread) -> None:
    """Taken one by one, or ahead."""

    async def some() -> AsyncIterator[int]:
        for n in range(250):
            yield n
        raise ValueError("as planned")

    taken: list[int] = []
    items = thread.plain(some)()
    assert isinstance(items, AsyncItems)
    with pytest.raises(ValueError, match="as planned"):
        items.take(300, taken.append)
    assert taken == list(range(250))
    one_by_one: list[int] = []
    rest = thread.plain(some)()
    with pytest.raises(ValueError, match="as planned"):
        deque(map(one_by_one.append, rest), maxlen=0)
    assert one_by_one == list(range(250))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_task_that_raises_beside_a_call_does_not_end_the_loop(
    thread: EventLoopThread, error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio ends its loop by it, and who waits for the call would wait for ever."""

    async def call() -> str:
        async def beside() -> None:
            raise error("beside")

        one = asyncio.create_task(beside())
        await asyncio.sleep(0.01)
        with contextlib.suppress(error):
            one.result()
        return "on"

    assert thread.plain(call)() == "on"
    assert "its event loop goes on" in caplog.text


def test_a_function_that_stops_the_loop_does_not_end_it(thread: EventLoopThread) -> None:
    """It is not its own."""

    async def call() -> str:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.01)
        return "on"

    assert thread.plain(call)() == "on"
