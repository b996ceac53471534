"""CoroutinePool: what calls do to the task that they share with others."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.support.pools import executed, items, results
from tests.support.transports import Posts
from zmqpipeline.protocol.events import ThreadLost
from zmqpipeline.runtime.threads.coroutines import CoroutinePool
from zmqpipeline.runtime.threads.execution import Execution

Call = Callable[[bytes, int, int, int], Awaitable[bytes]]
Make = Callable[..., CoroutinePool]


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
        pool.close(5.0)
    assert set(threading.enumerate()) <= before


def troubles(events: list[Any]) -> list[tuple[int, str]]:
    """The failures among these events, by number, with the type of the error."""
    return sorted(
        (number, one.error.rpartition(".")[2]) for event in events for number, one in getattr(event, "failures", ())
    )


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

    make(1, call).submit(items(0, 1, 2, 3, timeout=0.2))
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
