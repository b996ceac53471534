"""How long items took, as a worker's threads count it: each once, however it is executed."""

from __future__ import annotations

import asyncio
import threading
import time
from bisect import bisect_left
from typing import Any

import pytest

from tests.support.pools import Make, executed, items
from tests.support.transports import Posts
from zmqpipeline.protocol.events import Executed, ThreadLost
from zmqpipeline.protocol.status_records import ITEM_SECONDS
from zmqpipeline.runtime.threads import times as times_module
from zmqpipeline.runtime.threads.coroutines import CoroutinePool
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.times import TimeCounter
from zmqpipeline.serialization.pack import pack

MODES = pytest.mark.parametrize("slowest", [0, 3])


def class_of(seconds: float) -> int:
    """The index of the class that this time is counted in."""
    return bisect_left(ITEM_SECONDS, seconds)


@pytest.mark.parametrize("seconds", [0.0, 1e-5, 1.5e-5, 0.1, 0.11, 1800.0, 1e9])
def test_bounds_of_a_class(seconds: float) -> None:
    """A time is in the class whose bounds it is between; so it is counted by its upper one, too."""
    low, high = times_module.class_of(seconds)
    assert low < seconds <= high
    assert class_of(high) == class_of(seconds)


def test_async_calls_of_all_lengths_are_counted(posts: Posts) -> None:
    """Alike or not, in whatever order; and the sum is what `Executed` says."""

    async def call(value: bytes) -> bytes:
        await asyncio.sleep(0.03 if int(value) % 7 == 0 else 0)
        return value

    times = TimeCounter(1)
    pool = CoroutinePool(5, Execution(call, lambda: pack, is_async=True), posts, times=times)
    try:
        pool.submit(items(*range(300)))
        events = posts.until(executed(300))
    finally:
        pool.close(60)
    found = times.read()
    assert sum(found.counts) == 300
    # on a busy machine, some take longer
    assert sum(found.counts[class_of(0.03) :]) >= 43
    assert found.seconds == pytest.approx(sum(one.seconds for one in events if isinstance(one, Executed)))


@MODES
@pytest.mark.parametrize("threads", [1, 3])
def test_each_item_is_counted_once(threads: int, slowest: int, make: Make, posts: Posts) -> None:
    """In strides or each by itself, on one thread or on several; failed ones, too."""
    times = TimeCounter(threads, slowest)

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        if number % 100 == 7:
            raise ValueError(number)
        return payload

    pool = make(threads, execute, times=times)
    for start in range(0, 10_000, 1000):
        pool.submit(items(*range(start, start + 1000)))
    posts.until(executed(10_000))
    for number in range(10_000, 10_010):
        # an item alone goes another way
        pool.submit(items(number))
        posts.until(executed(1))
    # a stride is counted at its end, and what it has done may be handed over before
    pool.close(60)
    found = times.read()
    assert sum(found.counts) == 10_010
    assert 0 < found.seconds < 60


def test_the_slowest_have_their_numbers(make: Make, posts: Posts) -> None:
    """Among thousands of short ones; with the attempt, and when they were over."""
    times, began = TimeCounter(1, 3), time.time()
    took: dict[int, float] = {}

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        start = time.perf_counter()
        time.sleep({5_000: 0.06, 7_777: 0.12, 9_999: 0.09}.get(number, 0))
        took[number] = time.perf_counter() - start
        return payload

    pool = make(1, execute, times=times)
    for start in range(0, 10_000, 1000):
        pool.submit(items(*range(start, start + 1000), attempt=2))
    posts.until(executed(10_000))
    found = times.slowest()
    assert [one.seconds for one in found] == sorted((one.seconds for one in found), reverse=True)
    # a busy machine makes others take long: those are the slowest then
    assert all(one.attempt == 2 and one.seconds >= took.pop(one.number) for one in found)
    assert len(took) == 10_000 - 3
    assert found[-1].seconds >= max(took.values())
    assert found[0].seconds >= 0.12
    assert all(began <= one.ended <= time.time() for one in found)
    assert sum(times.read().counts[class_of(0.06) :]) >= 3


def test_long_items_are_in_their_class(make: Make, posts: Posts) -> None:
    """Though nobody times each call: what takes some milliseconds has a stride of its own."""
    times = TimeCounter(1)
    pool = make(1, lambda index, payload, number, attempt: time.sleep(0.011) or payload, times=times)
    began = time.perf_counter()
    pool.submit(items(*range(20)))
    posts.until(executed(20))
    pool.close(60)
    took, counts = time.perf_counter() - began, times.read().counts
    # on a busy machine some take longer, but together no longer than all of it took
    assert sum(counts[class_of(0.011) :]) == sum(counts) == 20
    assert sum(count * low for count, low in zip(counts[1:], ITEM_SECONDS, strict=True)) <= took


@MODES
def test_an_item_past_its_time_limit_is_counted(slowest: int, make: Make, posts: Posts) -> None:
    """As long as its thread was given up for, and once: what its function does later is nobody's."""
    times, release = TimeCounter(2, slowest), threading.Event()

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        if number == 1:
            release.wait(60)
        return payload

    pool = make(2, execute, times=times)
    # that of the others is long: a thread that is not given the processor would lose them, too
    pool.submit(items(0, 2, timeout=60.0))
    pool.submit(items(1, timeout=0.6))
    posts.until(lambda events: executed(3)(events) and any(isinstance(one, ThreadLost) for one in events))
    release.set()
    found = times.read()
    assert (sum(found.counts), sum(found.counts[class_of(0.6) :])) == (3, 1)
    assert [one.number for one in times.slowest()][:1] == [1][:slowest]


@MODES
def test_of_a_batch_each_item_takes_as_long_as_its_call(slowest: int, make: Make, posts: Posts) -> None:
    """So that the sum is that of `ItemExecuted`, too."""
    times = TimeCounter(1, slowest)

    def execute(values: list[Any], *place: Any) -> list[Any]:
        time.sleep(0.06)
        return values

    pool = make(1, lambda index, payload, number, attempt: payload, times=times)
    pool.execution = Execution(execute, lambda: pack, batch=10, what="execute")
    began = time.perf_counter()
    pool.submit(items(*range(10)))
    posts.until(executed(10))
    pool.close(60)
    took, found = time.perf_counter() - began, times.read()
    assert max(found.counts[class_of(0.06) :]) == sum(found.counts) == 10
    assert 0.6 <= found.seconds <= 10 * took


@MODES
def test_async_calls_are_counted_while_they_are_under_way(slowest: int, posts: Posts) -> None:
    """Ten at a time that wait 60 ms are ten times 60 ms."""

    async def call(value: object) -> object:
        await asyncio.sleep(0.06)
        return value

    times = TimeCounter(1, slowest)
    pool = CoroutinePool(10, Execution(call, lambda: pack, is_async=True), posts, times=times)
    try:
        pool.submit(items(*range(10)))
        posts.until(executed(10))
    finally:
        pool.close(60)
    assert sum(times.read().counts[class_of(0.06) :]) == 10
    assert len(times.slowest()) == slowest
