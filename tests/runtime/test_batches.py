"""Functions that take lists of items: on threads and on an event loop, what came of each item."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.pools import executed, items, results
from tests.support.transports import Posts
from zmqpipeline.protocol.commands import Execute
from zmqpipeline.protocol.events import Executed, Running, TakenBack, ThreadLost
from zmqpipeline.runtime.threads.coroutines import CoroutinePool
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.pool import Pool
from zmqpipeline.serialization.pack import pack

Function = Callable[[list[bytes], int, list[int], int], Any]
Make = Callable[..., Any]


@pytest.fixture(params=["threads", "coroutines"])
def make(request: pytest.FixtureRequest, posts: Posts) -> Iterator[Make]:
    """Makes pools of both sorts, and closes them."""
    pools: list[Any] = []

    def make_pool(count: int, function: Function, batch: int = 8) -> Any:
        async def call(values: list[bytes], index: int, numbers: list[int], attempt: int) -> Any:
            return function(values, index, numbers, attempt)

        is_async = request.param == "coroutines"
        chosen: Any = call if is_async else function
        execution = Execution(chosen, lambda: bytes, placed=True, is_async=is_async, batch=batch, what="The function f")
        more: Any = {"what": "The function f"} if is_async else {}
        pools.append((CoroutinePool if is_async else Pool)(count, execution, posts, **more))
        return pools[-1]

    yield make_pool
    for pool in pools:
        pool.close(60)


def troubles(events: list[Any]) -> dict[int, str]:
    """The failures among these events, by number, with the type of the error."""
    return {number: one.error for event in events for number, one in getattr(event, "failures", ())}


def echo(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[bytes]:
    """Gives back what it got."""
    return list(values)


@pytest.mark.parametrize("count", [1, 3])
def test_every_item_is_in_one_call_with_its_number(count: int, make: Make, posts: Posts) -> None:
    """In lists of eight at most, and of eight as a rule while there are enough."""
    sizes: list[int] = []
    lock = threading.Lock()

    def function(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[bytes]:
        with lock:
            sizes.append(len(values))
        assert values == [b"%d" % number for number in numbers]
        return [value + b"!" for value in values]

    pool = make(count, function)
    for start in range(0, 4000, 400):
        pool.submit(items(*range(start, start + 400)))
    events = posts.until(executed(4000))
    assert results(events) == {number: b"%d!" % number for number in range(4000)}
    assert sum(sizes) == 4000
    assert max(sizes) == 8
    assert len(sizes) <= 4000 / 8 + 40


def test_what_is_at_hand_is_enough(make: Make, posts: Posts) -> None:
    """Three items are a batch: nobody waits for eight. What comes in two messages may be in one call."""
    make(1, echo).submit(items(0, 1, 2))
    assert sorted(results(posts.until(executed(3)))) == [0, 1, 2]
    begun, release = threading.Event(), threading.Event()
    sizes: list[int] = []

    def function(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[bytes]:
        sizes.append(len(values))
        begun.set()
        release.wait(60)
        return values

    pool = make(1, function)
    pool.submit(items(0))
    assert begun.wait(60)
    pool.submit(items(1, 2))
    pool.submit(items(3, 4))
    release.set()
    posts.until(executed(5))
    assert sizes == [1, 4]


@pytest.mark.parametrize("bad", [{3}, {0, 7}, {1, 2, 3, 4, 5, 6}, set(range(8)), {5, 13, 14, 31}])
def test_a_bad_item_costs_itself_alone(bad: set[int], make: Make, posts: Posts) -> None:
    """The function raises for the whole list: its halves are tried, then theirs."""
    calls = 0

    def function(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[bytes]:
        nonlocal calls
        calls += 1
        if bad.intersection(numbers):
            raise ValueError(f"bad among {numbers}")
        return values

    make(1, function).submit(items(*range(32)))
    events = posts.until(executed(32))
    assert troubles(events) == dict.fromkeys(bad, "ValueError")
    assert sorted(results(events)) == [number for number in range(32) if number not in bad]
    # 2 log2(8) for each bad item, and the good ones in between
    assert calls <= 4 + 6 * len(bad) + 1


def test_an_exception_in_the_place_of_a_result_fails_that_item(make: Make, posts: Posts) -> None:
    """And one that cannot be packed; the function is called once."""
    calls = 0

    def function(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[Any]:
        nonlocal calls
        calls += 1
        return [LookupError("none") if number == 2 else "text" if number == 5 else b"x" for number in numbers]

    make(1, function).submit(items(*range(8)))
    events = posts.until(executed(8))
    assert troubles(events) == {2: "LookupError", 5: "TypeError"}
    assert calls == 1


@pytest.mark.parametrize("wrong", [None, 7, "text", {}, "short"])
def test_no_list_of_that_length_is_said(wrong: Any, make: Make, posts: Posts) -> None:
    """Each item fails with what was seen, and what to write."""
    make(1, lambda values, *place: values[1:] if wrong == "short" else wrong).submit(items(*range(4)))
    events = posts.until(executed(4))
    assert troubles(events) == dict.fromkeys(range(4), "zmqpipeline.errors.BatchError")
    (first,) = [trouble for event in events for number, trouble in event.failures if number == 0]
    assert first.message.startswith("The function f returned ")
    assert "for 1 items. With batch= it takes a list, and returns a list" in first.message


def test_attempts_do_not_share_a_call(make: Make, posts: Posts) -> None:
    """Each Executed holds items of one attempt, the one that the function was told."""
    pool = make(2, lambda values, index, numbers, attempt: [b"%d" % attempt for _ in values])
    for attempt in (1, 2, 1, 3):
        pool.submit(items(*range(100 * attempt, 100 * attempt + 100), attempt=attempt))
    for event in posts.until(executed(400)):
        assert set(event.payloads) == {b"%d" % event.attempt}


def test_items_on_trial_are_called_alone(make: Make, posts: Posts) -> None:
    """They were lost with another worker: the one that kills is to be found."""
    sizes: list[int] = []
    pool = make(1, lambda values, *place: sizes.append(len(values)) or values)
    pool.submit(Execute("C", 1, 0.0, list(range(9)), [pack(b"")] * 9, trial=True))
    posts.until(executed(9))
    assert sizes == [1] * 9


def test_an_item_that_cannot_be_opened_fails_alone(make: Make, posts: Posts) -> None:
    """Its neighbours are executed."""
    make(1, echo).submit(Execute("C", 1, 0.0, [0, 1, 2], [pack(b"0"), b"\xc1", pack(b"2")]))
    events = posts.until(executed(3))
    assert (sorted(results(events)), troubles(events)) == ([0, 2], {1: "zmqpipeline.errors.SerializeError"})


def test_no_item_is_both_executed_and_taken_back(make: Make, posts: Posts) -> None:
    """Under a storm of submits and take-backs, with lists that are tried in halves, every item has exactly one fate."""

    def function(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[bytes]:
        if any(number % 50 == 0 for number in numbers):
            raise ValueError("bad")
        return values

    pool = make(3, function)
    for start in range(0, 20000, 100):
        pool.submit(items(*range(start, start + 100)))
        pool.take_back(start % 70)
    pool.take_back()
    fates: list[int] = []
    while len(fates) < 20000:
        event = posts.next()
        fates += event.numbers
        if isinstance(event, Executed):
            fates += [number for number, _ in event.failures]
            assert all(number % 50 == 0 for number, _ in event.failures)
        else:
            assert isinstance(event, TakenBack)
    assert Counter(fates) == dict.fromkeys(range(20000), 1)


def test_a_list_past_its_time_has_failed_as_a_whole(posts: Posts) -> None:
    """On a thread, which is given up; what was to be tried after it goes to another thread."""
    release = threading.Event()

    def function(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[bytes]:
        if len(values) == 8:
            raise ValueError("in halves")
        if 0 in numbers:
            release.wait(60)
        return values

    pool = Pool(2, Execution(function, lambda: bytes, placed=True, batch=8, what="f"), posts)
    # long enough for the others, though their thread be not given the processor for a while
    pool.submit(items(*range(8), timeout=2.0))
    events = posts.until(lambda events: executed(8)(events) and any(isinstance(one, ThreadLost) for one in events))
    assert troubles(events) == dict.fromkeys(range(4), "TimeoutError")
    assert sorted(results(events)) == [4, 5, 6, 7]
    assert [one.free for one in events if isinstance(one, ThreadLost)] == [8]
    release.set()
    pool.close(60)


def test_an_awaited_list_past_its_time_is_cancelled(posts: Posts) -> None:
    """On an event loop; its place goes on."""

    async def function(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[bytes]:
        if len(values) == 8:
            raise ValueError("in halves")
        if 0 in numbers:
            await asyncio.sleep(60)
        return values

    execution = Execution(function, lambda: bytes, placed=True, is_async=True, batch=8, what="f")
    pool = CoroutinePool(1, execution, posts)
    pool.submit(items(*range(8), timeout=0.2))
    pool.submit(items(8, 9))
    events = posts.until(executed(10))
    assert troubles(events) == dict.fromkeys(range(4), "TimeoutError")
    assert sorted(results(events)) == [4, 5, 6, 7, 8, 9]
    pool.close(60)


def test_what_has_begun_is_told_while_others_wait(make: Make, posts: Posts) -> None:
    """All items of the call, once."""
    release = threading.Event()

    def function(values: list[bytes], index: int, numbers: list[int], attempt: int) -> list[bytes]:
        end = time.monotonic() + 60
        while not release.is_set() and time.monotonic() < end:
            time.sleep(0.001)
        return values

    pool = make(1, function)
    pool.submit(items(*range(20)))
    assert posts.running.get(timeout=60) == Running(list(range(8)))
    release.set()
    posts.until(executed(20))
