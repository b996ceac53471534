"""CoroutinePool: what the tasks of calls do to the event loop, and calls to the task that they share with others."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.support.patience import await_threads
from tests.support.pools import executed, items, results
from tests.support.transports import Posts
from zmqpipeline.protocol.events import Executed, InitFailed, ThreadLost
from zmqpipeline.runtime.threads.coroutines import CoroutinePool
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.lifetime import complete

Call = Callable[[bytes, int, int, int], Awaitable[bytes]]
Make = Callable[..., CoroutinePool]

EXITS = [SystemExit(3), KeyboardInterrupt()]
"""What asyncio lets out of an event loop."""


@pytest.fixture
def make(posts: Posts) -> Iterator[Make]:
    """Makes pools, closes them, and sees to it that none of their threads is left."""
    before = set(threading.enumerate())
    pools: list[CoroutinePool] = []

    def make_pool(concurrency: int, call: Call, batch: int = 0, **more: Any) -> CoroutinePool:
        execution = Execution(call, lambda: bytes, placed=True, is_async=True, batch=batch, what="The function f")
        pools.append(CoroutinePool(concurrency, execution, posts, **more))
        return pools[-1]

    yield make_pool
    for pool in pools:
        pool.close(60)
    await_threads(before)


def troubles(events: list[Any]) -> list[tuple[int, str]]:
    """The failures among these events, by number, with the type of the error."""
    return sorted(
        (number, one.error.rpartition(".")[2]) for event in events for number, one in getattr(event, "failures", ())
    )


async def raises(error: BaseException) -> None:
    """What a task of the user's does."""
    raise error


async def in_gather(error: BaseException) -> None:
    """Raise it in a task beside."""
    await asyncio.gather(raises(error))


async def in_group(error: BaseException) -> None:
    """Raise it in a task of a group."""
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
        group.create_task(raises(error))


async def in_background(error: BaseException) -> None:
    """Raise it where nobody waits, and fail for another reason."""
    asyncio.get_running_loop().call_soon(raise_it, error)
    await asyncio.sleep(0.01)
    raise error


def raise_it(error: BaseException) -> None:
    """In a callback of the event loop."""
    raise error


WAYS = [in_gather, in_background] + ([in_group] if sys.version_info >= (3, 11) else [])


# what leaves the event loop -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", EXITS, ids=repr)
@pytest.mark.parametrize("way", WAYS)
def test_an_exit_in_a_task_that_a_call_has_begun_is_its_failure(
    way: Callable[[BaseException], Awaitable[None]],
    error: BaseException,
    make: Make,
    posts: Posts,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """All other calls go on, those beside and those after it; a line tells of it."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        await asyncio.sleep(0.001)
        if number == 7:
            await way(error)
        return item

    pool = make(10, call)
    pool.submit(items(*range(50)))
    events = posts.until(executed(50))
    assert troubles(events) == [(7, type(error).__name__)]
    pool.submit(items(50))
    assert results(posts.until(executed(1))) == {50: b"50"}
    assert any(f"raised {error!r}" in line.getMessage() for line in caplog.records)


@pytest.mark.parametrize("error", EXITS, ids=repr)
def test_an_exit_in_a_call_of_a_list_is_the_failure_of_its_item(error: BaseException, make: Make, posts: Posts) -> None:
    """Its halves are tried again, on the same event loop."""

    async def call(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[bytes]:
        await asyncio.sleep(0.001)
        if 7 in numbers:
            await in_gather(error)
        return values

    make(3, call, batch=8).submit(items(*range(40)))  # type: ignore[arg-type]
    events = posts.until(executed(40))
    assert troubles(events) == [(7, type(error).__name__)]
    assert len(results(events)) == 39


@pytest.mark.parametrize("error", EXITS, ids=repr)
def test_what_was_made_is_closed_though_calls_exit_when_they_are_cancelled(
    error: BaseException, make: Make, posts: Posts
) -> None:
    """`thread_end` is called, and the event loop is closed, whatever the calls and their tasks raise at the end."""
    loops: list[asyncio.AbstractEventLoop] = []
    ended: list[str] = []
    started = threading.Event()

    async def exits() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise error

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        loops.append(asyncio.get_running_loop())
        task = loops[0].create_task(exits())
        started.set()
        try:
            await asyncio.gather(exits(), task)
        finally:
            await asyncio.sleep(0.01)
            ended.append("call")
        return item

    async def close() -> None:
        await asyncio.sleep(0.01)
        ended.append("resource")

    pool = make(1, call, thread_end=lambda index: complete(close))
    pool.submit(items(0))
    assert started.wait(60)
    pool.close(60)
    assert ended == ["call", "resource"]
    assert loops[0].is_closed()
    assert posts.arrived.empty()


@pytest.mark.parametrize("error", EXITS, ids=repr)
def test_an_exit_in_a_task_of_an_init_function_is_told(error: BaseException, make: Make, posts: Posts) -> None:
    """As whatever it raises itself; what it has opened is closed."""
    ended: list[str] = []

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        return item

    pool = make(2, call, thread_start=lambda index: complete(lambda: in_gather(error)), thread_end=ended.append)
    pool.submit(items(1))
    event = posts.next()
    assert isinstance(event, InitFailed)
    assert event.trouble.error == type(error).__name__
    pool.close(60)
    assert ended == [0]


def test_an_exit_beside_an_init_function_is_not_its_failure(make: Make, posts: Posts) -> None:
    """A task that it has begun, and does not wait for, ends alone."""

    async def begin() -> None:
        asyncio.get_running_loop().create_task(raises(SystemExit(3)))
        await asyncio.sleep(0.01)

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        return item

    make(2, call, thread_start=lambda index: complete(begin)).submit(items(1))
    assert results(posts.until(executed(1))) == {1: b"1"}


def test_an_event_loop_that_cannot_go_on_is_told_of(make: Make, posts: Posts, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever ends it: the worker hears that no call of it goes on, after the results that are there."""
    ended: list[int] = []

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if number == 1:
            loop: Any = asyncio.get_running_loop()

            def fail_once() -> None:
                # as when user code has closed a file descriptor that is the loop's
                del loop._run_once
                raise OSError("bad file descriptor")

            loop._run_once = fail_once
            await asyncio.sleep(60)
        return item

    pool = make(1, call, thread_end=ended.append)
    pool.submit(items(0, 1))
    events = posts.until(lambda events: any(isinstance(one, ThreadLost) for one in events))
    assert [type(one) for one in events] == [Executed, ThreadLost]
    assert (results(events), events[-1].free) == ({0: b"0"}, 0)
    assert [line.getMessage() for line in caplog.records if line.levelno == logging.CRITICAL] == [
        "The worker cannot go on: its event loop failed."
    ]
    assert pool._thread is not None
    pool._thread.join(60)
    assert ended == [0]


# one task for many calls ----------------------------------------------------------------------------------------------


def cancel_own() -> None:
    """What a call may do to itself."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize("waits", [True, False])
def test_a_cancellation_that_a_call_leaves_behind_reaches_no_other_call(waits: bool, make: Make, posts: Posts) -> None:
    """It has returned: its result counts. The next call begins as if nothing had been."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if waits:
            await asyncio.sleep(0.0001)
        if number % 10 == 3:
            cancel_own()
        elif waits:
            await asyncio.sleep(0.0001)
        return item

    make(2, call).submit(items(*range(200)))
    events = posts.until(executed(200))
    assert troubles(events) == []
    assert len(results(events)) == 200


def test_a_cancellation_that_a_call_of_a_list_leaves_behind_reaches_no_other_call(make: Make, posts: Posts) -> None:
    """Also where the list is tried again in parts, which go on in a new task."""
    calls: list[list[int]] = []

    async def call(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[bytes]:
        calls.append(numbers)
        await asyncio.sleep(0.001)
        cancel_own()
        if 3 in numbers:
            raise ValueError(3)
        return values

    make(1, call, batch=8).submit(items(*range(24)))  # type: ignore[arg-type]
    events = posts.until(executed(24))
    assert troubles(events) == [(3, "ValueError")]
    assert len(results(events)) == 23
    assert calls[:4] == [[*range(8)], [0, 1, 2, 3], [0, 1], [2, 3]]


def test_a_cancellation_between_two_calls_gives_nothing_up(
    make: Make, posts: Posts, caplog: pytest.LogCaptureFixture
) -> None:
    """It lands where the pool lets the event loop turn, since calls never wait: nobody fails, the process goes on."""
    begun: list[asyncio.Task[Any]] = []

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        begun.append(task)
        # at the next turn of the event loop, which is not before this call has ended
        asyncio.get_running_loop().call_soon(task.cancel)
        return item

    make(1, call).submit(items(*range(5000)))
    events = posts.until(executed(5000))
    assert not any(isinstance(one, ThreadLost) for one in events)
    assert troubles(events) == []
    assert not [line for line in caplog.records if line.name == "zmqpipeline.worker"]
    assert len(set(begun)) > 1


def test_a_time_limit_of_the_call_itself_leaves_no_trace(make: Make, posts: Posts) -> None:
    """A call that catches its own cancellation has a result, and a limit of the task's after it still holds."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if number == 2:
            await asyncio.sleep(60)
        try:
            asyncio.get_running_loop().call_soon(cancel_own_of, asyncio.current_task())
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return item
        return b""

    # long enough for the others, though the process may stand still for a while
    make(1, call).submit(items(0, 1, 2, 3, timeout=1.5))
    events = posts.until(executed(4))
    assert troubles(events) == [(2, "TimeoutError")]
    assert results(events) == {0: b"0", 1: b"1", 3: b"3"}


def cancel_own_of(task: asyncio.Task[Any] | None) -> None:
    """As a watchdog of the call does."""
    assert task is not None
    task.cancel()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio keeps no account of it")
def test_each_call_begins_with_no_cancellation_on_its_account(make: Make, posts: Posts) -> None:
    """Task groups and time limits go by that."""
    accounts: list[int] = []

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        accounts.append(task.cancelling())  # type: ignore[attr-defined,unused-ignore]
        cancel_own()
        if number % 2:
            await asyncio.sleep(0.001)
        return item

    make(1, call).submit(items(*range(20)))
    events = posts.until(executed(20))
    assert troubles(events) == [(number, "CancelledError") for number in range(1, 20, 2)]
    assert accounts == [0] * 20
