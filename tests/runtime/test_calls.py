"""Serial and CollectorThread: user code on one thread, in order."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.collecting import Make, command, made_for, total
from tests.support.transports import Posts
from zmqpipeline.protocol.commands import CallFailed, CallFinished, Collect
from zmqpipeline.protocol.events import Collected, FailedCalled, FinishedCalled
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem
from zmqpipeline.runtime.error_text import TEXT_LIMIT, trouble_of
from zmqpipeline.runtime.threads import collecting
from zmqpipeline.runtime.threads.serial import SerialThread
from zmqpipeline.serialization.pack import pack


@pytest.fixture
def posts() -> Posts:
    """Where the gatherer answers."""
    return Posts()


@pytest.fixture
def make(posts: Posts) -> Iterator[Make]:
    """Makes gatherers, closes them, and sees to it that none of their threads is left."""
    yield from made_for(posts)


@pytest.fixture
def one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that are brief are one part, also where the machine is so busy that they take long."""
    monkeypatch.setattr(collecting, "PART_SECONDS", 60.0)


def test_serial_keeps_order_and_survives_what_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    """Calls happen in order on one thread; an exception is logged and the next call happens; close ends the thread."""
    seen: list[object] = []
    serial = SerialThread("test-serial")
    with caplog.at_level(logging.ERROR):
        for number in range(100):
            serial.submit(lambda number=number: seen.append((number, threading.current_thread().name)))  # type: ignore[misc]
            serial.submit(lambda: 1 // 0)
        serial.close(60)
    assert seen == [(number, "test-serial") for number in range(100)]
    assert caplog.text.count("ZeroDivisionError") >= 100
    assert "test-serial" not in {thread.name for thread in threading.enumerate()}


def test_the_parts_of_a_call_come_before_what_was_submitted_since() -> None:
    """A call that returns another one goes on with it; one that raises in a later part ends there."""
    seen: list[str] = []
    serial = SerialThread("test-serial")

    def count(name: str, left: int) -> Callable[[], object] | None:
        seen.append(f"{name}{left}")
        if left == 1 and name == "b":
            raise ValueError(name)
        return (lambda: count(name, left - 1)) if left else None

    for name in "abc":
        serial.submit(lambda name=name: count(name, 2))  # type: ignore[misc]
    serial.close(60)
    assert seen == ["a2", "a1", "a0", "b2", "b1", "c2", "c1", "c0"]


def test_parts_of_one_message_come_before_those_of_the_next(make: Make, posts: Posts) -> None:
    """Slow calls of two messages, then failed items: in the order in which they were asked for."""
    seen: list[bytes] = []
    gatherer = make(lambda task, attempt, number, payload: time.sleep(0.004) or seen.append(payload) or b"")
    for name in (b"a", b"b"):
        gatherer.collect(command("C", 1, (0, 9), [name] * 9))
    gatherer.call_failed(CallFailed([FailedItem("C", 99, 1, "worker", ErrorInfo("E", "e"), b"")]))
    events = posts.until(lambda events: any(isinstance(one, FailedCalled) for one in events))
    assert total([one for one in events if isinstance(one, Collected)]) == 18
    assert seen == [b"a"] * 9 + [b"b"] * 9


@pytest.mark.usefixtures("one_part")
def test_items_are_collected_in_order_with_their_numbers(make: Make, posts: Posts) -> None:
    """Spans and payloads are matched; quick items come back as one part with the spans as they were."""
    seen: list[object] = []
    gatherer = make(lambda *call: seen.append(call) or b"")
    gatherer.collect(command("C", 2, (0, 3, 7, 8), [b"a", b"b", b"c", b"d"]))
    assert posts.next() == Collected("C", (0, 3, 7, 8), [], b"", 2)
    assert seen == [("C", 2, 0, b"a"), ("C", 2, 1, b"b"), ("C", 2, 2, b"c"), ("C", 2, 7, b"d")]


def test_slow_items_come_back_in_parts(make: Make, posts: Posts) -> None:
    """A part ends with the call by which it has lasted 10 ms; together the parts are the whole, in order."""
    gatherer = make(lambda task, attempt, number, payload: time.sleep(0.003) or b"")
    gatherer.collect(command("C", 1, (0, 20), [b""] * 20))
    parts = posts.until(lambda parts: total(parts) >= 20)
    assert 4 <= len(parts) <= 20
    assert [one.spans[0] for one in parts[1:]] == [one.spans[1] for one in parts[:-1]]


@pytest.mark.usefixtures("one_part")
def test_what_the_collector_raises_fails_the_item_alone(make: Make, posts: Posts) -> None:
    """SystemExit, too: the failure comes with trouble and payload, the others are collected."""

    def collect(task: str, attempt: int, number: int, payload: bytes) -> bytes:
        if number == 1:
            raise SystemExit("enough")
        return b"data%d" % number

    make(collect).collect(command("C", 1, (0, 3), [b"a", b"b", b"c"]))
    event = posts.next()
    ((number, trouble, payload),) = event.failures
    assert (number, trouble.error, trouble.message, payload) == (1, "SystemExit", "enough", pack(b"b"))
    assert (event.spans, event.data) == ((0, 1, 2, 3), b"data2")


@pytest.mark.usefixtures("one_part")
def test_ack_data_is_asked_once_a_part(make: Make, posts: Posts) -> None:
    """What ack_data returns goes before the items' data, unless it is empty; what it raises is the part's trouble."""
    answers: list[Any] = [b"all", b"", ValueError("no")]

    def ack_data() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bytes(answer)

    gatherer = make(lambda *call: b"item", ack_data=ack_data)
    for number in range(3):
        gatherer.collect(command("C", 1, (number, number + 1), [b""]))
    first, second, third = posts.next(), posts.next(), posts.next()
    assert [first.data, second.data, third.data] == [b"all", b"item", b"item"]
    assert [first.trouble, second.trouble] == [None, None]
    assert third.trouble.error == "ValueError"


def test_failed_is_told_of_each_item_and_answers_for_each_task(make: Make, posts: Posts) -> None:
    """Each failed item is shown once; the first exception of a task is its trouble; the others are told, too."""
    seen: list[tuple[str, int]] = []

    def failed(item: FailedItem) -> None:
        seen.append((item.task, item.number))
        if item.task == "B":
            raise ValueError(str(item.number))

    items = [FailedItem(task, number, 1, "worker", ErrorInfo("E", "m"), b"") for task, number in
             [("A", 5), ("B", 1), ("A", 4), ("B", 2)]]  # fmt: skip
    make(lambda *call: b"", failed).call_failed(CallFailed(items))
    first, second = posts.next(), posts.next()
    assert seen == [("A", 5), ("B", 1), ("A", 4), ("B", 2)]
    assert first == FailedCalled("A", (4, 6), None)
    assert (second.task, second.spans, second.trouble.message) == ("B", (1, 3), "1")


@pytest.mark.usefixtures("one_part")
def test_finished_is_called_after_what_was_collected_before(make: Make, posts: Posts) -> None:
    """`finished` comes in its turn and gets the command; what it raises is told."""
    calls: list[object] = []

    def finished(command: CallFinished) -> None:
        calls.append(command.ok)
        raise KeyboardInterrupt

    gatherer = make(lambda *call: calls.append("item") or b"", finished=finished)
    gatherer.collect(command("C", 1, (0, 2), [b"", b""]))
    gatherer.submit(lambda: calls.append("other"))
    gatherer.call_finished(CallFinished(ok=True))
    assert isinstance(posts.next(), Collected)
    event = posts.next()
    assert isinstance(event, FinishedCalled)
    assert event.trouble is not None
    assert event.trouble.error == "KeyboardInterrupt"
    assert calls == ["item", "item", "other", True]


@pytest.mark.parametrize(("returned", "data"), [(b"packed", b"packed"), (None, b"")])
def test_what_finished_returns_goes_with_the_answer(
    make: Make, posts: Posts, returned: bytes | None, data: bytes
) -> None:
    """The packed data of the run's last ACK; none for None."""
    make(lambda *call: b"", finished=lambda command: returned).call_finished(CallFinished(ok=True))
    assert posts.next() == FinishedCalled(None, data)


def test_a_trouble_has_its_bounds() -> None:
    """Messages and tracebacks of any size become texts that can be sent."""
    trouble = trouble_of(ValueError("x" * 1_000_000))
    assert len(trouble.message) == TEXT_LIMIT
    assert len(trouble.traceback) <= TEXT_LIMIT


# with a journal -------------------------------------------------------------------------------------------------------


def test_a_result_that_cannot_be_opened_fails_alone(make: Make, posts: Posts) -> None:
    """Its neighbours are collected, each with its own number."""
    seen: list[Any] = []
    gatherer = make(lambda task, attempt, number, value: seen.append((number, value)))
    gatherer.collect(Collect("C", 1, (0, 2, 5, 6), [pack(b"a"), b"\xc1", pack(b"c")]))
    events = [posts.next()]
    while sum(map(len, (event.spans for event in events))) < 4:
        # to say the failure may take longer than a part has
        events.append(posts.next())
    assert seen == [(0, b"a"), (5, b"c")]
    assert [one for event in events for one in event.spans] == [0, 1, 5, 6]
    ((number, trouble, payload),) = [one for event in events for one in event.failures]
    assert (number, trouble.error, payload) == (1, "zmqpipeline.errors.SerializeError", b"\xc1")
