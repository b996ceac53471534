"""The end of a run in the distributor machine: a collector that is finishing, or that serves another one."""

from __future__ import annotations

import pytest

from tests.protocol.scenes import Hand, Scene
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.distributor import FAREWELL_SECONDS
from zmqpipeline.protocol.waiting import WARN_FIRST_SECONDS, WARN_SECONDS


def test_a_finished_run_with_failed_items_is_over_with_status_1() -> None:
    """Nobody says 0 of a run of which not every item was collected; the counts are those that the collector tells."""
    scene = Scene(running=False)
    scene.connect()
    counts = [m.TaskCounts("A", "complete", sent=2, collected=1, failed=1)]
    scene.collector.says(m.Holding("old", True, b"", 2, [], ok=False, counts=counts))
    scene.bench.wait(FAREWELL_SECONDS + 0.1)
    assert scene.bench.one(c.Ended) == c.Ended(1, "already finished")
    assert list(scene.machine.counts()) == counts


@pytest.mark.parametrize(("ok", "status"), [(True, 0), (False, 1)])
def test_a_distributor_that_comes_while_finished_runs_waits_for_it(ok: bool, status: int) -> None:
    """It sends nothing and calls no source, says Finish each second with what it was told, and ends as the run did."""
    scene = Scene(running=False)
    scene.connect()
    counts = [m.TaskCounts("A", "complete", sent=3, collected=2, failed=1)]
    progress = [m.TaskProgress("A", (0, 2), (2, 3))]
    scene.collector.says(m.Holding("old", False, b"meta", 3, progress, finishing=True, ok=ok, counts=counts))
    worker = Hand(scene)
    worker.report(run="old", held=(0, 1), done=(0, 1))
    assert worker.was_told(m.Settled)[-1].released == (0, 1)
    scene.bench.wait(3600.0)
    assert scene.bench.ended is None
    assert (scene.bench.of(c.Produce), scene.bench.of(c.StartTasks), worker.was_told(m.Work)) == ([], [], [])
    assert scene.bench.said(m.Finish)[-1] == m.Finish("old", ok, counts)
    assert scene.bench.said(m.Begin)[-1] == m.Begin("pipe", "old", b"meta", progress)
    scene.collector.says(m.Finished("old"))
    assert worker.was_told(m.RunEnded) == [m.RunEnded("old")]
    scene.bench.wait(FAREWELL_SECONDS + 0.1)
    assert scene.bench.said_one(m.Bye).run == "old"
    assert scene.bench.one(c.Ended) == c.Ended(status, "the run is over")


def test_a_collector_that_does_not_answer_is_told_of_each_minute() -> None:
    """It serves another distributor: whoever waits for its end says so, until it is answered."""
    scene = Scene(running=False)
    scene.connect()
    scene.bench.wait(WARN_FIRST_SECONDS + 2 * WARN_SECONDS + 1)
    assert scene.bench.logged().count("another distributor is connected to it") == 3
    scene.holding()
    scene.holding("run")
    scene.bench.wait(3 * WARN_SECONDS)
    assert "another distributor" not in scene.bench.logged()
