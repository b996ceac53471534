"""The worker machine, law by law: when it drains, and when it ends."""

from __future__ import annotations

import math

import pytest

from tests.support.bench import TROUBLE
from tests.support.worker_scene import Scene
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m


@pytest.fixture
def scene() -> Scene:
    """A worker of one thread that is at work on `run`."""
    return Scene()


def test_draining_hands_back_what_is_unstarted_and_ends_when_all_is_released(scene: Scene) -> None:
    """SIGTERM: no new items, the running one finishes, its result is kept until it is acknowledged, then the end."""
    scene.work(0, 1, 2)
    scene.bench.tell(e.Drain(25.0))
    assert scene.bench.one(c.TakeBack).count is None
    assert (scene.report().draining, scene.report().window) == (True, 0)
    scene.bench.tell(e.TakenBack([2, 1]))
    assert scene.bench.said_one(m.ItemsReturned).spans == (1, 3)
    scene.execute(0)
    assert scene.bench.said_one(m.Results).spans == (0, 1)
    assert scene.bench.ended is None
    scene.settle(0)
    assert scene.bench.one(c.Ended).status == 0
    assert scene.bench.said_one(m.Goodbye).trouble is None


def test_work_that_crosses_a_drain_is_handed_back(scene: Scene) -> None:
    """An item that was under way when the drain began is taken off the queue again."""
    scene.work(0)
    scene.bench.tell(e.Drain(25.0))
    scene.bench.tell(e.TakenBack([]))
    scene.work(1)
    assert scene.bench.one(c.TakeBack).count is None
    scene.bench.tell(e.TakenBack([1]))
    assert scene.bench.said_one(m.ItemsReturned).spans == (1, 2)


def test_an_idle_worker_drains_at_once(scene: Scene) -> None:
    """Nothing held, nothing to wait for: the answer of the threads ends it."""
    scene.bench.tell(e.Drain(25.0))
    scene.bench.tell(e.TakenBack([]))
    assert scene.bench.one(c.Ended).status == 0


def test_a_drain_without_a_limit_waits_for_what_runs(scene: Scene) -> None:
    """However long; a signal gives it one."""
    scene.work(0, 1)
    scene.bench.tell(e.Drain(math.inf))
    scene.bench.tell(e.TakenBack([1]))
    scene.bench.wait(1000.0)
    assert scene.bench.ended is None
    scene.bench.tell(e.Drain(3.0))
    scene.bench.wait(3.5)
    assert scene.bench.ended == c.Ended(0, "drained")


def test_a_drain_ends_in_time_all_the_same(scene: Scene) -> None:
    """An item that does not finish is left to others; the log says how many."""
    scene.work(0)
    scene.bench.tell(e.Drain(3.0))
    scene.bench.tell(e.TakenBack([]))
    scene.bench.wait(2.9)
    assert scene.bench.ended is None
    scene.bench.wait(0.2)
    assert scene.bench.ended == c.Ended(0, "drained")
    assert "1 items" in scene.bench.logged()


def test_the_idle_time_out_ends_a_worker_without_items() -> None:
    """The time counts from the last item, not while one runs, and the status is 0."""
    scene = Scene(options=Options(idle_timeout=5.0))
    scene.bench.wait(4.0)
    scene.work(0)
    scene.bench.wait(60.0)
    assert scene.bench.ended is None
    scene.execute(0)
    scene.settle(0)
    scene.bench.wait(4.9)
    assert scene.machine.phase == "working"
    scene.bench.wait(0.2)
    assert scene.machine.phase == "draining"
    assert "idle time-out" in scene.bench.logged(20)
    scene.bench.tell(e.TakenBack([]))
    assert scene.bench.one(c.Ended).status == 0


def test_a_worker_that_nobody_answers_times_out_too() -> None:
    """A worker that never finds a distributor ends by its idle time-out, counted from the first connection."""
    scene = Scene(welcomed=False, options=Options(idle_timeout=5.0))
    scene.bench.tell(e.Connected("workers"))
    scene.bench.wait(5.1)
    assert scene.machine.phase == "draining"


def test_the_end_of_the_run_is_the_end_of_the_worker(scene: Scene) -> None:
    """RunEnded is answered with Goodbye, and the status is 0."""
    scene.distributor.says(m.RunEnded("run"))
    assert scene.bench.said_one(m.Goodbye).trouble is None
    assert scene.bench.one(c.Ended) == c.Ended(0, "the run is over")
    assert scene.work(0) == []


def test_the_end_of_another_run_is_not_its_own(scene: Scene) -> None:
    """A worker that has joined a new run does not end with the old one."""
    scene.distributor.says(m.RunEnded("old"))
    assert scene.bench.ended is None


def test_a_worker_that_never_joined_ends_with_any_run() -> None:
    """A worker that came too late for its first item is told that it may go."""
    scene = Scene(welcomed=False)
    scene.connect()
    scene.distributor.says(m.RunEnded("run"))
    assert scene.bench.one(c.Ended).status == 0


def test_a_refusal_ends_it_with_the_reason(scene: Scene) -> None:
    """A distributor without this task says so; that is a configuration error."""
    scene.distributor.says(m.Refused("This distributor has no task 'A'."))
    assert scene.bench.one(c.Ended) == c.Ended(2, "This distributor has no task 'A'.")


def test_a_failed_init_ends_it_with_status_1(scene: Scene) -> None:
    """`init_worker` raised: the distributor hears why, so that its items go to others."""
    scene.work(0)
    scene.bench.tell(e.InitFailed(TROUBLE))
    assert scene.bench.one(c.Ended) == c.Ended(1, "ValueError: as planned")
    assert scene.bench.said_one(m.Goodbye).trouble == TROUBLE


def test_a_lost_thread_is_one_slot_less_and_the_last_one_the_end() -> None:
    """Threads that are stuck past a time-out count as occupied; when all are, the worker ends with status 70."""
    scene = Scene(slots=2)
    scene.work(0, 1, 2)
    scene.bench.tell(e.ThreadLost(1))
    assert scene.report().slots == 1
    scene.bench.tell(e.ThreadLost(0))
    assert scene.bench.one(c.Ended).status == 70
    assert scene.bench.said(m.Goodbye)


def test_an_ended_machine_says_nothing_more(scene: Scene) -> None:
    """After Ended every event is without effect, and no time is waited for."""
    scene.distributor.says(m.RunEnded("run"))
    for event in (e.Tick(), e.Drain(1.0), e.Connected("workers"), e.TakenBack([])):
        assert scene.bench.tell(event) == []
    assert scene.bench.machine.next_deadline() is None
