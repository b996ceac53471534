"""Pool: the worker's threads."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

import pytest

from tests.support.pools import Make, executed, items, results
from tests.support.transports import Posts
from zmqpipeline.protocol.commands import Execute
from zmqpipeline.protocol.credit import MAX_BATCH_BYTES
from zmqpipeline.protocol.events import Executed, InitFailed, ThreadLost
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.pool import Pool
from zmqpipeline.runtime.threads.shares import BATCH_ITEMS, MESSAGE_SECONDS
from zmqpipeline.serialization.pack import pack
from zmqpipeline.serialization.packed import Packed


@pytest.mark.parametrize("threads", [1, 4])
def test_every_item_is_executed_once(threads: int, make: Make, posts: Posts) -> None:
    """Each payload goes with its number, each result comes back once, in batches that are no larger than allowed."""
    pool = make(threads, lambda index, payload, number, attempt: payload + b"!")
    for start in range(0, 20000, 1000):
        pool.submit(items(*range(start, start + 1000)))
    events = posts.until(executed(20000))
    assert results(events) == {number: b"%d!" % number for number in range(20000)}
    assert max(len(one.numbers) for one in events) <= BATCH_ITEMS
    assert sum(len(one.numbers) for one in events) == 20000


def test_one_thread_keeps_the_order(make: Make, posts: Posts) -> None:
    """With one thread, items are executed and handed over in the order of their submission."""
    order: list[int] = []
    pool = make(1, lambda index, payload, number, attempt: order.append(number) or b"")
    for start in range(0, 5000, 500):
        pool.submit(items(*range(start, start + 500)))
    events = posts.until(executed(5000))
    assert order == list(range(5000))
    assert [number for one in events for number in one.numbers] == order


def test_short_items_come_in_batches_and_long_ones_at_once(make: Make, posts: Posts) -> None:
    """Ten thousand trivial items are few events; each long one is an event of its own."""
    told = threading.Semaphore(0)

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        if payload:
            # not before the one before it is told, however late that is
            assert told.acquire(timeout=60)
            time.sleep(0.12)
        return payload

    pool = make(1, execute)
    began = time.perf_counter()
    pool.submit(Execute("C", 1, 0.0, list(range(10000)), [pack(b"")] * 10000))
    # a busy machine makes the items take longer, and each pause may end a part
    assert len(posts.until(executed(10000))) < 100 + (time.perf_counter() - began) / MESSAGE_SECONDS
    pool.submit(Execute("C", 1, 0.0, [1, 2, 3], [pack(b"0.12")] * 3))
    for number in (1, 2, 3):
        told.release()
        assert posts.next().numbers == [number]


def test_a_long_item_does_not_keep_short_results_waiting(make: Make, posts: Posts) -> None:
    """Results of short items are handed over although the thread is stuck in the next item."""
    release = threading.Event()
    pool = make(1, lambda index, payload, number, attempt: b"" if number < 5 else bytes([release.wait(60)]))
    pool.submit(items(*range(6)))
    assert results(posts.until(executed(5))) == dict.fromkeys(range(5), b"")
    release.set()
    assert results(posts.until(executed(1))) == {5: b"\x01"}


def test_a_failure_behind_which_an_item_is_stuck_is_told(make: Make, posts: Posts) -> None:
    """A failure, too, is handed over although the thread is stuck in the next item."""
    release = threading.Event()
    pool = make(1, lambda index, payload, number, attempt: b"" if release.wait(60 * number) else 1 // 0)
    pool.submit(items(0, 1))
    (event,) = posts.until(executed(1))
    assert [(number, trouble.error) for number, trouble in event.failures] == [(0, "ZeroDivisionError")]
    release.set()
    posts.until(executed(1))


class Odd(Exception):
    """An exception that cannot even be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (ValueError("bad \udcff"), "ValueError", "bad \\udcff"),
        (SystemExit(3), "SystemExit", "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
        (Odd(), f"{__name__}.Odd", "(its message cannot be shown: str() raised RuntimeError)"),
        (StopIteration(1), "StopIteration", "1"),
    ],
)
def test_what_an_item_raises_is_its_failure(
    raised: BaseException, error: str, message: str, make: Make, posts: Posts
) -> None:
    """Any exception fails the item, with type, message and the user's part of the traceback; the thread goes on."""

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        if number == 1:
            raise raised
        return payload

    pool = make(1, execute)
    pool.submit(items(0, 1, 2))
    events = posts.until(executed(3))
    assert results(events) == {0: b"0", 2: b"2"}
    ((number, trouble),) = [failure for one in events for failure in one.failures]
    assert (number, trouble.error, trouble.message) == (1, error, message)
    assert "test_pool.py" in trouble.traceback or isinstance(raised, Odd)
    assert "runtime/threads/pool.py" not in trouble.traceback


def test_attempts_do_not_share_a_batch(make: Make, posts: Posts) -> None:
    """Each Executed holds items of one attempt, the one that the function was told."""
    pool = make(1, lambda index, payload, number, attempt: b"%d" % attempt)
    for attempt in (1, 2, 1, 3):
        pool.submit(items(*range(100 * attempt, 100 * attempt + 100), attempt=attempt))
    for event in posts.until(executed(400)):
        assert set(event.payloads) == {b"%d" % event.attempt}


@pytest.mark.alone
def test_seconds_are_the_busy_time(make: Make, posts: Posts) -> None:
    """The seconds of all batches together are the time in the function; waiting for work does not count."""
    pool = make(1, lambda index, payload, number, attempt: time.sleep(0.01) or b"")
    events: list[Any] = []
    waited = 0.0
    for first in (0, 2):
        began = time.perf_counter()
        pool.submit(items(first, first + 1))
        events += posts.until(executed(2))
        waited += time.perf_counter() - began
        time.sleep(0.2)
    assert 0.04 <= sum(one.seconds for one in events if isinstance(one, Executed)) <= waited


def test_thread_start_comes_first_and_once_in_each_thread(make: Make, posts: Posts) -> None:
    """No thread starts before the first submit; then each is prepared once, by itself, before its items."""
    prepared: dict[int, int] = {}

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        assert prepared[index] == threading.get_ident()
        time.sleep(0.001)
        return b""

    pool = make(3, execute, thread_start=lambda index: prepared.__setitem__(index, threading.get_ident()))
    assert not prepared
    pool.submit(items(*range(60)))
    assert len(results(posts.until(executed(60)))) == 60
    assert sorted(prepared) == [0, 1, 2]


def test_a_thread_that_cannot_start_takes_nothing(make: Make, posts: Posts) -> None:
    """InitFailed tells what thread_start raised, the other thread executes everything."""

    def start(index: int) -> None:
        if index == 0:
            raise LookupError("no resource")

    used: set[int] = set()
    pool = make(2, lambda index, payload, number, attempt: used.add(index) or b"", thread_start=start)
    pool.submit(items(*range(100)))
    events = posts.until(lambda events: executed(100)(events) and any(isinstance(one, InitFailed) for one in events))
    (failed,) = [one for one in events if isinstance(one, InitFailed)]
    assert (failed.trouble.error, failed.trouble.message) == ("LookupError", "no resource")
    assert used == {1}


@pytest.mark.alone
def test_an_item_past_its_timeout_costs_its_thread(make: Make, posts: Posts) -> None:
    """The item fails with a TimeoutError at its time, its late result is dropped, the other thread goes on."""
    release = threading.Event()

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        if number == 3:
            release.wait(60)
        return payload

    pool = make(2, execute)
    began = time.perf_counter()
    # that of the others is long: a thread that is not given the processor would lose them, too
    pool.submit(items(3, timeout=0.2))
    pool.submit(items(0, 1, 2, 4, 5, 6, timeout=60.0))
    events = posts.until(lambda events: any(isinstance(one, ThreadLost) for one in events))
    assert 0.2 <= time.perf_counter() - began < 30
    pool.submit(items(*range(7, 20), timeout=60.0))
    events += posts.until(lambda new: executed(20)(events + new))
    release.set()
    (lost,) = [one for one in events if isinstance(one, ThreadLost)]
    assert lost.free == 1
    assert sorted(results(events)) == [number for number in range(20) if number != 3]
    ((number, trouble),) = [failure for one in events if isinstance(one, Executed) for failure in one.failures]
    assert (number, trouble.error) == (3, "TimeoutError")
    assert events.index(lost) > 0
    pool.close(60)
    assert posts.arrived.empty()


def test_items_at_the_edge_of_their_timeout_have_one_fate(make: Make, posts: Posts) -> None:
    """Where the result and the timeout race, the item returns or fails, never both, and each lost thread is told."""
    pool = make(20, lambda index, payload, number, attempt: time.sleep(0.02 + number % 10 * 0.0005) or b"")
    pool.submit(items(*range(20), timeout=0.022))
    events = posts.until(executed(20))
    pool.close(60)
    while not posts.arrived.empty():
        events.append(posts.next())
    fates = [n for one in events if isinstance(one, Executed) for n in [*one.numbers, *(f[0] for f in one.failures)]]
    assert sorted(fates) == list(range(20))
    lost = [one.free for one in events if isinstance(one, ThreadLost)]
    assert lost == sorted(lost, reverse=True)
    assert len(lost) == sum(len(one.failures) for one in events if isinstance(one, Executed))


@pytest.mark.alone
def test_close_does_not_wait_longer_than_told(make: Make, posts: Posts) -> None:
    """A close with an item that runs on returns in time and drops what is queued."""
    started, release = threading.Event(), threading.Event()
    pool = make(1, lambda index, payload, number, attempt: (started.set(), release.wait(60), b"")[2])
    pool.submit(items(0, 1, 2))
    assert started.wait(60)
    began = time.monotonic()
    pool.close(0.1)
    assert time.monotonic() - began < 30
    release.set()
    assert posts.next().numbers == [0]


def test_idle_threads_are_woken_for_every_submit(make: Make, posts: Posts) -> None:
    """One item at a time, a thousand times: no wake-up is lost, whichever thread goes to sleep meanwhile."""
    pool = make(3, lambda index, payload, number, attempt: payload)
    done = 0
    for number in range(1000):
        pool.submit(items(number))
        while done < number + number % 3 // 2:
            done += len(posts.next().numbers)


def test_the_thread_that_hands_over_is_there_before_it_is_needed(make: Make, posts: Posts) -> None:
    """When it is, there may be no memory left to start one: a worker that could not say so would wait for ever."""
    gate = threading.Event()
    pool = make(1, lambda index, payload, number, attempt: b"%d" % gate.wait(60))
    pool.submit(items(0))
    names = {thread.name for thread in threading.enumerate()}
    gate.set()
    posts.until(executed(1))
    assert {"zmqpipeline-worker-ticker", "zmqpipeline-worker-0"} <= names


def test_an_item_that_cannot_be_opened_fails_alone(make: Make, posts: Posts) -> None:
    """Its neighbours in the same message are executed all the same, each with its own number."""
    pool = make(1, lambda index, payload, number, attempt: b"%d:%s" % (number, payload))
    payloads = [pack(b"a"), b"\xc1", pack(b"c")]
    pool.submit(Execute("C", 1, 0.0, range(3), payloads))
    events = posts.until(executed(3))
    assert results(events) == {0: b"0:a", 2: b"2:c"}
    ((number, trouble),) = [failure for event in events for failure in event.failures]
    assert (number, trouble.error) == (1, "zmqpipeline.errors.SerializeError")


@pytest.mark.parametrize("last", [b"", b"\xc1", pack(1) + pack(2)])
def test_values_end_to_end_that_are_fewer_or_more_fail(last: bytes, make: Make, posts: Posts) -> None:
    """No item gets another one's value: those that can be told apart are executed, what is left fails."""
    pool = make(1, lambda index, payload, number, attempt: payload)
    pool.submit(Execute("C", 1, 0.0, range(3), Packed(3, pack(b"a") + pack(b"b") + last)))
    events = posts.until(executed(3))
    assert {n: one for n, one in results(events).items() if n < 2} == {0: b"a", 1: b"b"}
    failed = [number for event in events for number, _ in event.failures]
    assert failed == ([2] if len(last) < 2 else [])


def test_what_is_behind_a_long_item_goes_to_an_idle_thread(make: Make, posts: Posts) -> None:
    """A thread took a share of short items, of which one is long: another thread takes the rest of it."""
    go_on = threading.Event()

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        if number == 3000:
            go_on.wait(60)
        return payload

    pool = make(2, execute)
    pool.submit(items(*range(2000)))
    posts.until(executed(2000))
    pool.submit(items(*range(2000, 4000)))
    events = posts.until(executed(1999))
    done = results(events)
    go_on.set()
    assert sorted(done) == [number for number in range(2000, 4000) if number != 3000]
    assert results(posts.until(executed(1))) == {3000: b"3000"}


def test_results_before_a_long_item_of_a_quick_share_are_not_withheld(make: Make, posts: Posts) -> None:
    """Many items are taken between two looks at the clock; when they become long ones, what is done comes still."""
    go_on = threading.Event()

    def execute(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        if number == 300:
            # long enough for whoever looks after it to have fallen asleep
            time.sleep(0.3)
        elif number == 301:
            go_on.wait(60)
        return payload

    make(1, execute).submit(items(*range(400)))
    done = results(posts.until(executed(301)))
    assert not go_on.is_set()
    assert sorted(done) == list(range(301))
    go_on.set()
    assert len(results(posts.until(executed(99)))) == 99


def test_no_user_code_runs_before_all_threads_have_begun(make: Make, posts: Posts) -> None:
    """It may take what the others need to begin; then whoever starts them would wait for ever."""
    seen: list[int] = []
    before = set(threading.enumerate())

    def look(index: int) -> None:
        new = set(threading.enumerate()) - before
        seen.append(len([one for one in new if one.name.startswith("zmqpipeline-worker-")]))

    make(8, lambda index, item, number, attempt: item, thread_start=look).submit(items(*range(8)))
    found: list[Any] = []
    while len(results(found)) < 8:
        found.append(posts.next())
    # the ticker, too
    assert set(seen) == {9}


def test_a_thread_without_memory_for_our_own_code_gives_the_worker_up(posts: Posts) -> None:
    """What it was at is known to nobody: the worker leaves, and its items go to others, as soon as that can be said."""
    fails = 3

    def post(event: Any) -> None:
        nonlocal fails
        if fails:
            fails -= 1
            raise MemoryError
        posts(event)

    pool = Pool(1, Execution(lambda item: item, lambda: bytes), post)
    pool.submit(items(1))
    assert posts.next() == ThreadLost(0)
    assert not fails
    pool.close(60)


def test_what_an_item_that_took_all_memory_held_is_free_when_it_is_reported(make: Make, posts: Posts) -> None:
    """The frames of its traceback would hold it, and there would be no memory to say that it failed."""
    held: list[weakref.ref[Any]] = []

    class Hoard(bytearray):
        """Something that is known to be gone."""

    def with_credit(index: int, item: bytes, number: int, attempt: int) -> bytes:
        hoard = Hoard(1000)
        held.append(weakref.ref(hoard))
        raise MemoryError

    seen: list[bool] = []
    pool = make(1, with_credit)
    pool._post = lambda event: (seen.append(held[0]() is None), posts(event))  # type: ignore[assignment]
    pool.submit(items(1))
    assert posts.next().failures[0][1].error == "MemoryError"
    assert seen == [True]


@pytest.mark.parametrize("threads", [1, 2])
def test_what_keeps_all_threads_busy_is_told_once(threads: int, make: Make, posts: Posts) -> None:
    """Long items in the midst of short ones: when all threads are at one, and others wait, these are named."""
    gate = threading.Event()
    long = [700, 1400][:threads]

    def call(index: int, payload: bytes, number: int, attempt: int) -> bytes:
        if number in long:
            gate.wait(60)
        return b""

    pool = make(threads, call)
    pool.submit(items(*range(5000)))
    # on a busy machine a short item may look like a long one
    told = [sorted(posts.running.get(timeout=60).numbers)]
    while told[-1] != long:
        told.append(sorted(posts.running.get(timeout=60).numbers))
    # long enough for some looks
    time.sleep(0.2)
    gate.set()
    posts.until(executed(5000))
    while not posts.running.empty():
        told.append(sorted(posts.running.get().numbers))
    assert told.count(long) == 1


def test_a_message_that_is_full_in_bytes_goes_at_once(make: Make, posts: Posts) -> None:
    """Large results of quick items are not gathered for a whole quantum."""
    result = bytes(MAX_BATCH_BYTES // 8)
    pool = make(1, lambda index, payload, number, attempt: result)
    pool.submit(items(*range(400)))
    sizes = [sum(map(len, one.payloads)) for one in posts.until(executed(400)) if isinstance(one, Executed)]
    assert max(sizes) <= 2 * MAX_BATCH_BYTES
    assert len(sizes) > 20
