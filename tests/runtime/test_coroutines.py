"""CoroutinePool: the calls of a worker's async function on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.support.patience import await_threads
from tests.support.pools import executed, items, results
from tests.support.transports import Posts
from zmqpipeline.protocol.commands import Execute
from zmqpipeline.protocol.events import Executed, InitFailed, Running, TakenBack, ThreadLost
from zmqpipeline.runtime.log import about_call, about_now
from zmqpipeline.runtime.threads import coroutines, watch
from zmqpipeline.runtime.threads.coroutines import CoroutinePool
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.lifetime import complete
from zmqpipeline.runtime.threads.shares import BATCH_ITEMS, MESSAGE_SECONDS
from zmqpipeline.serialization.pack import pack

Call = Callable[[bytes, int, int, int], Awaitable[bytes]]
Make = Callable[..., CoroutinePool]


@pytest.fixture
def make(posts: Posts) -> Iterator[Make]:
    """Makes pools, closes them, and sees to it that none of their threads is left."""
    before = set(threading.enumerate())
    pools: list[CoroutinePool] = []

    def make_pool(concurrency: int, call: Call, **more: Any) -> CoroutinePool:
        pools.append(CoroutinePool(concurrency, Execution(call, lambda: bytes, placed=True), posts, **more))
        return pools[-1]

    yield make_pool
    for pool in pools:
        pool.close(60)
    await_threads(before)


async def echo(item: bytes, index: int, number: int, attempt: int) -> bytes:
    """Gives back what it got, without waiting."""
    return item


def troubles(events: list[Any]) -> list[tuple[int, str]]:
    """The failures among these events, by number, with the type of the error."""
    return sorted((number, one.error) for event in events for number, one in getattr(event, "failures", ()))


@pytest.mark.parametrize("concurrency", [1, 3, 1000])
def test_every_item_is_executed_once(concurrency: int, make: Make, posts: Posts) -> None:
    """Each result comes back once, in batches that are no larger than allowed, whether calls wait or not."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if number % 7 == 0:
            await asyncio.sleep(0)
        return item + b"!"

    pool, began = make(concurrency, call), time.perf_counter()
    for start in range(0, 20000, 1000):
        pool.submit(items(*range(start, start + 1000)))
    events = posts.until(executed(20000))
    assert results(events) == {number: b"%d!" % number for number in range(20000)}
    assert max(len(one.numbers) for one in events) <= BATCH_ITEMS
    assert sum(len(one.numbers) for one in events) == 20000
    # a busy machine makes them take longer, and what is there is handed over meanwhile
    assert len(events) < 1000 + (time.perf_counter() - began) / MESSAGE_SECONDS


def test_as_many_calls_go_on_as_the_concurrency_says(make: Make, posts: Posts) -> None:
    """Five at a time of twenty, no more, and no fewer while there are more."""
    now, most = 0, 0

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        end = time.monotonic() + 60
        while most < 5 and time.monotonic() < end:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        now -= 1
        return item

    make(5, call).submit(items(*range(20)))
    assert len(results(posts.until(executed(20)))) == 20
    assert most == 5


def test_calls_that_never_wait_let_others_go_on(make: Make, posts: Posts) -> None:
    """Plain code of 2 ms in each call: a call that sleeps comes back while thousands still wait."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if number == 0:
            await asyncio.sleep(0.001)
        else:
            time.sleep(0.002)
        return item

    make(2, call).submit(items(*range(500)))
    events = posts.until(lambda events: 0 in results(events))
    assert len(results(events)) < 250
    posts.until(executed(500 - len(results(events))))


class Odd(BaseException):
    """Neither an Exception nor one of Python's own."""


@pytest.mark.parametrize("raised", [ValueError("bad"), SystemExit(3), KeyboardInterrupt(), Odd(), StopIteration(1)])
def test_what_a_call_raises_is_its_failure(raised: BaseException, make: Make, posts: Posts) -> None:
    """Any exception fails the item; the others go on. `StopIteration` is a RuntimeError out of a coroutine."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        await asyncio.sleep(0)
        if number == 1:
            raise raised
        return item

    make(2, call).submit(items(0, 1, 2))
    events = posts.until(executed(3))
    assert results(events) == {0: b"0", 2: b"2"}
    ((number, trouble),) = [failure for one in events for failure in one.failures]
    expected = "RuntimeError" if isinstance(raised, StopIteration) else type(raised).__name__
    assert (number, trouble.error.rpartition(".")[2]) == (1, expected)
    assert "test_coroutines.py" in trouble.traceback
    assert "runtime/threads/coroutines.py" not in trouble.traceback


def test_a_call_that_cancels_itself_has_failed(make: Make, posts: Posts) -> None:
    """As when a future that it awaits is cancelled: it is a failure, and its place goes on."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if number == 0:
            raise asyncio.CancelledError
        return item

    make(1, call).submit(items(0, 1, 2))
    events = posts.until(executed(3))
    assert troubles(events) == [(0, "asyncio.exceptions.CancelledError")]
    assert sorted(results(events)) == [1, 2]


def test_attempts_do_not_share_a_batch(make: Make, posts: Posts) -> None:
    """Each Executed holds items of one attempt, the one that the function was told."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        await asyncio.sleep(0)
        return b"%d" % attempt

    pool = make(50, call)
    for attempt in (1, 2, 1, 3):
        pool.submit(items(*range(100 * attempt, 100 * attempt + 100), attempt=attempt))
    for event in posts.until(executed(400)):
        assert set(event.payloads) == {b"%d" % event.attempt}


def test_numbers_come_in_order(make: Make, posts: Posts) -> None:
    """Of calls that end in another order than they began."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        await asyncio.sleep(0.001 * (50 - number))
        return item

    make(50, call).submit(items(*range(50)))
    for event in posts.until(executed(50)):
        assert list(event.numbers) == sorted(event.numbers)


def test_an_item_that_cannot_be_opened_fails_alone(make: Make, posts: Posts) -> None:
    """Its neighbours are executed."""
    pool = make(2, echo)
    pool.submit(Execute("C", 1, 0.0, [0, 1, 2], [pack(b"0"), b"\xc1", pack(b"2")]))
    events = posts.until(executed(3))
    assert (sorted(results(events)), troubles(events)) == ([0, 2], [(1, "zmqpipeline.errors.SerializeError")])


# time limits ----------------------------------------------------------------------------------------------------------


def test_a_call_past_its_time_is_cancelled_and_its_clean_up_waited_for(make: Make, posts: Posts) -> None:
    """TimeoutError is told when the call has ended; its place goes on, and so do the others meanwhile."""
    steps: list[str] = []

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if number == 0:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.05)
                steps.append("cleaned up")
        return item

    began = time.perf_counter()
    make(1, call).submit(items(0, 1, 2, timeout=0.1))
    events = posts.until(executed(3))
    assert troubles(events) == [(0, "TimeoutError")]
    assert steps == ["cleaned up"]
    assert sorted(results(events)) == [1, 2]
    assert 0.15 <= time.perf_counter() - began < 30


def test_a_call_that_answers_its_cancellation_with_a_result_has_failed_all_the_same(make: Make, posts: Posts) -> None:
    """Its time is over: what it returns or raises then is nobody's."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if number:
                raise ValueError("late") from None
        return item

    make(2, call).submit(items(0, 1, timeout=0.05))
    events = posts.until(executed(2))
    assert troubles(events) == [(0, "TimeoutError"), (1, "TimeoutError")]
    assert not results(events)


def test_time_limits_inside_of_a_call_still_work_after_one_outside(make: Make, posts: Posts) -> None:
    """A place whose call was cancelled leaves nothing behind for the next call."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if number == 0:
            await asyncio.sleep(60)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(60), 0.01)
        return item

    pool = make(1, call)
    pool.submit(items(0, timeout=0.05))
    posts.until(executed(1))
    pool.submit(items(1, 2, 3))
    assert sorted(results(posts.until(executed(3)))) == [1, 2, 3]


def test_each_call_has_its_own_time(make: Make, posts: Posts) -> None:
    """Limits of different length at once, and calls that end in time: only those past their own are cancelled."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        await asyncio.sleep(2.5 if number % 2 else 0.001)
        return item

    pool = make(100, call)
    pool.submit(items(*range(20), timeout=60.0))
    # long enough for those that sleep for a millisecond, though the process may stand still for a while
    pool.submit(items(*range(20, 40), timeout=2.0))
    events = posts.until(executed(40))
    assert [number for number, _ in troubles(events)] == list(range(21, 40, 2))


def test_a_call_that_swallows_its_cancellation_costs_its_place_until_it_ends(
    make: Make, posts: Posts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told of by name, its item has failed, one call fewer goes on; when it ends, its place is there again."""
    monkeypatch.setattr(coroutines, "GRACE", 0.1)
    over = threading.Event()

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        while number == 0 and not over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)
        return item

    pool = make(2, call, what="The worker function 'stubborn'")
    pool.submit(items(0, timeout=0.05))
    events = posts.until(lambda events: any(isinstance(one, ThreadLost) for one in events) and executed(1)(events))
    assert troubles(events) == [(0, "TimeoutError")]
    assert [one.free for one in events if isinstance(one, ThreadLost)] == [1]
    (line,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert line.startswith("The worker function 'stubborn' has not ended 0.1 s after it was cancelled")
    assert "1 calls go on at a time" in line
    pool.submit(items(1, 2))
    assert sorted(results(posts.until(executed(2)))) == [1, 2]
    over.set()
    assert posts.next() == ThreadLost(2)


# taking back, and the end ---------------------------------------------------------------------------------------------


def test_take_back_takes_the_last_first_and_never_a_running_item(make: Make, posts: Posts) -> None:
    """Unstarted items come back, as many as asked for, from the end; the rest is executed."""
    started, release = threading.Event(), threading.Event()

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        started.set()
        while not release.is_set():
            await asyncio.sleep(0.005)
        return b""

    pool = make(1, call)
    pool.submit(items(*range(10)))
    assert started.wait(60)
    pool.take_back(3)
    pool.take_back(0)
    pool.take_back()
    assert [posts.next(), posts.next(), posts.next()] == [
        TakenBack([7, 8, 9]),
        TakenBack([]),
        TakenBack([1, 2, 3, 4, 5, 6]),
    ]
    release.set()
    assert posts.next().numbers == [0]


def test_no_item_is_both_executed_and_taken_back(make: Make, posts: Posts) -> None:
    """Under a storm of submits and take-backs every item has exactly one fate."""

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if number % 3 == 0:
            await asyncio.sleep(0)
        return item

    pool = make(4, call)
    for start in range(0, 30000, 100):
        pool.submit(items(*range(start, start + 100)))
        pool.take_back(start % 70)
    pool.take_back()
    fates: list[int] = []
    while len(fates) < 30000:
        event = posts.next()
        fates += event.numbers
    assert sorted(fates) == list(range(30000))


def test_close_cancels_what_goes_on_and_says_nothing_of_it(make: Make, posts: Posts) -> None:
    """The calls may clean up; they are no failures, since the role is over."""
    started, cleaned = threading.Event(), threading.Event()

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.set()
        return item

    pool = make(10, call)
    pool.submit(items(*range(5)))
    assert started.wait(60)
    pool.close(60)
    assert cleaned.is_set()
    assert posts.arrived.empty()


def test_a_pool_that_never_had_an_item_has_no_thread(make: Make) -> None:
    """Nor an event loop."""
    before = set(threading.enumerate())
    pool = make(10, echo)
    assert set(threading.enumerate()) <= before
    pool.close(1.0)


# what begins first ----------------------------------------------------------------------------------------------------


def test_thread_start_is_awaited_on_the_same_event_loop_before_any_call(make: Make, posts: Posts) -> None:
    """And what it begins there goes on beside the calls."""
    loops: list[asyncio.AbstractEventLoop] = []
    ticks: list[asyncio.Task[None]] = []

    async def begin() -> None:
        await asyncio.sleep(0.05)
        loops.append(asyncio.get_running_loop())
        ticks.append(asyncio.get_running_loop().create_task(asyncio.sleep(0.001)))

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        assert loops == [asyncio.get_running_loop()]
        await ticks[0]
        return item

    pool = make(3, call, thread_start=lambda index: complete(begin))
    pool.submit(items(*range(60)))
    assert len(results(posts.until(executed(60)))) == 60


def test_a_thread_start_that_raises_is_told(make: Make, posts: Posts) -> None:
    """InitFailed; no call is made."""

    async def begin() -> None:
        raise LookupError("no resource")

    pool = make(3, echo, thread_start=lambda index: complete(begin))
    pool.submit(items(1, 2))
    event = posts.next()
    assert isinstance(event, InitFailed)
    assert (event.trouble.error, event.trouble.message) == ("LookupError", "no resource")
    pool.submit(items(3))
    pool.take_back()
    assert posts.next() == TakenBack([1, 2, 3])


# from outside ---------------------------------------------------------------------------------------------------------


def test_a_plain_call_that_blocks_the_loop_is_told_of_by_name(
    make: Make, posts: Posts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the line that it is in, once; and what was done before is handed over meanwhile."""
    monkeypatch.setattr(watch, "BLOCKED_SECONDS", 0.4)
    monkeypatch.setattr(watch, "LOOK", 0.05)
    release = threading.Event()

    def parse_slowly() -> None:
        release.wait(60)

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if number:
            parse_slowly()
        return item

    pool = make(1, call, what="The worker function 'fetch'")
    pool.submit(items(0, 1))
    assert results(posts.until(executed(1))) == {0: b"0"}
    end = time.monotonic() + 60
    while not caplog.records and time.monotonic() < end:
        time.sleep(0.01)
    release.set()
    posts.until(executed(1))
    (line,) = [one.getMessage() for one in caplog.records]
    assert line.startswith("The worker function 'fetch' holds up its event loop: ")
    assert "test_coroutines.py:" in line
    assert " parse_slowly" in line
    assert "asyncio.to_thread" in line


def test_what_has_begun_is_told_while_others_wait(make: Make, posts: Posts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long calls in all places, and more behind them: their numbers, once."""
    monkeypatch.setattr(watch, "LOOK", 0.02)
    release = threading.Event()

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        while not release.is_set():
            await asyncio.sleep(0.005)
        return item

    pool = make(3, call)
    pool.submit(items(*range(9)))
    assert posts.running.get(timeout=60) == Running([0, 1, 2])
    release.set()
    events = posts.until(executed(9))
    assert all(isinstance(one, Executed) for one in events)


def test_calls_that_have_yet_to_begin_are_told_with_the_others(
    make: Make, posts: Posts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one computes before it waits: whoever heard of it alone would blame it for what the next ones do."""
    monkeypatch.setattr(watch, "LOOK", 0.02)
    release = threading.Event()

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        if number == 0:
            time.sleep(0.3)
        while not release.is_set():
            await asyncio.sleep(0.005)
        return item

    pool = make(3, call)
    pool.submit(items(*range(9)))
    assert posts.running.get(timeout=60) == Running([0, 1, 2])
    release.set()
    posts.until(executed(9))


def test_log_lines_of_a_call_are_about_its_item(make: Make, posts: Posts) -> None:
    """Of each of the calls that go on at a time, and of the tasks that they begin."""
    seen: dict[int, set[object]] = {}

    async def look(number: int) -> None:
        await asyncio.sleep(0.001)
        seen.setdefault(number, set()).add(about_now()["item"])

    async def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
        with about_call(item=number):
            await asyncio.gather(look(number), look(number))
            await look(number)
        return item

    pool = make(10, call)
    pool.submit(items(*range(30)))
    posts.until(executed(30))
    assert seen == {number: {number} for number in range(30)}
    assert "item" not in about_now()
