"""The distributor machine, law by law: the end of a run, and drains."""

from __future__ import annotations

import pytest

from tests.support.bench import TROUBLE
from tests.support.scenes import Hand, Scene, Task
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.distributor import FAREWELL_SECONDS

# the end --------------------------------------------------------------------------------------------------------------


def test_the_end_in_order() -> None:
    """Last ACK, Finish, Finished, RunEnded to the workers, their Goodbye, Bye and its answer, status 0."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0, state="exhausted")
    assert scene.bench.said(m.Finish) == []
    scene.ack(0)
    finish = scene.bench.said_one(m.Finish)
    assert (finish.ok, finish.counts[0].collected, finish.counts[0].state) == (True, 1, "complete")
    assert worker.released() == [0]
    assert worker.was_told(m.RunEnded) == []
    scene.collector.says(m.Finished("run"))
    assert worker.was_told(m.RunEnded) == [m.RunEnded("run")]
    assert scene.bench.said(m.Bye) == []
    worker.says(m.Goodbye("run", "A"))
    assert scene.bench.said_one(m.Bye) == m.Bye("run")
    assert scene.bench.ended is None
    scene.collector.says(m.Bye("run"))
    assert scene.bench.one(c.Ended) == c.Ended(0, "the run is over")


def test_bye_is_said_again_until_it_is_answered() -> None:
    """At once when the connection is back, since a collector that has not heard it waits for a minute."""
    scene = Scene()
    worker = scene.worker()
    scene.exhaust("A")
    scene.collector.says(m.Finished("run"))
    scene.bench.tell(e.Disconnected("acks"))
    worker.says(m.Goodbye("run", "A"))
    assert scene.bench.said(m.Bye) == []
    scene.bench.wait(0.9)
    scene.connect()
    assert scene.bench.said_one(m.Bye) == m.Bye("run")
    scene.bench.wait(0.9)
    assert scene.bench.ended is None
    scene.collector.says(m.Bye("another"))
    assert scene.bench.ended is None
    scene.collector.says(m.Bye("run"))
    assert scene.bench.one(c.Ended) == c.Ended(0, "the run is over")


def test_an_answer_to_bye_is_not_waited_for_for_ever() -> None:
    """Two seconds, each of which it is said again; then it ends as it would have."""
    scene = Scene()
    worker = scene.worker()
    scene.exhaust("A")
    scene.collector.says(m.Finished("run"))
    worker.says(m.Goodbye("run", "A"))
    scene.bench.wait(FAREWELL_SECONDS - 0.1)
    assert scene.bench.said_one(m.Bye)
    assert scene.bench.ended is None
    scene.bench.wait(0.2)
    assert scene.bench.ended == c.Ended(0, "the run is over")


def test_finish_is_said_until_it_is_answered() -> None:
    """A lost Finish or Finished is mended a second later."""
    scene = Scene()
    scene.worker()
    scene.exhaust("A")
    scene.bench.wait(3.5)
    assert len(scene.bench.said(m.Finish)) == 3


def test_the_farewell_has_an_end() -> None:
    """A worker that does not say goodbye is not waited for longer than two seconds."""
    scene = Scene()
    scene.worker()
    scene.exhaust("A")
    scene.collector.says(m.Finished("run"))
    scene.bench.wait(FAREWELL_SECONDS - 0.1)
    assert scene.bench.said(m.Bye) == []
    scene.bench.wait(0.2)
    assert scene.bench.said_one(m.Bye)
    scene.collector.says(m.Bye("run"))
    assert scene.bench.ended == c.Ended(0, "the run is over")


def test_a_worker_that_comes_at_the_farewell_is_told_to_end() -> None:
    """Whoever reports after the end of the run learns of it."""
    scene = Scene()
    scene.worker()
    scene.exhaust("A")
    scene.collector.says(m.Finished("run"))
    late = Hand(scene)
    late.report(run="", held=(), done=())
    assert late.was_told(m.RunEnded) == [m.RunEnded("run")]


def test_trouble_of_finished_is_status_1() -> None:
    """`finished` raised in the collector: the distributor hears of it, and its status is 1."""
    scene = Scene()
    scene.worker()
    scene.exhaust("A")
    scene.collector.says(m.Finished("run", [m.TaskError("finished", TROUBLE)], b"data"))
    scene.bench.wait(FAREWELL_SECONDS + 0.1)
    scene.collector.says(m.Bye("run"))
    assert (scene.machine.troubles, scene.machine.finished_data) == ({"finished": TROUBLE}, b"data")
    assert scene.bench.ended is not None
    assert scene.bench.ended.status == 1
    assert "the finished function raised ValueError: as planned" in scene.bench.ended.reason


@pytest.mark.parametrize("function", ["ack_data", "failed"])
def test_trouble_at_the_end_is_named_for_what_raised(function: str) -> None:
    """Not for `finished`; and no collector can say that of a task, or of the metadata."""
    scene = Scene()
    scene.worker()
    scene.exhaust("A")
    troubles = [m.TaskError(name, TROUBLE) for name in (function, "A", "metadata")]
    scene.collector.says(m.Finished("run", troubles))
    scene.bench.wait(FAREWELL_SECONDS + 0.1)
    scene.collector.says(m.Bye("run"))
    assert scene.machine.troubles == {function: TROUBLE}
    assert scene.bench.ended is not None
    assert scene.bench.ended.status == 1
    assert f"everything was collected, but the {function} function raised ValueError" in scene.bench.ended.reason


def test_a_drain_waits_for_what_is_leased() -> None:
    """SIGTERM: the source is not asked any more, what waits is given up, what workers hold is waited for."""
    scene = Scene()
    worker = scene.worker(window=2)
    scene.produce(0, 1)
    scene.bench.tell(e.Drain(25.0))
    worker.report(window=5)
    assert scene.bench.of(c.Produce) == []
    scene.ack(0)
    assert scene.bench.ended is None
    scene.ack(1)
    assert scene.bench.one(c.Ended) == c.Ended(0, "drained")
    assert worker.released() == [0, 1]


def test_a_drain_has_an_end() -> None:
    """A worker that hangs is not waited for longer than the drain time."""
    scene = Scene()
    scene.worker()
    scene.produce(0)
    scene.bench.tell(e.Drain(3.0))
    scene.bench.wait(2.9)
    assert scene.bench.ended is None
    scene.bench.wait(0.2)
    assert scene.bench.ended == c.Ended(0, "drained")


def test_a_drain_before_the_run_ends_at_once() -> None:
    """Nothing has begun: nothing is waited for, and nothing is said afterwards."""
    scene = Scene(running=False)
    assert scene.bench.tell(e.Drain(25.0)) == [c.Ended(0, "drained")]
    assert scene.connect() == []
    assert scene.machine.next_deadline() is None


def test_the_snapshot_says_where_everything_is() -> None:
    """For people: phase, run, and for each task what waits, is leased, and who serves it."""
    scene = Scene(Task("A"), Task("B", depends_on=("A",)))
    scene.worker("A")
    scene.worker("B")
    scene.produce(0)
    snapshot = scene.machine.snapshot()
    assert (snapshot.phase, snapshot.run) == ("running", "run")
    assert (snapshot.leased, snapshot.waiting) == ({"A": 1, "B": 0}, {"A": 0, "B": 0})
    assert snapshot.workers == {"A": 1, "B": 1}
    assert [one.state for one in snapshot.tasks] == ["open", "waiting"]


def test_a_drain_ends_the_wait_for_a_collector_that_is_gone() -> None:
    """Everything is acknowledged, but the collector never says finished: a drain gives it its time, and no more."""
    scene = Scene()
    scene.worker()
    scene.exhaust("A")
    assert scene.machine.phase == "finishing"
    scene.bench.tell(e.Drain(25.0))
    scene.bench.wait(24.0)
    assert scene.machine.phase == "finishing"
    scene.bench.wait(1.1)
    assert scene.bench.one(c.Ended).status == 1


def test_an_item_over_the_limit_is_a_failed_item() -> None:
    """It is never sent, since it would be refused for ever; its neighbours are, and the collector is told."""
    scene = Scene(options=Options(max_message_bytes=4))
    hand = scene.worker(window=3)
    scene.produce(1, 22222, 3)
    assert hand.given() == [0, 2]
    (item,) = scene.bench.said_one(m.GiveUp).failures
    assert (item.number, item.stage, item.trouble.error, item.payload) == (1, "distributor", "MessageTooLarge", b"")
    scene.ack(0, 2, failed=(1, 2))
    scene.exhaust("A")
    assert scene.bench.said_one(m.Finish).ok is False


def test_a_refusal_that_comes_after_the_word_of_an_early_end_changes_nothing() -> None:
    """A collector that is shut down as the distributor comes says that the run ends, and has no room for its Begin."""
    scene = Scene(running=False)
    scene.connect()
    worker = scene.worker()
    scene.holding()
    scene.collector.says(m.RunEnded("", ok=False, reason="The run ended early."))
    scene.collector.says(m.Refused("This collector holds the run , not run."))
    assert scene.bench.ended is None
    worker.says(m.Goodbye("run", "A"))
    scene.bench.wait(FAREWELL_SECONDS)
    assert scene.bench.ended == c.Ended(1, "The run ended early.")
