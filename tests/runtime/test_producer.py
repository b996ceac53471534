"""Producer: the source of a task on its own thread."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.patience import await_threads
from tests.support.transports import Posts
from zmqpipeline.protocol.commands import Produce
from zmqpipeline.protocol.events import Produced
from zmqpipeline.runtime.threads.source import Begun, Exhausted, Gated, Producer, Step, steps
from zmqpipeline.runtime.threads.ticker import INTERVAL

Make = Callable[[Callable[[Produce], Step]], Producer]


@pytest.fixture
def posts() -> Posts:
    """Where the producer answers."""
    return Posts()


@pytest.fixture
def make(posts: Posts) -> Iterator[Make]:
    """Makes producers, closes them, and sees to it that none of their threads is left."""
    before = set(threading.enumerate())
    made: list[Producer] = []

    def make_producer(step: Callable[[Produce], Step]) -> Producer:
        made.append(Producer("C", steps(step), posts))
        return made[-1]

    yield make_producer
    for producer in made:
        producer.close(60)
    await_threads(before)


def ask(count: int, address: str = "w1") -> Produce:
    """A Produce of the task C."""
    return Produce("C", count, address, "", 0, b"")


def ended(events: list[Any]) -> bool:
    """Whether the last event ends its Produce."""
    return bool(events) and events[-1].state != "more"


def payloads(events: list[Any]) -> list[bytes]:
    """All items, in order."""
    return [payload for one in events for payload in one.payloads]


def in_one(events: list[Any]) -> Produced:
    """The parts of an answer as one: on a busy machine, a part may be handed over at any point."""
    return Produced("C", events[-1].state, payloads(events), None, events[-1].trouble)


def counting(end: int | None = None, error: BaseException | None = None) -> Callable[[Produce], Step]:
    """A source of numbers; after `end` of them it raises `error`."""
    numbers = iter(range(10**9))

    def step(command: Produce) -> bytes:
        number = next(numbers)
        if number == end and error is not None:
            raise error
        return b"%d" % number

    return step


def test_a_quick_source_answers_in_one_part(make: Make, posts: Posts) -> None:
    """As many items as asked for, in order, across several Produces; the state is ready."""
    producer = make(counting())
    for start in range(0, 500, 100):
        producer.produce(ask(100))
        events = posts.until(ended)
        assert payloads(events) == [b"%d" % number for number in range(start, start + 100)]
        assert events[-1].state == "ready"
        assert events[-1].keys is None


def test_the_step_is_told_the_command(make: Make, posts: Posts) -> None:
    """The step gets the Produce that it answers, so that `handle` knows the worker's address."""
    producer = make(lambda command: command.address.encode())
    producer.produce(ask(2, "one"))
    producer.produce(ask(1, "two"))
    assert payloads(posts.until(lambda events: len(payloads(events)) == 3)) == [b"one", b"one", b"two"]


def test_a_long_answer_comes_in_parts_of_about_2_ms(make: Make, posts: Posts) -> None:
    """A source that is slow all along is handed over on the way; no item is missing or out of order."""
    numbers = iter(range(1000))
    producer = make(lambda command: time.sleep(0.0004) or b"%d" % next(numbers))
    producer.produce(ask(100))
    events = posts.until(ended)
    assert payloads(events) == [b"%d" % number for number in range(100)]
    assert len(events) > 5
    assert events[-1].state == "ready"


@pytest.mark.alone
def test_what_is_there_is_handed_over_while_the_source_blocks(make: Make, posts: Posts) -> None:
    """Three items and then a source that blocks: they are there soon, not when it goes on."""
    release = threading.Event()
    stuck_since: list[float] = []

    numbers = iter(range(100))

    def step(command: Produce) -> bytes:
        number = next(numbers)
        if number == 3:
            stuck_since.append(time.perf_counter())
            release.wait(60)
        return b"%d" % number

    producer = make(step)
    producer.produce(ask(5))
    early = posts.until(lambda events: len(payloads(events)) == 3)
    assert time.perf_counter() - stuck_since[0] < 30
    assert not release.is_set()
    assert {one.state for one in early} == {"more"}
    release.set()
    assert payloads(posts.until(ended)) == [b"3", b"4"]


@pytest.mark.alone
def test_parts_take_longer_while_steps_are_quick(make: Make, posts: Posts) -> None:
    """Who got the first part is busy with it: steps of 100 us, 100 ms in all, are a dozen parts, and not fifty."""
    numbers = iter(range(1000))

    def step(command: Produce) -> bytes:
        end = time.thread_time() + 0.0001
        while time.thread_time() < end:
            pass
        return b"%d" % next(numbers)

    began = time.perf_counter()
    make(step).produce(ask(1000))
    sizes = [len(one.payloads) for one in posts.until(ended)]
    spent = time.perf_counter() - began
    assert sum(sizes) == 1000
    assert sizes[0] < max(sizes)
    # a busy machine makes steps take longer, and each pause of the thread ends a part: so it is parts a second
    assert len(sizes) < spent / INTERVAL / 2


def test_parts_stay_in_order_when_the_source_blocks_now_and_then(make: Make, posts: Posts) -> None:
    """With the producing thread and its helper handing over in turns, the items keep their order."""
    numbers = iter(range(10**6))

    def step(command: Produce) -> bytes:
        number = next(numbers)
        if number % 7 == 0:
            time.sleep(0.0021)
        return b"%d" % number

    producer = make(step)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(10):
            producer.produce(ask(100))
        events = posts.until(lambda events: sum(one.state == "ready" for one in events) == 10)
    finally:
        sys.setswitchinterval(interval)
    assert payloads(events) == [b"%d" % number for number in range(1000)]
    for end, one in enumerate(events, 1):
        assert one.state == "more" or len(payloads(events[:end])) % 100 == 0


def test_a_slow_post_is_not_overtaken() -> None:
    """While the helper's part is still being posted, the thread that produces waits with the next part."""
    events: list[Any] = []
    posting, done = threading.Event(), threading.Event()

    def post(event: Any) -> None:
        if event.state == "more":
            posting.set()
            time.sleep(0.1)
        events.append(event)
        if event.state == "ready":
            done.set()

    numbers = iter(range(2))

    def step(command: Produce) -> bytes:
        number = next(numbers)
        if number == 1:
            posting.wait(60)
        return b"%d" % number

    producer = Producer("C", steps(step), post)
    producer.produce(ask(2))
    assert done.wait(60)
    producer.close(60)
    assert events[0] == Produced("C", "more", [b"0"])
    assert in_one(events) == Produced("C", "ready", [b"0", b"1"])


def test_the_gate_ends_an_answer_for_now(make: Make, posts: Posts) -> None:
    """Gated: what was there before counts, and the next Produce goes on from there."""
    numbers = iter(range(10))
    gate = [True, True, False, True]

    def step(command: Produce) -> bytes:
        if not gate.pop(0):
            raise Gated
        return b"%d" % next(numbers)

    producer = make(step)
    producer.produce(ask(5))
    assert in_one(posts.until(ended)) == Produced("C", "gated", [b"0", b"1"])
    producer.produce(ask(1))
    assert in_one(posts.until(ended)) == Produced("C", "ready", [b"2"])


@pytest.mark.parametrize(("last", "expected"), [(None, [b"0", b"1"]), (b"last", [b"0", b"1", b"last"])])
def test_an_exhausted_source_ends_with_or_without_a_last_item(
    last: bytes | None, expected: list[bytes], make: Make, posts: Posts
) -> None:
    """Exhausted: the items before it count, and the one that it carries."""
    make(counting(2, Exhausted(last))).produce(ask(5))
    assert in_one(posts.until(ended)) == Produced("C", "exhausted", expected)


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit("broken")])
def test_a_source_that_raises_has_failed_after_its_items(error: BaseException, make: Make, posts: Posts) -> None:
    """Failed: the items before the exception count, the trouble tells type, message and where in the user's code."""
    make(counting(3, error)).produce(ask(5))
    events = posts.until(ended)
    assert payloads(events) == [b"0", b"1", b"2"]
    assert events[-1].state == "failed"
    trouble = events[-1].trouble
    assert (trouble.error, trouble.message) == (type(error).__name__, "broken")
    assert "test_producer.py" in trouble.traceback
    assert "runtime/threads/source.py" not in trouble.traceback


def test_keys_travel_beside_the_items(make: Make, posts: Posts) -> None:
    """A step that returns pairs gives payloads and digests of equal number, the last item's included."""
    numbers = iter(range(10))

    def step(command: Produce) -> Step:
        number = next(numbers)
        if number == 2:
            raise Exhausted((b"2", b"k2"))
        return b"%d" % number, b"k%d" % number

    make(step).produce(ask(5))
    events = posts.until(ended)
    assert in_one(events) == Produced("C", "exhausted", [b"0", b"1", b"2"])
    assert [key for one in events for key in one.keys or ()] == [b"k0", b"k1", b"k2"]


@pytest.mark.alone
def test_close_does_not_wait_for_a_blocked_source_longer_than_told(make: Make, posts: Posts) -> None:
    """A source that never returns costs a close its time-out, not for ever."""
    release = threading.Event()
    producer = make(lambda command: b"%d" % release.wait(60))
    producer.produce(ask(1))
    began = time.monotonic()
    producer.close(0.1)
    assert time.monotonic() - began < 30
    release.set()
    assert payloads(posts.until(ended)) == [b"1"]


def test_a_source_that_was_quick_and_blocks_is_handed_over(make: Make, posts: Posts) -> None:
    """Many steps are taken at once by then: what there is comes after some milliseconds all the same."""
    go_on = threading.Event()
    numbers = iter(range(10**9))

    def step(command: Produce) -> bytes:
        number = next(numbers)
        if number in (3000, 3001):
            # long enough for whoever looks after it to have fallen asleep
            go_on.wait(0.3 if number == 3000 else 60)
        return b"%d" % number

    producer = make(step)
    producer.produce(ask(5000))
    events = posts.until(lambda events: len(payloads(events)) == 3001)
    assert not go_on.is_set()
    go_on.set()
    events += posts.until(ended)
    assert payloads(events) == [b"%d" % number for number in range(5000)]


def test_what_is_done_is_passed_over_without_being_kept(make: Make, posts: Posts) -> None:
    """So many steps are taken first, and only counted; the answer says how many they were."""
    numbers = iter(range(1000))
    producer = make(lambda command: b"%d" % next(numbers))
    producer.produce(Produce("C", 2, "w1", "", 0, b"", over=700))
    events = posts.until(ended)
    assert sum(one.over for one in events) == 700
    assert payloads(events) == [b"700", b"701"]


def test_a_source_that_ends_while_it_passes_over_says_how_far_it_came(make: Make, posts: Posts) -> None:
    """It is exhausted; what it has passed over counts."""
    numbers = iter(range(5))

    def step(command: Produce) -> bytes:
        for number in numbers:
            return b"%d" % number
        raise Exhausted

    make(step).produce(Produce("C", 2, "w1", "", 0, b"", over=700))
    events = posts.until(ended)
    assert (sum(one.over for one in events), payloads(events), events[-1].state) == (5, [], "exhausted")


def test_a_source_that_began_behind_what_is_done_takes_no_step_for_it(make: Make, posts: Posts) -> None:
    """It was told how many are done: the first that are to be passed over cost nothing, later ones a step each."""
    numbers = iter(range(700, 1000))
    producer = make(Begun(lambda command: b"%d" % next(numbers), 700))
    producer.produce(Produce("C", 1, "w1", "", 0, b"", over=700))
    assert payloads(posts.until(ended)) == [b"700"]
    producer.produce(Produce("C", 1, "w1", "", 0, b"", over=9))
    assert payloads(posts.until(ended))[-1] == b"710"
