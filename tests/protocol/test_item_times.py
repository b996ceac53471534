"""How long items took, from the workers to `status`: told once a second, added up, counted once."""

from __future__ import annotations

from tests.support.worker_scene import Scene
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery import item_times
from zmqpipeline.protocol.delivery.item_times import TaskTimes, no_times, without
from zmqpipeline.protocol.fields import MAX_NUMBER
from zmqpipeline.protocol.messages import ItemTimes
from zmqpipeline.protocol.status_records import ITEM_SECONDS


def times(number: int, seconds: float) -> ItemTimes:
    """So many items of the first class."""
    return ItemTimes([number, *[0] * len(ITEM_SECONDS)], seconds)


def test_what_a_worker_tells_again_counts_once() -> None:
    """Also if it was lost and came back in between; what it told before a goodbye stays."""
    found = TaskTimes()
    found.told(b"a", times(5, 1.0))
    found.told(b"a", times(7, 1.5))
    found.told(b"b", times(1, 0.25))
    assert (found.sum(), found.of(b"a"), found.of(b"c")) == (times(8, 1.75), 1.5, 0.0)
    found.left(b"b", times(3, 0.5))
    assert found.sum() == times(10, 2.0)
    found.left(b"a", None)
    assert found.sum() == times(10, 2.0)


def test_what_does_not_fit_is_dropped() -> None:
    """A list of another length, or none."""
    found = TaskTimes()
    found.told(b"a", ItemTimes([1], 1.0))
    found.told(b"a", None)
    assert found.sum() == no_times()


def test_sums_can_be_sent() -> None:
    """However much workers claim."""
    found = TaskTimes()
    for who in (b"a", b"b", b"c"):
        found.told(who, times(MAX_NUMBER, 1e300))
    assert found.sum().counts[0] == MAX_NUMBER


def test_few_workers_are_remembered() -> None:
    """Of those that came first and are forgotten, what they told stays."""
    found = TaskTimes()
    for number in range(item_times.REMEMBERED + 10):
        found.told(b"%d" % number, times(1, 1.0))
    assert found.sum().counts[0] == item_times.REMEMBERED + 10
    assert len(found._told) == item_times.REMEMBERED


def test_the_difference_of_counts() -> None:
    """Of a worker that stays for the next run."""
    assert without(times(7, 2.0), times(5, 1.5)) == times(2, 0.5)


def scene_with(told: list[ItemTimes]) -> Scene:
    """A worker whose threads have counted what is last in the list."""
    scene = Scene()
    scene.machine._times = lambda: told[-1]
    return scene


def test_full_reports_and_the_goodbye_have_them() -> None:
    """Reports between two seconds do not: they are many."""
    told = [no_times()]
    scene = scene_with(told)
    scene.work(0, 1, 2)
    told.append(times(3, 0.5))
    scene.execute(0, 1, 2)
    assert [one.times for one in scene.bench.said(m.WorkerReport) if one.held is None] == [None]
    scene.bench.wait(1.5)
    assert times(3, 0.5) in [one.times for one in scene.bench.said(m.WorkerReport)]
    told.append(times(4, 0.75))
    scene.distributor.says(m.RunEnded("run", True, ""))
    assert scene.bench.said_one(m.Goodbye).times == times(4, 0.75)


def test_a_worker_that_stays_tells_of_each_run_its_own() -> None:
    """What it executed in the run before is not counted in the next one."""
    told = [times(5, 1.0)]
    scene = scene_with(told)
    scene.distributor.says(m.Welcome("next", b""))
    told.append(times(8, 1.25))
    scene.bench.tell(e.Tick())
    scene.bench.wait(6)
    found = [one.times for one in scene.bench.said(m.WorkerReport) if one.held is not None]
    assert found == [times(3, 0.25)] * len(found) != []
