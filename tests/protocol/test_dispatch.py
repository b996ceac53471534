"""Handing out, law by law: credit, demand, losses, releases."""

from __future__ import annotations

from tests.support.bench import TROUBLE
from tests.support.scenes import Hand, Scene, Task
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.hand_out import RELEASE_ITEMS, RELEASE_SECONDS
from zmqpipeline.protocol.fields import MAX_NUMBER

# demand ---------------------------------------------------------------------------------------------------------------


def test_the_source_is_asked_for_no_more_than_there_is_room_for() -> None:
    """Never ahead of demand: the window of one worker with credit, one question at a time."""
    scene = Scene()
    scene.worker(slots=2, window=5)
    assert scene.bench.one(c.Produce).count == 5
    scene.worker(slots=1)
    assert scene.bench.of(c.Produce) == []
    scene.produce(0, 1, 2, 3, 4)
    assert scene.bench.one(c.Produce).count == 1


def test_what_is_produced_goes_to_the_worker_it_was_produced_for() -> None:
    """`handle` knew the worker's address, so that worker gets the items, though another became with credit before."""
    scene = Scene()
    first, second = scene.worker(), scene.worker()
    scene.produce(0)
    assert (first.given(), second.given()) == ([0], [])
    scene.produce(1)
    assert second.given() == [1]


def test_parts_are_sent_as_they_come() -> None:
    """A slow source's items go out one by one; the question is open until its last part."""
    scene = Scene()
    worker = scene.worker(window=3)
    scene.produce(0, state="more")
    assert worker.given() == [0]
    assert scene.bench.of(c.Produce) == []
    scene.produce(1)
    assert worker.given() == [1]
    assert scene.bench.one(c.Produce).count == 1


def test_credit_is_what_was_reported_less_what_was_sent_since() -> None:
    """A report that does not know of the last work does not ask for it a second time."""
    scene = Scene()
    worker = scene.worker(window=2)
    link = worker.hears()
    known = link.received
    scene.produce(0, 1)
    link.received = known
    scene.bench.last = []
    scene.bench.tell(
        e.Received(
            worker.peer,
            m.Envelope(link.incarnation, link.peer, link.sent + 1, known, m.WorkerReport(
                "run", "A", 1, 2, 0, False, None, None, "host", 0)),
        )
    )  # fmt: skip
    link.sent += 1
    assert scene.bench.of(c.Produce) == []
    worker.report(window=2, backlog=1)
    assert scene.bench.one(c.Produce).count == 1


def test_a_worker_that_speaks_of_another_run_gets_nothing_until_it_has_heard_of_this_one() -> None:
    """It is welcomed, whatever it had said before; what it says then counts."""
    scene = Scene()
    worker = scene.worker(window=3)
    assert scene.bench.one(c.Produce).count == 3
    worker.report(window=3, run="other")
    assert [word.run for word in worker.was_told(m.Welcome)] == ["run"]
    scene.machine.check()
    scene.produce(0)
    assert worker.given() == []
    worker.report(window=3)
    assert worker.given() == [0]
    scene.machine.check()


def test_what_a_worker_holds_is_bounded() -> None:
    """Unacknowledged results count: at max_held_items nothing more is sent, until an ACK lets go of some."""
    scene = Scene(options=Options(max_held_items=3))
    worker = scene.worker(window=10)
    assert scene.bench.one(c.Produce).count == 3
    scene.produce(0, 1, 2)
    worker.report(window=10, backlog=0)
    assert scene.bench.of(c.Produce) == []
    scene.ack(0, 1)
    assert scene.bench.one(c.Produce).count == 2


def test_a_thread_is_not_left_idle_for_want_of_a_batch() -> None:
    """Where little may be held, room for one item is asked for as soon as a thread has none."""
    scene = Scene(options=Options(max_held_items=12))
    worker = scene.worker(slots=12, window=40)
    scene.produce(*range(12))
    worker.report(window=40, backlog=11)
    assert scene.bench.of(c.Produce) == []
    scene.ack(0)
    assert scene.bench.one(c.Produce).count == 1


def test_what_a_worker_holds_is_bounded_in_bytes() -> None:
    """Large items likewise, by max_held_bytes: as many as have room, by the size of the last one, or two a thread."""
    scene = Scene(options=Options(max_held_bytes=100))
    worker = scene.worker(window=10)
    scene.bench.tell(e.Produced("A", "ready", [b"x" * 100]))
    worker.report(window=10, backlog=0)
    assert scene.bench.of(c.Produce) == []
    scene.ack(0)
    assert scene.bench.one(c.Produce).count == 2


def test_the_last_items_are_spread_evenly() -> None:
    """When the source is exhausted, what waits is shared by all who have credit."""
    scene = Scene()
    lost = scene.worker(slots=4)
    scene.produce(0, 1, 2, 3, state="exhausted")
    first, second = scene.worker(window=8), scene.worker(window=8)
    lost.report(window=0, backlog=4)
    lost.says(m.ItemsReturned("run", "A", (0, 4)))
    assert (first.given(), second.given()) == ([0, 1], [2, 3])


def test_who_has_less_gets_more_of_the_last_items() -> None:
    """They have as many then: who has more than that gets nothing."""
    scene = Scene()
    lost = scene.worker(slots=5)
    scene.produce(0, 1, 2, 3, 4, state="exhausted")
    some, none, many = scene.worker(window=8), scene.worker(window=8), scene.worker(window=8)
    some.report(window=8, backlog=1)
    many.report(window=8, backlog=4)
    lost.report(window=0, backlog=5)
    lost.says(m.ItemsReturned("run", "A", (0, 5)))
    assert (len(some.given()), len(none.given()), many.given()) == (2, 3, [])


def test_the_last_items_go_to_the_idle_ones() -> None:
    """Fewer than there are workers with credit, who came first."""
    scene = Scene()
    lost = scene.worker(slots=2)
    scene.produce(0, 1, state="exhausted")
    busy = [scene.worker(window=8), scene.worker(window=8)]
    for one in busy:
        one.report(window=8, backlog=5)
    idle = [scene.worker(window=8), scene.worker(window=8)]
    lost.report(window=0, backlog=2)
    lost.says(m.ItemsReturned("run", "A", (0, 2)))
    assert [len(one.given()) for one in (*busy, *idle)] == [0, 0, 1, 1]


def test_the_last_items_are_for_threads() -> None:
    """A worker of three threads gets three times as many."""
    scene = Scene()
    lost = scene.worker(slots=8)
    scene.produce(*range(8), state="exhausted")
    one, three = scene.worker(window=8), scene.worker(slots=3, window=8)
    lost.report(window=0, backlog=8)
    lost.says(m.ItemsReturned("run", "A", (0, 8)))
    assert (len(one.given()), len(three.given())) == (2, 6)


# who is here ----------------------------------------------------------------------------------------------------------


def test_a_worker_of_an_unknown_task_is_refused() -> None:
    """It is told the known tasks and what to check; it is no member."""
    scene = Scene()
    stranger = Hand(scene, "X")
    stranger.report(run="", held=(), done=())
    (refused,) = stranger.was_told(m.Refused)
    assert "no task 'X'" in refused.reason
    assert "'A'" in refused.reason
    assert scene.machine.snapshot().workers == {"A": 0}


def test_a_worker_of_another_run_is_welcomed_to_this_one() -> None:
    """What it held of the other run is its own business; it gets items after its next report."""
    scene = Scene()
    worker = Hand(scene)
    worker.report(run="old", held=(0, 5), done=())
    assert worker.was_told(m.Welcome) == [m.Welcome("run", b"")]
    assert scene.bench.of(c.Produce) == []
    worker.report(held=(), done=())
    assert scene.bench.one(c.Produce)


def test_a_full_report_is_answered() -> None:
    """Even when there is nothing to say, so that the worker knows that it was heard."""
    scene = Scene()
    worker = scene.worker()
    worker.report(held=(), done=())
    assert worker.was_told(m.Settled) == [m.Settled("run", "A", ())]


def test_a_gap_from_a_worker_asks_for_a_full_report() -> None:
    """Something it said was lost: it is asked how it stands."""
    scene = Scene()
    worker = scene.worker()
    worker.loses(m.Goodbye("run", "A"))
    worker.report()
    assert worker.was_told(m.Settled)[0].resync


def test_a_repeat_is_dropped() -> None:
    """The same report twice is one report."""
    scene = Scene()
    worker = scene.worker()
    envelope = worker.hears().wrap(m.WorkerReport("run", "A", 1, 1, 0, False, (), (), "host", 0))
    assert scene.bench.tell(e.Received(worker.peer, envelope))
    assert scene.bench.tell(e.Received(worker.peer, envelope)) == []


def test_a_lost_workers_items_go_to_others_at_once() -> None:
    """A broken connection: the log says who and how many, and another worker has them in the same turn."""
    scene = Scene()
    lost = scene.worker(window=2)
    scene.produce(0, 1)
    other = scene.worker(slots=2)
    lost.is_lost()
    assert other.given() == [0, 1]
    assert "2 item(s) of 'A' go to other workers" in scene.bench.logged()
    assert other.was_told(m.Work)[0].attempt == 2


def test_a_worker_that_comes_back_keeps_what_nobody_else_has() -> None:
    """The connection broke, not the worker: what it says it holds is its own again, and is not sent elsewhere."""
    scene = Scene()
    worker = scene.worker(window=2)
    scene.produce(0, 1)
    worker.is_lost()
    worker.reconnects(b"again").report(held=(0, 2), done=(0, 1))
    assert scene.machine.snapshot().leased == {"A": 2}
    other = scene.worker()
    assert other.given() == []
    scene.ack(0, 1)
    scene.bench.wait(RELEASE_SECONDS)
    assert worker.released() == [0, 1]


def test_a_failure_of_an_item_that_came_back_is_heard() -> None:
    """The item raised in its first attempt, after its worker had been thought lost: it is retried or given up."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    for again in (b"again", b"and again"):
        worker.is_lost()
        worker.reconnects(again).report(held=(0, 1), done=())
    worker.fails(0, attempt=1)
    assert scene.bench.said_one(m.GiveUp).failures[0].number == 0


def test_a_new_connection_before_the_old_one_is_found_gone() -> None:
    """The newest connection is the one to answer on; that the old one is lost then changes nothing."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    old = worker.peer
    worker.reconnects(b"again").report(backlog=1, held=(0, 1), done=())
    scene.bench.tell(e.PeerLost(old))
    assert scene.machine.snapshot().leased == {"A": 1}
    scene.ack(0)
    scene.bench.wait(RELEASE_SECONDS)
    assert worker.released() == [0]


def test_work_that_was_lost_on_the_way_is_sent_again() -> None:
    """A report that knows of the message and holds nothing of it: the items go out again, as a first attempt."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    worker.report(held=(), done=())
    (work,) = worker.was_told(m.Work)
    assert (work.spans, work.attempt) == ((0, 1), 1)


def test_work_that_is_still_under_way_is_not_sent_again() -> None:
    """A report from before the message says nothing about its items."""
    scene = Scene()
    worker = scene.worker(window=2)
    link = worker.hears()
    known = link.received
    scene.produce(0)
    report = m.WorkerReport("run", "A", 1, 2, 0, False, (), (), "host", 0)
    link.sent += 1
    scene.bench.tell(e.Received(worker.peer, m.Envelope(link.incarnation, link.peer, link.sent, known, report)))
    assert worker.given() == []
    assert scene.machine.snapshot().leased == {"A": 1}


def test_a_draining_worker_hands_back_and_gets_nothing_more() -> None:
    """Unstarted items go to another at once, with nothing held against them."""
    scene = Scene()
    worker, other = scene.worker(window=3), scene.worker()
    scene.produce(0, 1, 2)
    other.report(window=0)
    worker.report(window=0, backlog=3, draining=True, held=(0, 3), done=())
    worker.says(m.ItemsReturned("run", "A", (1, 3)))
    assert worker.given() == []
    other.report(window=2)
    assert other.given() == [1, 2]
    assert other.was_told(m.Work)[0].attempt == 1
    scene.ack(0)
    assert worker.released() == [0], "a draining worker is told at once"


def test_a_goodbye_returns_what_is_left() -> None:
    """A worker that leaves is no crash; one that leaves in trouble says why, for the log."""
    scene = Scene(Task("A", crash_limit=1))
    worker, other = scene.worker(), scene.worker()
    scene.produce(0)
    worker.says(m.Goodbye("run", "A", TROUBLE))
    assert "could not be initialized, its 1 item(s) go to others: ValueError: as planned." in scene.bench.logged()
    assert other.given() == [0]
    assert scene.machine.snapshot().workers == {"A": 1}


# releases -------------------------------------------------------------------------------------------------------------


def test_releases_travel_with_the_next_work() -> None:
    """An ACK is passed on with whatever is sent to the worker next."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    scene.ack(0)
    assert worker.released() == []
    worker.report()
    scene.produce(1)
    (work,) = worker.was_told(m.Work)
    assert work.released == (0, 1)


def test_releases_travel_alone_after_20_milliseconds() -> None:
    """A worker that gets nothing more is told all the same, some time soon."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    scene.ack(0)
    scene.bench.wait(RELEASE_SECONDS)
    assert worker.released() == [0]
    scene.bench.wait(RELEASE_SECONDS)
    assert worker.released() == []


def test_many_releases_are_told_at_once() -> None:
    """A worker is not left with hundreds of results to keep."""
    scene = Scene()
    worker = scene.worker(window=RELEASE_ITEMS)
    scene.produce(*range(RELEASE_ITEMS))
    scene.ack(*range(RELEASE_ITEMS))
    assert worker.released() == list(range(RELEASE_ITEMS))


def test_a_source_is_not_emptied_into_retries() -> None:
    """Items that wait for their back-off count as held: with as many of them as a worker may hold, the source rests."""
    scene = Scene(Task("A", retries=1, backoff=60.0), options=Options(max_held_items=2))
    hand = scene.worker()
    scene.produce(0)
    hand.fails(0)
    hand.report()
    assert scene.bench.one(c.Produce).count == 1
    scene.produce(1)
    hand.fails(1)
    hand.report()
    assert scene.bench.of(c.Produce) == []


def test_an_attempt_without_a_next_one_is_not_believed() -> None:
    """A worker that brings an item with it may say that it was tried 2^62 times: it can be sent again all the same."""
    scene = Scene(Task("A", retries=3, backoff=0.0))
    first = scene.worker()
    scene.produce(0)
    first.is_lost()
    liar = Hand(scene)
    liar.report(0, held=(0, 1), done=())
    liar.fails(0, attempt=MAX_NUMBER)
    honest = scene.worker(slots=2)
    (work,) = honest.was_told(m.Work)
    assert codec.decode(codec.encode(m.Envelope(b"d", b"w", 1, 0, work))).body == work
    honest.fails(0, attempt=work.attempt)
    (again,) = honest.was_told(m.Work)
    assert again.attempt == work.attempt + 1


def test_what_a_worker_calls_its_host_is_one_line() -> None:
    """It is in lines of the log, which it shall not be able to make up."""
    scene = Scene()
    liar = Hand(scene)
    liar.says(m.WorkerReport("run", "A", 1, 1, 0, False, (), (), "h\n\x1b[31mERROR", 7))
    scene.produce(0)
    (line,) = [one.text for one in liar.is_lost() if isinstance(one, c.Log)]
    assert line.startswith("Worker h??[31mERROR/7 was lost")


def test_a_worker_of_no_task_is_told_of_some() -> None:
    """Of a hundred tasks: the refusal is a message, too, however many there are."""
    scene = Scene(*(Task(f"task {number}") for number in range(300)))
    stranger = Hand(scene, "nobody")
    stranger.report()
    (told,) = stranger.was_told(m.Refused)
    assert "'task 99'" in told.reason
    assert len(told.reason) < 2000
