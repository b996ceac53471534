"""What goes wrong, as a distributor tells it to who asks: kinds of failure, lost workers, its own log lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.protocol.test_status import ask
from tests.support.bench import TROUBLE
from tests.support.collector_scene import Scene as CollectorScene
from tests.support.collector_scene import given_up
from tests.support.scenes import Scene, Task
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collection.collecting import FAILING_SECONDS
from zmqpipeline.protocol.delivery.failing import (
    MAX_FAILURES,
    MAX_PAYLOAD,
    MAX_TEXT,
    MAX_TRACEBACK,
    MAX_TRACEBACKS,
    merged,
    sent_kinds,
    statuses,
)
from zmqpipeline.protocol.delivery.failure_kinds import FailedItems
from zmqpipeline.protocol.delivery.lost_workers import MAX_TOLD, LostWorkers


def kind(items: int, stage: str = "worker", payload: bytes = b"", place: str = "app.py:3 work") -> m.FailedKind:
    """So many items of A that failed alike."""
    return m.FailedKind(items, m.FailedItem("A", 7, 1, stage, replace(TROUBLE, place=place), payload))


def test_what_both_know_counts_once() -> None:
    """The one that knows more was there for longer; an item that one of them has kept is shown."""
    own = FailedItems()
    own.add(kind(0).first, count=3)
    own.add(kind(0, place="app.py:9 work").first, count=9)
    told = [kind(5, payload=b"x"), kind(2, "collector")]
    found = merged(own.kinds, told)
    assert [(one.items, one.first.stage, one.first.payload) for one in found] == [
        (9, "worker", b""),
        (5, "worker", b"x"),
        (2, "collector", b""),
    ]


def test_what_is_told_is_bounded() -> None:
    """Kinds, texts, tracebacks and items; those beyond a hundred kinds are one kind with words of its own."""
    own = FailedItems()
    trouble = m.ErrorInfo("E" * 5000, "m" * 5000, "t" * 5000 + "end", "p" * 5000)
    for number in range(300):
        own.add(m.FailedItem("A", number, 1, "worker", replace(trouble, error=f"{number}" + "E" * 900), b"x" * 5000))
    told = statuses(merged(own.kinds, []), lambda packed: "y" * 9000)
    assert len(told) == MAX_FAILURES
    assert (told[0].error, told[0].items) == ("other errors", 200)
    assert sum(bool(one.traceback) for one in told) <= MAX_TRACEBACKS
    assert all(len(one.traceback) <= MAX_TRACEBACK for one in told)
    assert all(len(text) <= MAX_TEXT for one in told for text in (one.error, one.message, one.place, one.item))
    sent = sent_kinds(own.kinds)
    assert all(len(one.first.payload) <= MAX_PAYLOAD for one in sent)
    assert all(len(one.first.trouble.message) <= MAX_TEXT for one in sent)


def test_a_distributor_tells_why_items_failed() -> None:
    """What workers say, and what its collector says; the newest word of that one counts."""
    scene = Scene(Task("A", total=9))
    worker = scene.worker(slots=3)
    scene.produce(0, 1, 2)
    worker.fails(1, 2)
    scene.ack(0, failed=(1, 3))
    (told,) = ask(scene).failures
    assert (told.task, told.stage, told.error, told.items, told.number) == ("A", "worker", "ValueError", 2, 1)
    scene.collector.says(m.Failing("run", [kind(1, "collector", b"packed")]))
    scene.collector.says(m.Failing("other", []))
    both = ask(scene).failures
    assert [(one.stage, one.items, one.item) for one in both] == [
        ("worker", 2, repr(b"1")),
        ("collector", 1, repr(b"packed")),
    ]


def test_a_lost_worker_is_told_with_why_it_was_lost() -> None:
    """The newest first, so many at most, and how many there were in all."""
    scene = Scene(Task("A"))
    hand = scene.worker()
    hand.is_lost()
    scene.bench.now += 5
    told = ask(scene)
    assert told.lost_workers == 1
    (lost,) = told.lost
    assert (lost.task, lost.why) == ("A", "its connection broke")
    assert lost.seconds == pytest.approx(5, abs=1)
    many = LostWorkers(supervised=False)
    for number in range(MAX_TOLD + 10):
        many.lost(0, "Lost ({how}).", float(number), worker=f"box/{number}", task="A")
    assert many.count == MAX_TOLD + 10
    last = many.last(100.0)
    assert (len(last), last[0].worker, last[0].seconds) == (MAX_TOLD, f"box/{MAX_TOLD + 9}", 100.0 - MAX_TOLD - 9)


# what the collector says ----------------------------------------------------------------------------------------------


def test_a_collector_says_why_items_failed_at_most_once_a_second() -> None:
    """The first at once; those that follow together; nothing if there is nothing new."""
    scene = CollectorScene()
    scene.results(1, 2)
    scene.collected(2, failing=[1])
    (told,) = scene.bench.said(m.Failing)
    assert [(one.items, one.first.stage, one.first.payload) for one in told.kinds] == [(1, "collector", b"r1")]
    scene.distributor.says(m.GiveUp("run", given_up(5, 6)))
    assert scene.bench.said(m.Failing) == []
    scene.bench.wait(FAILING_SECONDS + 0.1)
    told = scene.bench.said_one(m.Failing)
    assert [(one.items, one.first.stage) for one in told.kinds] == [(2, "worker"), (1, "collector")]
    scene.bench.wait(FAILING_SECONDS + 0.1)
    assert scene.bench.said(m.Failing) == []


def test_a_distributor_that_comes_later_is_told_all_of_it() -> None:
    """It takes over the run, and has seen no item fail."""
    scene = CollectorScene()
    scene.distributor.says(m.GiveUp("run", given_up(5, 6)))
    scene.bench.wait(FAILING_SECONDS + 0.1)
    scene.begin()
    assert [one.items for one in scene.bench.said_one(m.Failing).kinds] == [2]
