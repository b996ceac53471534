"""Workers that cannot be initialized: said once and counted, and a task that waits for one in vain fails."""

from __future__ import annotations

import pytest

from tests.support.bench import TROUBLE
from tests.support.scenes import Scene, Task
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.failed_starts import PATIENCE_SECONDS
from zmqpipeline.protocol.delivery.failure_kinds import SUM_SECONDS

GOODBYE = m.Goodbye("run", "A", TROUBLE)


def test_a_task_that_no_worker_can_begin_fails() -> None:
    """After a minute, of what the last one failed of; what waits is aborted, and the run is over, not in whole."""
    scene = Scene(Task("A"), Task("B", depends_on=("A",)))
    worker = scene.worker(window=2)
    scene.produce(0, 1)
    worker.says(GOODBYE)
    assert "if none can begin within 60 s, the task fails" in scene.bench.logged()
    scene.bench.wait(PATIENCE_SECONDS - 1)
    assert scene.bench.said(m.Finish) == []
    scene.bench.wait(2)
    finish = scene.bench.said(m.Finish)[-1]
    (told,) = finish.troubles
    assert told.trouble.message == "no worker could be initialized, the last one of ValueError: as planned"
    assert [(one.state, one.aborted) for one in finish.counts] == [("failed", 2), ("aborted", 0)]
    assert not finish.ok


def test_what_the_source_gives_afterwards_is_given_up_too() -> None:
    """It was asked before; a worker that comes too late gets nothing, and is told of the end."""
    scene = Scene(Task("A"), Task("B"))
    other, worker = scene.worker("B"), scene.worker(window=9)
    worker.says(GOODBYE)
    scene.bench.wait(PATIENCE_SECONDS + 1)
    scene.produce(0, 1, state="exhausted")
    assert (scene.state(), scene.machine.tasks["A"].ledger.unfinished) == ("failed", 0)
    late = scene.worker(window=9)
    assert late.given() == []
    scene.exhaust("B")
    assert [one.aborted for one in scene.bench.said_one(m.Finish).counts] == [2, 0]
    scene.collector.says(m.Finished("run"))
    assert not late.was_told(m.RunEnded)[0].ok
    assert other.was_told(m.RunEnded)


@pytest.mark.parametrize("way", ["an item is done", "one is there"])
def test_a_task_that_may_get_on_is_waited_for(way: str) -> None:
    """While something of it was done since, or a worker is there, perhaps still initializing, nothing ends."""
    scene = Scene()
    worker, other = scene.worker(window=2), scene.worker(window=1)
    scene.produce(0, 1)
    worker.says(GOODBYE)
    if way == "an item is done":
        scene.ack(0)
        other.says(m.Goodbye("run", "A"))
    scene.bench.wait(3 * PATIENCE_SECONDS)
    assert scene.state() == "open"
    if way == "one is there":
        other.says(GOODBYE)
        assert scene.state() == "failed", "the last one has failed, too"


def test_who_is_lost_while_it_initializes_leaves_nobody() -> None:
    """It was killed after the patience was over: there is nothing to wait for any more."""
    scene = Scene()
    worker, other = scene.worker(), scene.worker()
    scene.produce(0)
    worker.says(GOODBYE)
    scene.bench.wait(2 * PATIENCE_SECONDS)
    assert scene.state() == "open"
    other.is_lost()
    assert scene.state() == "failed"


def test_the_patience_is_shorter_if_the_user_has_less() -> None:
    """`exit_when_idle`; a longer one changes nothing."""
    scene = Scene(options=Options(exit_when_idle=3.0))
    scene.worker().says(GOODBYE)
    scene.bench.wait(2.9)
    assert scene.state() == "open"
    scene.bench.wait(0.2)
    assert scene.state() == "failed"


def test_failed_starts_of_a_kind_are_counted() -> None:
    """The first in a line, the others as their number after ten seconds."""
    scene = Scene()
    stays = scene.worker()
    lines = []
    for _ in range(50):
        scene.worker().says(GOODBYE)
        lines.append(scene.bench.logged())
    assert sum("could not be initialized" in line for line in lines) == 1
    scene.bench.wait(SUM_SECONDS)
    assert scene.bench.logged() == "ValueError: as planned: 50 workers of 'A' could not be initialized"
    assert stays.was_told(m.RunEnded) == []


def test_a_task_whose_workers_have_left_says_so() -> None:
    """As one that never had any: after five seconds, then each minute."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    worker.says(m.Goodbye("run", "A"))
    scene.bench.wait(4.9)
    assert "No worker serves" not in scene.bench.logged()
    scene.bench.wait(0.2)
    assert "No worker serves task 'A'; its items wait." in scene.bench.logged()
    assert [one for one in scene.bench.all if isinstance(one, c.Ended)] == []
    scene.bench.tell(e.Drain(0.0))


def test_the_collector_is_told_at_once() -> None:
    """Of the first of a kind, and of the first after which nobody is left; not of all."""
    scene = Scene()
    first, second = scene.worker(window=1), scene.worker(window=1)
    first.says(GOODBYE)
    assert scene.bench.said(m.Unready) == [m.Unready("run", "A", TROUBLE, 0.0)]
    second.says(GOODBYE)
    assert scene.bench.said(m.Unready) == [m.Unready("run", "A", TROUBLE, PATIENCE_SECONDS)]
    assert "No worker of it is left" in scene.bench.logged(40)
    scene.worker(window=1).says(GOODBYE)
    assert (scene.bench.said(m.Unready), scene.bench.logged(40)) == ([], "")


def test_a_collector_that_is_away_is_told_when_it_is_back() -> None:
    """Its connection was broken just then."""
    scene = Scene()
    worker = scene.worker(window=1)
    scene.bench.tell(e.Disconnected("acks"))
    worker.says(GOODBYE)
    assert scene.bench.said(m.Unready) == []
    scene.bench.tell(e.Connected("acks"))
    assert scene.bench.said(m.Unready) == [m.Unready("run", "A", TROUBLE, PATIENCE_SECONDS)]


def test_who_supervises_says_it_alone() -> None:
    """`run`, of which the collector is a part."""
    scene = Scene(supervised="box")
    scene.worker(window=1).says(GOODBYE)
    assert scene.bench.said(m.Unready) == []
