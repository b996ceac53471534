"""A worker that has done what one process may do: it takes no more than it may, and leaves with all acknowledged."""

from __future__ import annotations

import pytest

from tests.protocol.test_worker import Scene
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m


def test_it_wants_no_more_than_it_may_execute() -> None:
    """The window is never more than what is left, from the first report on."""
    scene = Scene(slots=4, max_items=3)
    assert {report.window for report in scene.bench.said(m.WorkerReport)} == {3}
    scene.work(0)
    scene.execute(0, seconds=0.001)
    assert scene.machine._room.window == 2


def test_what_is_too_much_is_handed_back_at_once() -> None:
    """Of items that came, the first so many are executed; the others go elsewhere, and the report says why."""
    scene = Scene(slots=4, max_items=3)
    scene.work(0)
    scene.work(1, 2, 3, 4)
    assert scene.bench.one(c.Execute).numbers == range(1, 3)
    assert scene.bench.said_one(m.ItemsReturned).spans == (3, 5)
    assert scene.report().window == 3
    scene.work(5)
    assert scene.bench.of(c.Execute) == []
    assert scene.bench.said_one(m.ItemsReturned).spans == (5, 6)


def test_it_leaves_when_all_is_acknowledged() -> None:
    """Its last item done, it drains, for as long as it takes; failed items count as well."""
    scene = Scene(slots=2, max_items=2)
    scene.work(0, 1)
    scene.execute(0, failing=[1])
    assert {(report.draining, report.window) for report in scene.bench.said(m.WorkerReport)} == {(True, 0)}
    assert "it has executed 2 items (max_items)" in scene.bench.logged(20)
    scene.bench.tell(e.TakenBack([]))
    scene.bench.wait(3600.0)
    assert scene.bench.ended is None
    assert not scene.machine.lifespan.has_ended
    scene.settle(0, 1)
    assert scene.bench.one(c.Ended) == c.Ended(0, "drained")
    assert scene.machine.lifespan.has_ended


def test_retire_waits_for_what_runs() -> None:
    """A Retire takes back what is unstarted, and waits for the rest without a time limit; one is enough."""
    scene = Scene(slots=2)
    scene.work(0, 1, 2)
    scene.execute(0)
    scene.bench.tell(e.Retire("it has grown", 30))
    assert scene.bench.one(c.TakeBack).count is None
    assert "it has grown" in scene.bench.logged(30)
    scene.bench.tell(e.TakenBack([2]))
    assert scene.bench.said_one(m.ItemsReturned).spans == (2, 3)
    assert scene.bench.tell(e.Retire("it has grown more", 30)) == []
    scene.settle(0)
    scene.bench.wait(600.0)
    assert scene.bench.ended is None
    scene.execute(1)
    scene.settle(1)
    assert scene.bench.ended == c.Ended(0, "drained")
    assert scene.machine.lifespan.reason == "it has grown"


def test_nobody_retires_before_the_first_item() -> None:
    """A successor would be no better, and the run would never get on."""
    scene = Scene()
    assert scene.bench.tell(e.Retire("it is large", 30)) == []
    assert scene.machine.phase == "working"


def test_sigterm_gives_a_retiring_worker_a_time_limit() -> None:
    """Whoever asks it to end does not wait for ever; it is no successor's place that it leaves then."""
    scene = Scene(max_items=1)
    scene.work(0)
    scene.execute(0)
    scene.bench.tell(e.TakenBack([]))
    scene.bench.wait(60.0)
    scene.bench.tell(e.Drain(5.0))
    scene.bench.wait(4.0)
    assert scene.bench.ended is None
    scene.bench.wait(1.1)
    assert scene.bench.ended == c.Ended(0, "drained")
    assert not scene.machine.lifespan.has_ended


def test_the_end_of_the_run_is_no_retirement() -> None:
    """A worker that hears it while it waits for its acknowledgements needs no successor."""
    scene = Scene(max_items=1)
    scene.work(0)
    scene.execute(0)
    scene.distributor.says(m.RunEnded("run"))
    assert scene.bench.ended == c.Ended(0, "the run is over")
    assert not scene.machine.lifespan.has_ended


@pytest.mark.parametrize("attempt", [1, 3])
def test_the_limit_holds_for_items_that_come_again(attempt: int) -> None:
    """Those of a later attempt, too; what it holds already, and hears of again, does not count twice."""
    scene = Scene(slots=2, max_items=2)
    scene.work(0, 1, attempt=attempt)
    scene.work(0, 1, attempt=attempt)
    assert scene.bench.said(m.ItemsReturned) == []
    scene.work(2, attempt=attempt)
    assert scene.bench.said_one(m.ItemsReturned).spans == (2, 3)
