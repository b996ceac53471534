"""Who may have killed a worker: what had begun is a suspect, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.scenes import Hand, Scene, Task
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.delivery.suspects import FEW, LastWord

MEBIBYTE = 1 << 20


def says(hand: Hand, backlog: int, **fields: m.Spans) -> None:
    """A report that is not a full one."""
    body = m.WorkerReport("run", hand.task, hand.slots, 9, backlog, False, None, None, "", 0)
    hand.says(replace(body, **fields))


def suspects(scene: Scene) -> list[int]:
    """What is held to have been lost with a worker while it may have been running."""
    return sorted(scene.machine.tasks["A"].ledger.tried())


def given(items: int, slots: int = 1, **spec: int) -> tuple[Scene, Hand]:
    """A worker with so many items."""
    scene = Scene(Task("A", **spec))
    hand = scene.worker(slots=slots, window=items)
    scene.produce(*range(items))
    assert hand.given() == list(range(items))
    return scene, hand


def test_what_a_report_says_is_done_is_no_suspect() -> None:
    """Each report says it, not only the full ones."""
    scene, hand = given(3)
    says(hand, 1, done=(0, 2))
    hand.is_lost()
    assert suspects(scene) == [2]


def test_nothing_is_suspected_of_a_worker_that_had_finished_all() -> None:
    """It had nothing unfinished when it spoke last: what is not acknowledged comes again, and is blamed for nothing."""
    scene, hand = given(3)
    says(hand, 0)
    hand.is_lost()
    assert suspects(scene) == []
    assert scene.machine.snapshot().waiting == {"A": 3}


def test_only_what_keeps_the_threads_busy_is_suspected() -> None:
    """All threads are at items that take long: nothing behind these has begun, and no attempt is counted."""
    scene, hand = given(9, slots=2, crash_limit=1)
    says(hand, 9, begun=(0, 1, 4, 5))
    hand.is_lost()
    assert sorted(item.number for item in scene.bench.said_one(m.GiveUp).failures) == [0, 4]
    other = scene.worker(slots=9)
    assert other.given() == [1, 2, 3, 5, 6, 7, 8]
    assert {work.attempt for work in other.was_told(m.Work)} == {1}


@pytest.mark.parametrize("how", ["ack", "failure", "report"])
def test_when_one_of_these_has_ended_others_may_have_begun(how: str) -> None:
    """Whoever hears first that the thread is free, takes the word back."""
    scene, hand = given(3)
    says(hand, 3, begun=(0, 1))
    if how == "ack":
        scene.ack(0)
    elif how == "failure":
        hand.fails(0)
    else:
        says(hand, 2)
    hand.is_lost()
    assert {1, 2} <= set(suspects(scene))


def test_what_an_idle_thread_is_sent_may_have_begun() -> None:
    """The word of a worker with a free thread holds until the next item goes to it."""
    scene, hand = given(1, slots=2)
    says(hand, 1, begun=(0, 1))
    scene.produce(1)
    hand.is_lost()
    assert suspects(scene) == [0, 1]


def test_nothing_is_suspected_of_a_worker_that_is_at_its_init_functions() -> None:
    """Also what it is sent after that word; it dies of them, and no item counts that, however often it happens."""
    scene = Scene(Task("A", crash_limit=1))
    hand = scene.worker(slots=2, window=4)
    says(hand, 0, begun=())
    scene.produce(0, 1, 2)
    for _ in range(6):
        assert sorted(hand.given()) == [0, 1, 2]
        says(hand, 3, begun=())
        hand.is_lost()
        assert suspects(scene) == []
        hand = scene.worker(slots=2, window=4)
    assert scene.bench.said(m.GiveUp) == []


def test_what_is_on_trial_and_was_not_heard_of_is_not_blamed_again() -> None:
    """It begins only when the distributor has heard that it is there: until then its worker's death is not its own."""
    scene, hand = given(1, crash_limit=2)
    hand.is_lost()
    for _ in range(3):
        unheard = scene.worker()
        assert unheard.given() == [0]
        assert unheard.was_told(m.Work)[0].trial
        unheard.is_lost()
        assert scene.bench.said(m.GiveUp) == []
    heard = scene.worker()
    heard.report(backlog=1, held=(0, 1), done=())
    heard.is_lost()
    (item,) = scene.bench.said_one(m.GiveUp).failures
    assert (item.stage, item.attempts) == ("crash", 2)


def test_a_crowd_is_tried_in_groups_then_one_by_one() -> None:
    """Ten thousand items, one of which kills at once: the third death names it, and no other is given up."""
    ledger = Ledger(Task("A", crash_limit=3))
    ledger.add([b"x"] * 10_000)
    killer, deaths, given_up = 5000, 1, []
    while ledger.waiting:
        assert ledger.take(b"w", 3000, 1, MEBIBYTE) is not None
    given_up += ledger.lost(b"w", crashed=True, word=LastWord(slots=1))[1]
    while ledger.waiting:
        who = b"w%d" % deaths
        batch = ledger.take_alone(who) or ledger.take(who, 3000, 1, MEBIBYTE)
        assert batch is not None
        numbers = numbers_of(batch.spans)
        assert len(numbers) <= 100 or not batch.on_trial
        if killer in numbers:
            deaths += 1
            given_up += ledger.lost(who, crashed=True, word=LastWord(done=RangeSet(), slots=1))[1]
        else:
            ledger.acknowledge(batch.spans, ())
        ledger.check()
    assert deaths == 3
    assert [item.number for item in given_up] == [killer]


@pytest.mark.parametrize("limit", [1, 2])
def test_nobody_is_given_up_before_it_is_known_who_it_was(limit: int) -> None:
    """More had begun than threads: each is tried by itself, even if the limit is reached."""
    ledger = Ledger(Task("A", crash_limit=limit))
    ledger.add([b"x"] * 3)
    ledger.take(b"w", 3, 1, MEBIBYTE)
    assert ledger.lost(b"w", crashed=True, word=LastWord(slots=2)) == (3, [])
    batch = ledger.take_alone(b"v")
    assert batch is not None
    assert numbers_of(batch.spans) == [0]
    if limit == 1:
        assert [one.number for one in ledger.lost(b"v", crashed=True, word=LastWord(slots=1))[1]] == [0]


def test_few_more_than_threads_are_tried_one_by_one_at_once() -> None:
    """A group is for a crowd."""
    for count, group in ((4, 0), (4 + FEW, 0), (5 + FEW, 4)):
        assert LastWord(slots=4).group_of(range(count)) == group


def test_a_worker_that_comes_back_clears_its_crowd() -> None:
    """Its connection broke, it did not die: nobody is tried in groups for that."""
    ledger = Ledger(Task("A"))
    ledger.add([b"x"] * 100)
    ledger.take(b"w", 100, 1, MEBIBYTE)
    ledger.lost(b"w", crashed=True, word=LastWord(slots=1))
    assert ledger.has_alone
    ledger.reconcile(b"w", RangeSet(), 9)
    assert not ledger.has_alone
    assert not ledger.tried()
    ledger.check()


def test_a_given_up_item_that_the_collector_has_is_not_told_again() -> None:
    """It says so at once, while `failed` is called; another collector process is told anew."""
    scene, hand = given(1)
    hand.fails(0)
    scene.holding("run")
    assert scene.bench.said(m.GiveUp)
    scene.collector.says(m.Noted("run", "A", (0, 1)))
    scene.holding("run")
    assert scene.bench.said(m.GiveUp) == []
    scene.collector = type(scene.collector)(scene.bench, "acks", who=b"another")
    scene.holding("run")
    assert [one.number for one in scene.bench.said_one(m.GiveUp).failures] == [0]


def test_a_retry_is_no_trial() -> None:
    """An item whose function raised was lost with nobody."""
    scene, hand = given(1, retries=1)
    hand.fails(0)
    scene.bench.wait(3.0)
    hand.report(1)
    (work,) = hand.was_told(m.Work)
    assert (work.attempt, work.trial) == (2, False)
