"""The collector machine, law by law: once to the function, then the ACK, to the distributor alone."""

from __future__ import annotations

import pytest

from tests.support.bench import TROUBLE, Bench, Stranger
from tests.support.collector_scene import Scene, given_up
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import (
    MAX_UNREADY,
    WARN_FIRST_SECONDS,
    WARN_SECONDS,
    CollectorMachine,
)


@pytest.fixture
def scene() -> Scene:
    """A collector that has been told a run."""
    return Scene()


def test_nothing_is_collected_before_a_run_has_begun() -> None:
    """Results that come first are dropped; when the run begins, their worker is asked what it keeps."""
    scene = Scene(begun=False)
    assert scene.results(0) == []
    scene.begin()
    assert scene.bench.one(c.SetRun) == c.SetRun("run", b"meta")
    assert scene.worker.was_told(m.Missing) == [m.Missing("run", "", ())]
    scene.worker.says(m.Kept("run", "A", (0, 1)))
    assert scene.worker.was_told(m.Missing) == [m.Missing("run", "A", (0, 1))]


def test_a_proposal_is_answered_with_what_is_held() -> None:
    """An empty collector holds no run; one with a run tells all that it has."""
    scene = Scene(begun=False)
    scene.distributor.says(m.Propose("pipe", "mine"))
    assert scene.bench.said_one(m.Holding) == m.Holding("", False, b"", 0, [])
    scene.begin()
    scene.results(0, 1)
    scene.collected(0, 1)
    scene.distributor.says(m.Propose("pipe", "another"))
    expected = m.Holding("run", False, b"meta", 2, [m.TaskProgress("A", (0, 2), ())], "A")
    assert scene.bench.said_one(m.Holding) == expected


def test_begin_is_idempotent(scene: Scene) -> None:
    """The run told again changes nothing and is answered again."""
    scene.results(0)
    scene.collected(0)
    scene.begin(m.TaskProgress("A", (), ()))
    assert scene.bench.of(c.SetRun) == []
    assert scene.bench.said_one(m.Holding).count == 1


def test_a_new_collector_is_told_what_is_done() -> None:
    """What was done before it was started is not collected again, and the count goes on."""
    scene = Scene(begun=False)
    scene.begin(m.TaskProgress("A", (0, 3), (3, 4)))
    scene.results(0, 3, 4)
    assert scene.bench.one(c.Collect).spans == (4, 5)
    scene.collected(4)
    assert scene.bench.said_one(m.Ack).count == 5


def test_another_run_is_refused_with_what_to_do(scene: Scene) -> None:
    """A collector holds one run; a distributor with another is told to wait for a new collector."""
    scene.begin(run="other")
    reason = scene.bench.said_one(m.Refused).reason
    assert "holds the run run, not other" in reason
    assert "Start it anew" in reason


def test_another_pipeline_is_refused_by_name(scene: Scene) -> None:
    """A distributor of another pipeline has come to the wrong address."""
    scene.distributor.says(m.Propose("other", "r"))
    assert "'pipe', not 'other'" in scene.bench.said_one(m.Refused).reason


def test_collected_first_acknowledged_second(scene: Scene) -> None:
    """No ACK before the function returned; then one to the distributor, and no word to the worker."""
    scene.results(0, 1)
    assert scene.bench.one(c.Collect).payloads == [b"r0", b"r1"]
    assert scene.bench.of(c.Send) == []
    scene.collected(0, 1, data=b"data")
    assert scene.distributor.was_told(m.Ack) == [m.Ack("run", "A", (0, 2), (), 0, 2, b"data")]
    assert scene.worker.was_told(m.Ack) == []


def test_a_result_that_waits_for_the_thread_is_not_collected_twice(scene: Scene) -> None:
    """A second coming before the function returned is dropped without an ACK."""
    scene.results(0)
    assert scene.results(0) == []


def test_a_result_that_is_done_is_acknowledged_again(scene: Scene) -> None:
    """A second coming means that somebody has not heard: acknowledge, do not collect; count the duplicate."""
    scene.results(0)
    scene.collected(0)
    scene.results(0, 1)
    assert scene.bench.one(c.Collect).spans == (1, 2)
    ack = scene.bench.said_one(m.Ack)
    assert (ack.collected, ack.duplicates, ack.data) == ((0, 1), 1, b"")


def test_results_of_another_run_are_dropped(scene: Scene) -> None:
    """An old worker's items of a run that is lost are nobody's."""
    assert scene.results(0, run="old") == []
    assert scene.worker.says(m.Kept("old", "A", (0, 5))) == []


def test_of_what_is_kept_it_asks_for_what_it_never_saw(scene: Scene) -> None:
    """Collected, failed and waiting items are not asked for; the rest is; an empty answer is one, too."""
    scene.results(0, 1)
    scene.collected(0)
    scene.worker.says(m.Kept("run", "A", (0, 4)))
    assert scene.bench.said_one(m.Missing) == m.Missing("run", "A", (2, 4))
    scene.worker.says(m.Kept("run", "A", (0, 1)))
    assert scene.bench.said_one(m.Missing) == m.Missing("run", "A", ())


def test_a_gap_from_a_worker_is_a_question(scene: Scene) -> None:
    """Something of the worker's was lost: it is asked what it keeps."""
    scene.results(0)
    scene.worker.loses(m.Results("run", "A", 1, (1, 2), [b"r1"]))
    scene.results(2)
    assert scene.bench.said_one(m.Missing) == m.Missing("run", "", ())


def test_a_repeat_is_dropped(scene: Scene) -> None:
    """The same message twice is no duplicate of its items: it is not even looked at."""
    envelope = scene.worker.hears().wrap(m.Results("run", "A", 1, (0, 1), [b"r0"]))
    scene.bench.tell(e.Received(scene.worker.peer, envelope))
    scene.collected(0)
    assert scene.bench.tell(e.Received(scene.worker.peer, envelope)) == []


def test_an_item_the_function_raised_for_is_told_to_failed_then_acknowledged_as_failed(scene: Scene) -> None:
    """Stage `collector`, with the attempt and the result; the good ones beside it are acknowledged at once."""
    scene.results(0, 1, attempt=2)
    scene.collected(0, failing=[1], attempt=2)
    assert scene.bench.said_one(m.Ack).collected == (0, 1)
    (item,) = scene.bench.one(c.CallFailed).failures
    assert item == m.FailedItem("A", 1, 2, "collector", TROUBLE, b"r1")
    scene.bench.tell(e.FailedCalled("A", (1, 2)))
    ack = scene.bench.said_one(m.Ack)
    assert (ack.collected, ack.failed, ack.count) == ((), (1, 2), 2)


def test_what_the_distributor_gave_up_is_told_to_failed_once(scene: Scene) -> None:
    """GiveUp is answered at once, and with an ACK like a collected item; said again, it is answered again."""
    scene.distributor.says(m.GiveUp("run", given_up(0, 1)))
    assert [item.number for item in scene.bench.one(c.CallFailed).failures] == [0, 1]
    assert scene.bench.said_one(m.Noted) == m.Noted("run", "A", (0, 2))
    scene.distributor.says(m.GiveUp("run", given_up(0)))
    assert scene.bench.said_one(m.Noted) == m.Noted("run", "A", (0, 1))
    assert scene.bench.of(c.CallFailed) == []
    scene.bench.tell(e.FailedCalled("A", (0, 2)))
    scene.distributor.says(m.GiveUp("run", given_up(0)))
    assert scene.bench.of(c.CallFailed) == []
    assert scene.bench.said_one(m.Ack).failed == (0, 1)


def test_a_late_result_of_a_failed_item_is_not_collected(scene: Scene) -> None:
    """An item is collected or failed, never both; its worker's distributor hears which."""
    scene.distributor.says(m.GiveUp("run", given_up(0)))
    assert scene.results(0) == []
    scene.bench.tell(e.FailedCalled("A", (0, 1)))
    scene.results(0)
    assert scene.bench.of(c.Collect) == []
    assert scene.bench.said_one(m.Ack).failed == (0, 1)


def test_giving_up_a_collected_item_is_answered_with_collected(scene: Scene) -> None:
    """The distributor gave up an item whose late result counted: the ACK says so."""
    scene.results(0)
    scene.collected(0)
    scene.distributor.says(m.GiveUp("run", given_up(0)))
    ack = scene.bench.said_one(m.Ack)
    assert (ack.collected, ack.failed) == ((0, 1), ())


def test_without_a_distributor_nothing_is_acknowledged_and_nothing_lost(scene: Scene) -> None:
    """What is collected while the distributor is away is in the answer to its next Begin."""
    scene.bench.tell(e.PeerLost(scene.distributor.peer))
    assert "connection to the distributor broke" in scene.bench.logged()
    scene.results(0)
    scene.collected(0)
    assert scene.bench.of(c.Send) == []
    scene.distributor.reconnects(b"d2")
    scene.begin()
    assert scene.bench.said_one(m.Holding).progress == [m.TaskProgress("A", (0, 1), ())]


def test_the_end_of_a_distributor_that_none_is_to_follow_is_no_news(scene: Scene) -> None:
    """Whoever has ended it said so to the collector before."""
    scene.bench.tell(e.DistributorEnds())
    scene.bench.tell(e.PeerLost(scene.distributor.peer))
    assert "connection to the distributor broke" not in scene.bench.logged()
    scene.results(0)
    scene.collected(0)
    assert scene.bench.machine.count == 1


def test_a_collector_that_nobody_comes_to_says_so_soon() -> None:
    """After ten seconds, since somebody may have misspelt an address; then each minute."""
    bench = Bench(CollectorMachine("squares", incarnation=b"collector"))
    bench.tell(e.Tick())
    bench.wait(WARN_FIRST_SECONDS - 1)
    assert bench.logged() == ""
    bench.wait(WARN_SECONDS + 2)
    assert bench.logged().count("Still waiting for a distributor") == 2


def test_waiting_for_a_distributor_is_warned_of_each_minute(scene: Scene) -> None:
    """Somebody who looks at the log learns what this process waits for; and no more once it is back."""
    scene.bench.tell(e.PeerLost(scene.distributor.peer))
    scene.bench.wait(2 * WARN_SECONDS + 1)
    assert scene.bench.logged().count("Still waiting for a distributor") == 2
    scene.distributor.reconnects(b"d2")
    scene.begin()
    scene.bench.wait(5 * WARN_SECONDS)
    assert scene.bench.logged() == ""


def test_a_second_distributor_is_not_answered_while_one_is_there(scene: Scene) -> None:
    """Two distributors on one address: the second is logged and gets nothing; when the first is gone, it may."""
    second = Stranger(scene.bench, "acks", b"d2", who=b"second")
    second.says(m.Propose("pipe", "mine"))
    assert scene.bench.of(c.Send) == []
    assert "second distributor" in scene.bench.logged()
    scene.bench.tell(e.PeerLost(scene.distributor.peer))
    second.says(m.Propose("pipe", "mine"))
    assert second.was_told(m.Holding)[0].run == "run"


def test_the_same_distributor_on_a_new_connection_is_no_second_one(scene: Scene) -> None:
    """A reconnect may be heard before the old connection is found to be gone."""
    old = scene.distributor.peer
    scene.distributor.reconnects(b"d2")
    scene.begin()
    assert scene.distributor.was_told(m.Holding)
    scene.bench.tell(e.PeerLost(old))
    scene.results(0)
    scene.collected(0)
    assert scene.distributor.was_told(m.Ack)


def test_the_snapshot_counts_each_task(scene: Scene) -> None:
    """For people: what is collected, failed and waiting."""
    scene.results(0, 1)
    scene.results(0, task="B")
    scene.collected(0)
    snapshot = scene.machine.snapshot()
    assert (snapshot.phase, snapshot.run, snapshot.queued) == ("active", "run", 2)
    assert snapshot.tasks == {"A": (1, 0), "B": (0, 0)}


# the last ACK ---------------------------------------------------------------------------------------------------------


def test_a_distributor_that_has_not_heard_the_last_ack_is_told_its_task_and_data(scene: Scene) -> None:
    """Also when a failure was the last, and in the ACK that is said again; a gate reads them."""
    scene.results(0, 1, 2)
    scene.collected(0, 1, data=b"to 1")
    scene.distributor.says(m.Propose("pipe", "another"))
    told = scene.bench.said_one(m.Holding)
    assert (told.count, told.ack_task, told.ack_data) == (2, "A", b"to 1")
    scene.results(0)
    assert scene.bench.said_one(m.Ack).data == b"to 1"
    scene.distributor.says(m.GiveUp("run", given_up(0, task="B")))
    scene.bench.tell(e.FailedCalled("B", (0, 1)))
    scene.distributor.says(m.Propose("pipe", "another"))
    told = scene.bench.said(m.Holding)[-1]
    assert (told.count, told.ack_task, told.ack_data) == (3, "B", b"")


def test_an_ack_that_is_said_again_brings_the_data_of_the_newest_one(scene: Scene) -> None:
    """It may be the one that was lost: a gate goes by the newest, whichever task it was of."""
    scene.results(0)
    scene.collected(0, data=b"of A")
    scene.results(0, task="B")
    scene.collected(0, task="B", data=b"of B")
    scene.results(0)
    again = scene.bench.said_one(m.Ack)
    assert (again.task, again.count, again.data, again.data_of) == ("A", 2, b"of B", "B")


def test_a_collector_without_memory_learns_the_last_ack_from_begin_and_one_with_a_journal_from_that() -> None:
    """The next distributor is told what the one before had heard; the journal is told it, too."""
    scene = Scene(begun=False)
    scene.distributor.says(m.Begin("pipe", "run", b"", [m.TaskProgress("A", (0, 2), ())], "A", b"data"))
    command = scene.bench.one(c.SetRun)
    assert (command.ack_task, command.ack_data) == ("A", b"data")
    told = scene.bench.said_one(m.Holding)
    assert (told.ack_task, told.ack_data) == ("A", b"data")
    assert (scene.machine.count, scene.machine.inherited) == (2, 2)
    scene = Scene(begun=False)
    progress = [m.TaskProgress("A", (0, 2), ())]
    scene.bench.tell(e.Restored("run", b"", progress, ack_task="A", ack_data=b"kept"))
    scene.distributor.says(m.Propose("pipe", "another"))
    told = scene.bench.said_one(m.Holding)
    assert (told.ack_task, told.ack_data) == ("A", b"kept")


def test_a_worker_that_could_not_be_initialized_is_told_of(scene: Scene) -> None:
    """By the distributor of its run, and not without end."""
    scene.distributor.says(m.Unready("another", "A", TROUBLE, 60.0))
    assert scene.bench.logged() == ""
    scene.distributor.says(m.Unready("run", "A", TROUBLE, 60.0))
    line = "A worker of task 'A' could not be initialized: ValueError: as planned."
    assert scene.bench.logged(40) == f"{line} If none can begin within 60 s, the task fails."
    scene.distributor.says(m.Unready("run", "A", TROUBLE, 0.0))
    assert scene.bench.logged(40) == line
    for _ in range(2 * MAX_UNREADY):
        scene.distributor.says(m.Unready("run", "A", TROUBLE, 0.0))
    assert len([one for one in scene.bench.all if isinstance(one, c.Log)]) == MAX_UNREADY
