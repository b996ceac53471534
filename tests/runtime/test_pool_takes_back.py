"""Pool: items that are taken back before a thread has begun them."""

from __future__ import annotations

import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.pools import Make, executed, items, results
from tests.support.transports import Posts
from zmqpipeline.protocol.events import TakenBack


def test_take_back_takes_the_last_first_and_never_a_running_item(make: Make, posts: Posts) -> None:
    """Unstarted items come back, as many as asked for, from the end; the rest is executed."""
    started, release = threading.Event(), threading.Event()
    pool = make(1, lambda index, payload, number, attempt: (started.set(), release.wait(60), b"")[2])
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
    """Under a storm of submits and take-backs, with the threads racing, every item has exactly one fate."""
    pool = make(4, lambda index, payload, number, attempt: payload)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for start in range(0, 30000, 100):
            pool.submit(items(*range(start, start + 100)))
            pool.take_back(start % 70)
        pool.take_back()
        fates: Counter[int] = Counter()
        while fates.total() < 30000:
            fates.update(posts.next().numbers)
    finally:
        sys.setswitchinterval(interval)
    assert fates == Counter(range(30000))


def test_items_of_a_share_that_is_begun_can_be_taken_back(make: Make, posts: Posts) -> None:
    """The only thread has taken all of a message; what it has not begun is taken back, the last first."""
    begun, go_on = threading.Event(), threading.Event()

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        begun.set()
        go_on.wait(60)
        return payload

    pool = make(1, execute)
    pool.submit(items(*range(10)))
    assert begun.wait(60)
    pool.take_back(4)
    assert posts.next() == TakenBack([6, 7, 8, 9])
    pool.take_back()
    assert posts.next() == TakenBack([1, 2, 3, 4, 5])
    go_on.set()
    assert results(posts.until(executed(1))) == {0: b"0"}
    pool.submit(items(20, 21))
    assert results(posts.until(executed(2))) == {20: b"20", 21: b"21"}


class Snatched(deque[Any]):
    """A thread's items, of which others take all, once, when the thread has seen that there are some."""

    def __init__(self, snatch: Callable[[], None]) -> None:
        super().__init__()
        self._snatch = [snatch]

    def __bool__(self) -> bool:
        there = len(self) > 0
        if there and self._snatch:
            self._snatch.pop()()
        return there


@pytest.mark.parametrize("timeout", [0.0, 10.0])
def test_a_thread_outlives_that_its_items_are_taken_back_under_its_hands(
    timeout: float, make: Make, posts: Posts
) -> None:
    """It looked, there were some; it reached for one, and there was none: it takes what comes next."""
    pool = make(1, lambda index, payload, number, attempt: payload)
    pool._slots[0].todo = Snatched(pool.take_back)
    pool.submit(items(*range(5), timeout=timeout))
    assert posts.next() == TakenBack([0, 1, 2, 3, 4])
    pool.submit(items(5, 6, timeout=timeout))
    assert results(posts.until(executed(2))) == {5: b"5", 6: b"6"}


@pytest.mark.parametrize("timeout", [0.0, 10.0])
def test_items_are_taken_back_while_threads_take_them(timeout: float, make: Make, posts: Posts) -> None:
    """Each is executed or taken back, never both and never neither, whoever is faster."""
    pool = make(3, lambda index, payload, number, attempt: payload)
    total = 20_000
    for start in range(0, total, 1000):
        pool.submit(items(*range(start, start + 1000), timeout=timeout))
        pool.take_back(300)
    back: list[int] = []
    done: list[int] = []
    while len(back) + len(done) < total:
        event = posts.next()
        (back if isinstance(event, TakenBack) else done).extend(event.numbers)
    assert sorted(back + done) == list(range(total))
