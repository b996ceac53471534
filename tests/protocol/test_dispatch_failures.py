"""Handing out, law by law: what failed, what was lost with a worker, and what a worker may claim."""

from __future__ import annotations

import pytest

from tests.support.bench import TROUBLE, Stranger
from tests.support.scenes import Scene, Task
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.hand_out import RELEASE_SECONDS


def test_a_failed_item_is_retried_after_its_back_off() -> None:
    """With retries left an item comes again as the next attempt, after backoff, doubled each time, with jitter."""
    scene = Scene(Task("A", retries=2, backoff=4.0))
    worker = scene.worker()
    scene.produce(0)
    worker.fails(0)
    assert worker.released() == [0]
    assert scene.bench.said(m.GiveUp) == []
    scene.produce(state="gated")
    worker.report()
    scene.bench.wait(2.9)
    assert worker.given() == []
    scene.bench.wait(2.2)
    assert worker.given() == [0]
    assert worker.was_told(m.Work)[0].attempt == 2
    worker.fails(0, attempt=2)
    worker.report()
    scene.bench.wait(5.9)
    assert worker.given() == []
    scene.bench.wait(4.2)
    assert worker.was_told(m.Work)[0].attempt == 3
    worker.fails(0, attempt=3)
    (item,) = scene.bench.said_one(m.GiveUp).failures
    assert (item.attempts, item.stage, item.trouble, item.payload) == (3, "worker", TROUBLE, b"0")


def test_a_failure_said_again_counts_once() -> None:
    """A failure that its worker repeats is answered with its release, and not counted again."""
    scene = Scene(Task("A", retries=1))
    worker = scene.worker()
    scene.produce(0)
    worker.fails(0)
    worker.fails(0)
    assert worker.released() == [0]
    assert scene.bench.said(m.GiveUp) == []


def test_a_retry_and_its_release_that_were_lost_together_are_mended() -> None:
    """A worker that keeps reporting the failure before has neither got the release nor the retry: both come again."""
    scene = Scene(Task("A", retries=1, backoff=0.0))
    worker = scene.worker()
    scene.produce(0)
    worker.hears()
    worker.fails(0)
    scene.bench.wait(0.01)
    worker.report(held=(0, 1), done=(0, 1))
    worker.fails(0)
    assert worker.released() == [0]
    assert worker.given() == [0]
    assert worker.was_told(m.Work)[0].attempt == 2


def test_a_given_up_item_is_said_until_it_is_acknowledged() -> None:
    """A lost GiveUp is mended by the next answer of the collector; the log names the item and the error."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    worker.fails(0)
    assert "Item 0 of 'A' failed for good after 1 attempt(s) (worker): ValueError: as planned" in scene.bench.logged()
    scene.holding("run")
    assert scene.bench.said_one(m.GiveUp).failures[0].number == 0
    scene.ack(failed=(0, 1))
    scene.holding("run", m.TaskProgress("A", (), (0, 1)), count=1)
    assert scene.bench.said(m.GiveUp) == []


def test_an_item_that_kills_its_workers_is_given_up() -> None:
    """At crash_limit losses while it may have been running it is failed; in between it goes to free slots only."""
    scene = Scene(Task("A", crash_limit=2))
    worker = scene.worker()
    scene.produce(0)
    busy = scene.worker(slots=1, window=5)
    scene.produce(1)
    busy.report(window=5, backlog=1)
    worker.is_lost()
    assert busy.given() == [], "its one thread is busy: a suspect is never prefetched"
    free = scene.worker()
    assert free.given() == [0]
    assert free.was_told(m.Work)[0].trial
    free.report(backlog=1)
    free.is_lost()
    (item,) = scene.bench.said_one(m.GiveUp).failures
    assert (item.number, item.stage, item.attempts, item.trouble.error) == (0, "crash", 2, "WorkerLost")


def test_an_innocent_neighbour_of_a_killer_is_not_given_up() -> None:
    """On its last try an item runs alone: a worker that holds others gets no more until it is free, then it alone."""
    scene = Scene(Task("A", crash_limit=2))
    doomed = scene.worker(slots=2)
    scene.produce(0, 1)
    busy = scene.worker(slots=2)
    scene.produce(2)
    assert busy.given() == [2]
    doomed.is_lost()
    assert busy.given() == [], "it runs an item: neither gets into its free thread"
    scene.produce(3)
    assert busy.given() == [], "it is kept free"
    busy.report(window=2, backlog=0)
    assert busy.given() == [0], "it has nothing to do: what the collector has not acknowledged cannot be taken with it"
    scene.ack(2)
    busy.report(window=2, backlog=1)
    assert busy.given() == [], "it has a free thread, and stays alone"
    other = scene.worker(slots=2)
    assert other.given() == [1], "another free worker takes the next one"
    busy.report(window=2, backlog=0)
    assert busy.given() == [3]
    scene.ack(0)
    other.report(window=2, backlog=1)
    other.is_lost()
    assert [item.number for item in scene.bench.said_one(m.GiveUp).failures] == [1]


def test_what_a_lost_worker_was_done_with_is_no_suspect() -> None:
    """A result that was not acknowledged is executed again, but nobody is blamed for it."""
    scene = Scene(Task("A", crash_limit=1))
    worker = scene.worker(window=2)
    scene.produce(0, 1)
    worker.report(window=2, backlog=1, held=(0, 2), done=(0, 1))
    worker.is_lost()
    assert [item.number for item in scene.bench.said_one(m.GiveUp).failures] == [1]
    assert scene.machine.snapshot().waiting == {"A": 1}


def test_a_late_result_of_a_lost_worker_still_counts() -> None:
    """The ACK ends the item, wherever it is now, and its present worker may drop it."""
    scene = Scene()
    first = scene.worker()
    scene.produce(0)
    second = scene.worker()
    first.is_lost()
    assert second.given() == [0]
    scene.ack(0)
    scene.bench.wait(RELEASE_SECONDS)
    assert second.released() == [0]


def test_an_ack_for_an_item_that_was_never_sent_takes_it_off_the_queue() -> None:
    """After a restart a result may be collected before its item is handed out again: then it is not handed out."""
    scene = Scene(running=False)
    scene.connect()
    scene.holding("run")
    scene.holding("run")
    worker = scene.worker()
    scene.produce(0, 1)
    scene.ack(1)
    worker.report(window=5)
    assert worker.given() == []
    assert scene.machine.snapshot().waiting == {"A": 0}


def test_an_ack_for_what_was_never_sent_in_a_run_of_our_own_is_a_lie() -> None:
    """Nobody can have done it: it is told once, and the item is handed out all the same."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0, 1)
    scene.ack(1)
    assert "never sent" in scene.bench.logged()
    scene.ack(2**62 - 1)
    assert scene.bench.logged() == ""
    worker.report(window=5)
    assert worker.given() == [1]
    scene.ack(0)
    scene.ack(1)
    assert scene.machine.tasks["A"].ledger.collected.spans() == (0, 2)


@pytest.mark.parametrize("body", [
    m.ItemsReturned("run", "A", (0, 2**62)),
    m.ItemsFailed("run", [m.FailedItem("A", number, 1, "worker", TROUBLE, b"") for number in (0, 2**62)]),
    m.WorkerReport("run", "A", 1, 5, 0, False, (0, 2**62), (0, 2**62), "box", 1),
    m.WorkerReport("run", "A", 1, 5, 0, False, (5, 6, 7, 2**62), (), "x" * 4000, 1),
], ids=lambda body: type(body).__name__)  # fmt: skip
def test_a_worker_that_claims_all_there_is_gets_and_hurts_nothing(body: m.Message) -> None:
    """Its words are taken for what it really holds, which is nothing; another one's items stay its own."""
    scene = Scene(Task("A", retries=0))
    worker = scene.worker()
    scene.produce(0)
    liar = scene.worker(window=0)
    liar.says(body)
    liar.is_lost()
    ledger = scene.machine.tasks["A"].ledger
    assert ledger.is_with(worker.link.incarnation, 0)
    assert ledger.leased == 1
    assert not ledger.given_up
    assert not ledger._claims


def test_claims_on_another_distributors_items_are_believed_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows which numbers there were: so many are believed, and no more kept for any claim."""
    monkeypatch.setattr("zmqpipeline.protocol.delivery.ledger.MAX_CLAIMS", 10_000)
    scene = Scene(running=False)
    scene.connect()
    scene.holding("run")
    scene.holding("run")
    scene.worker().says(m.WorkerReport("run", "A", 1, 5, 0, False, (7, 2**62), (), "box", 1))
    assert len(scene.machine.tasks["A"].ledger._claims) == 10_000


def test_one_connection_speaks_for_one_process() -> None:
    """A peer that brings a new name with each message makes no workers, and is told of once."""
    scene = Scene()
    for count in range(50):
        stranger = Stranger(scene.bench, "workers", b"s", who=b"w%d" % count)
        stranger.says(m.WorkerReport("run", "A", 1, 5, 0, False, (), (), "box", 1))
    assert "more than one process" in "".join(one.text for one in scene.bench.all if isinstance(one, c.Log))
    assert scene.bench.logged() == ""
    assert scene.machine.snapshot().workers == {"A": 1}
