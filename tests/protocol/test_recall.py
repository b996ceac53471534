"""Items are taken back from behind a long one; a lost worker's end is told in one line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.bench import Bench, Stranger
from tests.support.scenes import Hand, Scene
from tests.support.services import RUN, Broker
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import numbers_of
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.hand_out import LEVEL_LOOK, RECALL_SECONDS
from zmqpipeline.protocol.delivery.lost_workers import WAIT_SECONDS, LostWorkers
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.worker import WorkerMachine


def stuck_and_idle() -> tuple[Scene, Hand, Hand]:
    """One worker with four items, of which it runs one; another with none; the source has no more."""
    scene = Scene()
    stuck = scene.worker(window=4)
    scene.produce(0, 1, 2, 3, state="exhausted")
    idle = scene.worker()
    return scene, stuck, idle


def returns(hand: Hand, *numbers: int, left: int = 1) -> None:
    """The worker hands these back."""
    flat = tuple(edge for number in numbers for edge in (number, number + 1))
    hand.says(m.ItemsReturned("run", "A", flat))


def test_what_sits_behind_a_long_item_goes_to_an_idle_worker() -> None:
    """After 20 ms in which nothing was done; the worker keeps what it runs."""
    scene, stuck, idle = stuck_and_idle()
    scene.bench.wait(RECALL_SECONDS * 2)
    assert stuck.was_told(m.Recall) == [m.Recall("run", "A", 3)]
    returns(stuck, 1, 2, 3)
    assert idle.given() == [1]
    assert stuck.given() == []


def test_nothing_is_recalled_for_a_worker_that_takes_nothing() -> None:
    """It has just been asked to end, and has nothing to do: that is no reason to leave others with less."""
    scene, stuck, leaving = stuck_and_idle()
    leaving.report(0, draining=True)
    scene.bench.wait(RECALL_SECONDS * 3)
    assert stuck.was_told(m.Recall) == []


def test_a_worker_that_does_something_is_left_alone() -> None:
    """It will have done the rest by the time that others would get it; and is looked at again."""
    scene, stuck, _ = stuck_and_idle()
    for number in range(2):
        scene.bench.wait(RECALL_SECONDS * 0.6)
        assert stuck.was_told(m.Recall) == []
        scene.ack(number)
    scene.bench.wait(RECALL_SECONDS * 2.1)
    assert len(stuck.was_told(m.Recall)) == 1


def test_what_a_worker_has_beyond_its_window_goes_to_an_idle_one() -> None:
    """Its items have become longer: though it goes on, it would do alone what it was given while they were short."""
    scene = Scene()
    steady = scene.worker(window=8)
    scene.produce(*range(8), state="exhausted")
    idle = scene.worker()
    scene.bench.wait(RECALL_SECONDS * 0.6)
    scene.ack(0)
    steady.report(3, backlog=7)
    scene.bench.wait(RECALL_SECONDS * 0.6)
    assert steady.was_told(m.Recall) == [m.Recall("run", "A", 4)]
    returns(steady, 4, 5, 6, 7)
    assert (steady.given(), idle.given()) == ([], [4])


def test_what_a_worker_wants_is_left_to_it() -> None:
    """A worker that goes on and has no more than its window hands nothing back, whoever is idle."""
    scene = Scene()
    steady = scene.worker(window=8)
    scene.produce(*range(8), state="exhausted")
    scene.worker()
    for number in range(6):
        scene.ack(number)
        steady.report(8, backlog=7 - number)
        scene.bench.wait(RECALL_SECONDS * 0.9)
        assert steady.was_told(m.Recall) == []


def uneven(
    seconds: float = 0.01, *, few: int = 2, many: int = 20, state: str = "exhausted"
) -> tuple[Scene, Hand, Hand]:
    """Two workers that are busy with so many items of so many seconds each, and both want more."""
    scene = Scene()
    first = scene.worker(window=many)
    scene.produce(*range(many))
    second = scene.worker(window=few)
    scene.produce(*range(many, many + few), state=state)
    first.report(window=40, backlog=many, service_time=seconds)
    second.report(window=40, backlog=few, service_time=seconds)
    return scene, first, second


def test_who_will_be_idle_soon_gets_half_of_what_another_one_has_more() -> None:
    """Before it is idle: the other one hears of it when it looks for messages; what comes back goes to the first."""
    scene, first, second = uneven()
    scene.bench.wait(LEVEL_LOOK * 2)
    assert first.was_told(m.Recall) == [m.Recall("run", "A", 9)]
    returns(first, *range(12, 20))
    assert (len(second.given()), first.given()) == (8, [])


def test_who_was_asked_is_not_asked_again_before_it_answers() -> None:
    """Though the other one reports meanwhile; after the answer both are level."""
    scene, first, second = uneven()
    scene.bench.wait(LEVEL_LOOK * 2)
    assert len(first.was_told(m.Recall)) == 1
    second.report(window=40, backlog=1, service_time=0.01)
    scene.bench.wait(LEVEL_LOOK * 2)
    assert scene.bench.said(m.Recall) == []
    returns(first, *range(11, 20))
    first.report(window=40, backlog=11, service_time=0.01)
    second.report(window=40, backlog=10, service_time=0.01)
    scene.bench.wait(LEVEL_LOOK * 2)
    assert scene.bench.said(m.Recall) == []


def test_what_a_worker_has_done_since_it_was_heard_of_counts() -> None:
    """It goes on: of 25 items of 10 ms it has 20 left after 50 ms, and only then is short."""
    scene, first, second = uneven(few=25, many=40)
    scene.bench.wait(0.049)
    assert scene.bench.said(m.Recall) == []
    scene.bench.wait(0.01)
    assert first.was_told(m.Recall) == [m.Recall("run", "A", 7)]
    assert second.was_told(m.Recall) == []


def test_whoever_has_nothing_to_give_is_not_asked_at_once_again() -> None:
    """Eight empty answers in 0.15 s, not thirty: a worker that has just been asked is left alone for a while."""
    scene, first, second = uneven(few=15, many=30)
    asked = 0
    for _ in range(30):
        first.report(window=40, backlog=30, service_time=0.01)
        second.report(window=40, backlog=15, service_time=0.01)
        scene.bench.wait(LEVEL_LOOK)
        if first.was_told(m.Recall):
            asked += 1
            returns(first)
    assert 6 <= asked <= 8


def test_what_comes_back_does_not_go_to_who_gave_it() -> None:
    """It may have fewer items than the other one, if they are longer; it gets some again when it has done something."""
    scene = Scene()
    slow = scene.worker(window=10)
    scene.produce(*range(10))
    fast = scene.worker(window=30)
    scene.produce(*range(10, 40), state="exhausted")
    fast.report(window=60, backlog=30, service_time=0.001)
    slow.report(window=20, backlog=10, service_time=0.02)
    scene.bench.wait(LEVEL_LOOK)
    assert slow.was_told(m.Recall) == [m.Recall("run", "A", 4)]
    returns(slow, 6, 7, 8, 9)
    assert (slow.given(), len(fast.given())) == ([], 4)
    slow.report(window=20, backlog=6, service_time=0.02)
    assert slow.given() == []


def test_nothing_goes_behind_an_item_that_takes_longer_than_others() -> None:
    """A worker that should have ended its items by now would have said so: it is in a long one."""
    scene, first, second = uneven(0.001, few=30, many=30)
    scene.bench.wait(0.09)
    first.report(window=40, backlog=30, service_time=0.01)
    scene.bench.wait(LEVEL_LOOK * 3)
    assert scene.bench.said(m.Recall) == []
    second.report(window=40, backlog=0, service_time=0.001)
    scene.bench.wait(LEVEL_LOOK)
    assert len(first.was_told(m.Recall)) == 1


@pytest.mark.parametrize(
    "case",
    [
        {"seconds": 0.0},
        {"seconds": 0.001},
        {"few": 19},
        {"few": 35, "many": 50},
        {"state": "ready"},
    ],
    ids=["nobody knows how long they take", "that is soon done", "level", "busy for long", "the source has more"],
)
def test_else_nobody_is_asked(case: dict[str, Any]) -> None:
    """Each of the conditions of the law, left out."""
    scene, _, _ = uneven(**case)
    scene.bench.wait(LEVEL_LOOK * 3)
    assert scene.bench.said(m.Recall) == []


def test_a_limit_of_the_task_decides_who_has_what() -> None:
    """Where items wait for a limit or a rate, workers have one a thread, and nothing is levelled."""
    scene = Scene(TaskSpec("A", limit=22))
    first = scene.worker(slots=20)
    scene.produce(*range(20))
    second = scene.worker(slots=2)
    scene.produce(20, 21, state="exhausted")
    first.report(window=40, backlog=20, service_time=0.1)
    second.report(window=40, backlog=2, service_time=0.01)
    scene.bench.wait(LEVEL_LOOK * 3)
    assert scene.bench.said(m.Recall) == []


def test_absurd_times_do_no_harm() -> None:
    """A worker may say anything: it is asked for what it has beside what it runs, at the most."""
    scene, first, second = uneven()
    first.report(window=40, backlog=20, service_time=1e308)
    scene.bench.wait(LEVEL_LOOK * 2)
    assert first.was_told(m.Recall) == [m.Recall("run", "A", 19)]
    second.report(window=40, backlog=20, service_time=5e-324)
    scene.bench.wait(LEVEL_LOOK * 2)
    assert second.was_told(m.Recall) == []


def test_nothing_is_recalled_while_nobody_is_idle() -> None:
    """A busy worker has no use for it."""
    scene = Scene()
    first, second = scene.worker(window=4), scene.worker()
    scene.produce(0, 1, 2, 3)
    scene.produce(4, state="exhausted")
    assert second.given() == [4]
    scene.bench.wait(0.5)
    assert scene.bench.said(m.Recall) == []
    assert first.was_told(m.Recall) == []


def test_it_is_asked_once_until_it_answers() -> None:
    """The periodic report of a worker that is stuck is no answer; one that came after the question is."""
    scene, stuck, idle = stuck_and_idle()
    scene.bench.wait(RECALL_SECONDS * 2)
    scene.bench.wait(0.5)
    assert scene.bench.said(m.Recall) == []
    stuck.report(4, backlog=4, held=(0, 4), done=())
    idle.report(1, backlog=0)
    scene.bench.wait(RECALL_SECONDS * 2)
    assert stuck.was_told(m.Recall) == [m.Recall("run", "A", 3)]


def test_a_stuck_worker_gets_nothing_to_wait_behind_the_long_item() -> None:
    """Until it has done something; then it is like any other."""
    scene, stuck, idle = stuck_and_idle()
    scene.bench.wait(RECALL_SECONDS * 2)
    returns(stuck, 1, 2, 3)
    stuck.report(4, backlog=1, held=(0, 1), done=())
    assert stuck.given() == []
    scene.ack(0)
    assert (stuck.given(), idle.given()) == ([2, 3], [])


def test_a_draining_distributor_has_everything_unstarted_back_at_once() -> None:
    """It hands out none of it, and ends when what runs is acknowledged."""
    scene, stuck, _ = stuck_and_idle()
    scene.bench.tell(e.Drain(25.0))
    (recall,) = stuck.was_told(m.Recall)
    assert recall.most >= 3
    returns(stuck, 1, 2, 3)
    assert scene.bench.said(m.Work) == []
    assert scene.bench.ended is None
    scene.ack(0)
    assert scene.bench.ended == c.Ended(0, "drained")
    assert scene.machine.counts()[0].aborted == 3


def test_a_worker_hands_back_what_it_has_not_started() -> None:
    """And answers also when there is nothing: else it would not be asked again."""
    bench = Bench(WorkerMachine("A", slots=1, incarnation=b"worker"))
    distributor = Stranger(bench, "workers", who=b"distributor")
    bench.tell(e.Connected("workers"))
    distributor.says(m.Welcome("run", b""))
    distributor.says(m.Work("run", "A", 1, 0.0, (0, 3), (), [b"", b"", b""]))
    distributor.says(m.Recall("run", "A", 2))
    assert bench.one(c.TakeBack).count == 2
    bench.tell(e.TakenBack([1, 2]))
    assert numbers_of(bench.said_one(m.ItemsReturned).spans) == [1, 2]
    distributor.says(m.Recall("run", "A", 2))
    bench.tell(e.TakenBack([]))
    assert bench.said_one(m.ItemsReturned).spans == ()
    distributor.says(m.Recall("another", "A", 2))
    assert bench.of(c.TakeBack) == []


# obituaries -----------------------------------------------------------------------------------------------------------

ABOUT: dict[str, str | int] = {"worker": "7"}


def test_a_lost_worker_is_told_of_with_its_end_whichever_word_comes_first() -> None:
    """From the connection, or from who started it."""
    first = LostWorkers(supervised=True)
    assert first.lost(7, "Worker 7 was lost ({how}).", 0.0, worker="7") == []
    assert first.died(7, "killed by SIGKILL") == [c.Log(30, "Worker 7 was lost (killed by SIGKILL).", ABOUT)]
    assert first.next_time() is None
    second = LostWorkers(supervised=True)
    assert second.died(7, "killed by SIGKILL") == []
    lines = second.lost(7, "Worker 7 was lost ({how}).", 0.0, worker="7")
    assert lines == [c.Log(30, "Worker 7 was lost (killed by SIGKILL).", ABOUT)]


def test_the_line_waits_half_a_second_for_the_second_word() -> None:
    """The process may live on, behind a connection that broke."""
    one = LostWorkers(supervised=True)
    one.lost(7, "Worker 7 was lost ({how}).", 1.0, worker="7")
    assert one.overdue(1.0 + WAIT_SECONDS / 2) == []
    assert one.next_time() == 1.0 + WAIT_SECONDS
    assert one.overdue(1.0 + WAIT_SECONDS) == [c.Log(30, "Worker 7 was lost (its connection broke).", ABOUT)]


def test_without_a_supervisor_no_line_waits() -> None:
    """Nobody would tell."""
    assert LostWorkers(supervised=False).lost(7, "Lost ({how}).", 0.0) == [c.Log(30, "Lost (its connection broke).")]


def test_a_supervised_distributor_tells_how_its_worker_ended_and_what_happens_next() -> None:
    """One line: who, how, how many items, where they go. Braces in a host's name are text."""
    machine = DistributorMachine("pipe", [TaskSpec("A")], incarnation=b"d", run="run", supervised="b{o}x")
    bench = Bench(machine)
    collector = Stranger(bench, "acks", who=b"collector")
    bench.tell(e.Connected("acks"))
    collector.says(m.Holding("", False, b"", 0, []))
    collector.says(m.Holding("run", False, b"", 0, []))
    worker = Stranger(bench, "workers", b"w1", who=b"worker")
    worker.says(m.WorkerReport("run", "A", 1, 2, 0, False, (), (), "b{o}x", 77))
    bench.tell(e.Produced("A", "ready", [b"0", b"1"]))
    bench.tell(e.PeerLost(worker.peer))
    assert bench.logged() == ""
    bench.tell(e.WorkerDied(77, "killed by SIGKILL"))
    assert bench.logged() == (
        "Worker b{o}x/77 was lost (killed by SIGKILL); its 2 item(s) of 'A' go to other workers. "
        "A late result still counts."
    )
    worker.reconnects(b"w2").says(m.WorkerReport("run", "A", 1, 2, 0, False, (), (), "b{o}x", 77))
    bench.tell(e.PeerLost(worker.peer))
    bench.wait(1.0)
    assert "its connection broke" in bench.logged()
    worker.reconnects(b"w3").says(m.WorkerReport("run", "A", 1, 2, 0, False, (), (), "another", 77))
    bench.tell(e.WorkerDied(77, "killed by SIGKILL"))
    bench.tell(e.PeerLost(worker.peer))
    assert "Worker another/77 was lost (its connection broke)" in bench.logged(), "the dead one was of this host"


# services -------------------------------------------------------------------------------------------------------------


def test_requests_behind_a_slow_one_go_to_a_worker_that_is_free() -> None:
    """They were never begun, so that also a service that is not idempotent may give them to another."""
    broker = Broker()
    slow, asker = broker.server(window=8), broker.asker()
    asker.asks(0, 1, 2)
    assert slow.given() == [0, 1, 2]
    free = broker.server(window=8)
    broker.bench.wait(RECALL_SECONDS * 2)
    assert [one.most for one in slow.was_told(m.Recall)] == [2]
    slow.tells(m.ItemsReturned(RUN, "upper", (1, 3)))
    assert (slow.given(), free.given()) == ([], [1, 2])
    free.answers(1, 2)
    assert asker.got() == {1: b"a1", 2: b"a2"}
