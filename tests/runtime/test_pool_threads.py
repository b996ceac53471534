"""Pool: quanta, threads that are parked, and threads that lead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.support.pools import Make, executed, items, results
from tests.support.transports import Posts
from zmqpipeline.runtime.threads.pool import Pool


def test_a_share_that_lasts_several_quanta_keeps_its_numbers(make: Make, posts: Posts) -> None:
    """Between two quanta the thread leaves its share and comes back: each item is called with its own number."""

    def check(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        time.sleep(0.0005)
        return b"%d" % (payload == b"%d" % number)

    pool = make(1, check)
    pool.submit(items(*range(300)))
    assert set(results(posts.until(executed(300))).values()) == {b"1"}


def test_threads_that_hold_the_interpreter_are_parked_and_end_all_the_same(make: Make, posts: Posts) -> None:
    """One of four executes alone after a while; each item comes back once, and closing ends those that are parked."""
    pool = make(4, lambda index, payload, number, attempt: b"%d" % (index + 0 * sum(range(5000))))
    end, last, done = time.monotonic() + 60.0, 0, dict[int, bytes]()
    while pool._limit.limit == 4:
        assert time.monotonic() < end
        for _ in range(8):
            pool.submit(items(*range(last, last + 100)))
            last += 100
        done |= results(posts.until(executed(800)))
    assert sorted(done) == list(range(last))
    # on a busy machine two may be seen to compete before the others have had a share
    assert len(set(done.values())) > 1


@pytest.fixture
def held(make: Make, posts: Posts) -> Iterator[tuple[Pool, threading.Event]]:
    """A pool of two threads whose first one is in item 0, until the event is set, while the other one is idle."""
    go_on, begun = threading.Event(), threading.Event()

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        if number == 0 and index == 0:
            begun.set()
            go_on.wait(60)
        return b"%d" % index

    pool, end = make(2, execute), time.monotonic() + 60.0
    while not begun.is_set():
        pool.submit(items(0))
        # the first thread is in it, or the other one has executed it
        while not begun.is_set() and posts.arrived.empty():
            assert time.monotonic() < end
            time.sleep(0.001)
        if not begun.is_set():
            posts.next()
    while pool._slots[1] not in pool._idle:
        assert time.monotonic() < end
        time.sleep(0.001)
    yield pool, go_on
    go_on.set()


def limit_to_one(pool: Pool) -> None:
    """As if threads had been seen to compete."""
    with pool._lock:
        pool._limit.try_one(time.perf_counter())
    pool._follow_limit()


def asleep(pool: Pool) -> None:
    """Wait until the ticker has nothing to look after."""
    while not pool._ticker._asleep:
        time.sleep(0.001)


def test_an_item_is_not_given_to_a_thread_that_may_not_execute(
    held: tuple[Pool, threading.Event], posts: Posts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread was idle when the choice fell on the other one alone: an item that comes alone wakes that one."""
    pool, go_on = held
    limit_to_one(pool)
    go_on.set()
    assert posts.next().numbers == [0]
    while len(pool._idle) + len(pool._parked) < 2:
        time.sleep(0.001)
    asleep(pool)
    # however late it wakes up: it is in no long item, for which the other one would be let execute
    monkeypatch.setattr(pool, "_stuck", SimpleNamespace(is_stuck=lambda *given: False))
    pool.submit(items(1))
    assert results([posts.next()]) == {1: b"0"}


def test_what_comes_during_a_long_item_of_the_one_that_executes_alone_is_not_kept_waiting(
    held: tuple[Pool, threading.Event], posts: Posts
) -> None:
    """The others have been parked: one of them executes it, although nothing waited when the long item began."""
    pool, _ = held
    limit_to_one(pool)
    asleep(pool)
    pool.submit(items(1))
    assert results([posts.next()]) == {1: b"1"}


def test_a_long_item_within_a_stride_has_the_others_back(make: Make, posts: Posts) -> None:
    """The one that executes alone looks at no clock for hundreds of items, of which one turns out to be long."""
    go_on = threading.Event()

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        if number == 200:
            go_on.wait(60)
        return b""

    pool = make(2, execute)
    pool.submit(items(*range(100)))
    posts.until(executed(100))
    while len(pool._idle) + len(pool._parked) < 2:
        time.sleep(0.001)
    limit_to_one(pool)
    pool._slots[0].stride = 256
    pool.submit(items(*range(100, 400)))
    done = results(posts.until(executed(299)))
    assert sorted(done) == [number for number in range(100, 400) if number != 200]
    go_on.set()
    assert posts.next().numbers == [200]


def test_threads_that_wait_for_another_to_begin_end_if_it_cannot(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be no more threads to be had: then the pool closes at once, and calls no user code."""
    start, called = threading.Thread.start, list[int]()

    def fail_the_third(thread: threading.Thread) -> None:
        if thread.name == "zmqpipeline-worker-2":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_the_third)
    pool = make(4, lambda index, payload, number, attempt: payload, thread_start=called.append)
    with pytest.raises(RuntimeError):
        pool.submit(items(1))
    began = time.monotonic()
    pool.close(60)
    assert time.monotonic() - began < 30
    assert not called
