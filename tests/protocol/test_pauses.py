"""The pause of a task outlives its distributor: the collector keeps it, and tells the next one."""

from __future__ import annotations

import pytest

from tests.support.collector_scene import Scene as CollectorScene
from tests.support.scenes import Hand, Scene, Task
from zmqpipeline.errors import Retry
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.error_info import RETRY

INF = float("inf")


def asks(hand: Hand, number: int, after: float, *, pause: bool = True) -> list[c.Command]:
    """A function of this worker wants its item again."""
    trouble = m.ErrorInfo(RETRY, str(Retry(after, pause)))
    return hand.says(m.ItemsFailed("run", [m.FailedItem("A", number, 1, "worker", trouble, b"")]))


def test_the_collector_is_told_of_a_pause_at_once_and_of_what_makes_it_longer() -> None:
    """Not of one that ends sooner, nor of an item that waits alone."""
    scene = Scene()
    worker = scene.worker(slots=4, window=4)
    scene.produce(0, 1, 2, 3)
    asks(worker, 0, 30.0)
    assert scene.bench.said_one(m.Pauses) == m.Pauses("run", [m.TaskPause("A", 30.0)])
    scene.bench.wait(10)
    asks(worker, 1, 20.0)
    asks(worker, 2, 5.0, pause=False)
    assert scene.bench.said(m.Pauses) == []
    asks(worker, 3, 60.0)
    assert scene.bench.said_one(m.Pauses).pauses == [m.TaskPause("A", 60.0)]


def test_a_pause_is_said_again_at_each_connection() -> None:
    """What was said before may be lost with the connection; a collector that knows nothing learns it with the run."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    asks(worker, 0, 30.0)
    scene.bench.tell(e.Disconnected("acks"))
    scene.bench.wait(10)
    scene.connect()
    assert scene.bench.said_one(m.Pauses).pauses == [m.TaskPause("A", pytest.approx(20.0))]
    scene.holding()
    assert scene.bench.said_one(m.Begin).pauses == [m.TaskPause("A", pytest.approx(20.0))]


def test_a_distributor_that_takes_over_heeds_what_the_one_before_was_asked() -> None:
    """Nothing of that task is handed out before; others go on. What was said of an unknown task is nothing."""
    scene = Scene(Task("A"), Task("B"), running=False)
    scene.connect()
    told = [m.TaskPause("A", 12.0), m.TaskPause("C", 12.0), m.TaskPause("B", -1.0)]
    scene.collector.says(m.Holding("run", False, b"meta", 0, [], pauses=told))
    scene.holding("run")
    worker, other = scene.worker(), scene.worker("B")
    assert [one.task for one in scene.bench.all if isinstance(one, c.Produce)] == ["B"]
    scene.produce(0, task="B")
    assert other.given() == [0]
    scene.bench.wait(11.9)
    assert not [one for one in scene.bench.last if isinstance(one, c.Produce)]
    scene.bench.wait(0.2)
    assert [one.task for one in scene.bench.last if isinstance(one, c.Produce)] == ["A"]
    scene.produce(0)
    assert worker.given() == [0]


def test_a_rate_does_not_begin_anew_with_the_pause() -> None:
    """After both a restart and a pause at most one burst comes at once."""
    scene = Scene(Task("A", rate=10.0), running=False)
    scene.connect()
    scene.collector.says(m.Holding("run", False, b"meta", 0, [], pauses=[m.TaskPause("A", 60.0)]))
    scene.holding("run")
    scene.worker(slots=100, window=100)
    scene.bench.wait(60.1)
    (produce,) = [one for one in scene.bench.last if isinstance(one, c.Produce)]
    assert produce.count == 10


def test_the_collector_keeps_what_it_was_told_last() -> None:
    """For whichever distributor asks, less the time that has passed; the journal is told, too."""
    scene = CollectorScene()
    scene.distributor.says(m.Pauses("run", [m.TaskPause("A", 30.0), m.TaskPause("B", 5.0)]))
    assert scene.bench.one(c.KeepPauses).pauses == [m.TaskPause("A", 30.0), m.TaskPause("B", 5.0)]
    scene.distributor.says(m.Pauses("another", [m.TaskPause("A", 99.0)]))
    scene.bench.now += 10
    scene.distributor.says(m.Propose("pipe", "new"))
    assert scene.bench.said_one(m.Holding).pauses == [m.TaskPause("A", 20.0)]
    scene.bench.now += 20
    scene.distributor.says(m.Propose("pipe", "new"))
    assert scene.bench.said_one(m.Holding).pauses == []


def test_a_collector_that_is_started_again_learns_it_with_the_run() -> None:
    """From the distributor, or from its journal."""
    scene = CollectorScene(begun=False)
    scene.distributor.says(m.Begin("pipe", "run", b"meta", [], pauses=[m.TaskPause("A", 30.0)]))
    assert [type(one) for one in scene.bench.last if isinstance(one, c.SetRun | c.KeepPauses)] == [
        c.SetRun,
        c.KeepPauses,
    ]
    assert scene.bench.said_one(m.Holding).pauses == [m.TaskPause("A", 30.0)]
    scene = CollectorScene(begun=False)
    scene.bench.tell(e.Restored("run", b"", [], pauses=[m.TaskPause("A", 30.0)]))
    scene.bench.now += 1
    scene.distributor.says(m.Propose("pipe", "new"))
    assert scene.bench.said_one(m.Holding).pauses == [m.TaskPause("A", 29.0)]


@pytest.mark.parametrize("seconds", [INF, float("nan"), -1.0, 0.0])
def test_what_is_no_time_is_no_pause(seconds: float) -> None:
    """Whoever says it."""
    scene = CollectorScene()
    scene.distributor.says(m.Pauses("run", [m.TaskPause("A", seconds)]))
    scene.distributor.says(m.Propose("pipe", "new"))
    assert scene.bench.said_one(m.Holding).pauses == []
    taking = Scene(running=False)
    taking.connect()
    taking.collector.says(m.Holding("run", False, b"meta", 0, [], pauses=[m.TaskPause("A", seconds)]))
    taking.holding("run")
    taking.worker()
    assert [one.task for one in taking.bench.all if isinstance(one, c.Produce)] == ["A"]


@pytest.mark.parametrize("rate", [None, 2.0])
@pytest.mark.parametrize("phase", ["nobody", "finishing"])
def test_a_pause_that_is_over_wakes_nobody_again(rate: float | None, phase: str) -> None:
    """Neither without workers, nor when every item is done: a distributor would look for what is due, for ever."""
    scene = Scene(Task("A", rate=rate), running=False)
    scene.connect()
    pauses = [m.TaskPause("A", 0.5)]
    scene.collector.says(m.Holding("run", False, b"", 0, [], finishing=phase == "finishing", pauses=pauses))
    if phase == "nobody":
        scene.holding("run")
    scene.bench.wait(0.6)
    due = scene.bench.machine.next_deadline()
    assert due is None or due > scene.bench.now


@pytest.mark.parametrize("count", [1, 7])
def test_who_waited_for_a_rate_and_has_left_is_not_waited_for(count: int) -> None:
    """The bucket fills; nobody takes from it."""
    scene = Scene(Task("A", rate=2.0))
    worker = scene.worker(slots=count, window=count)
    assert scene.bench.machine.next_deadline() is not None
    scene.bench.tell(e.PeerLost(worker.peer))
    for _ in range(50):
        due = scene.bench.machine.next_deadline()
        if due is None:
            break
        assert due > scene.bench.now
        scene.bench.wait(due - scene.bench.now)
