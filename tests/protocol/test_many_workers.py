"""What the distributor's machine does for an item does not grow with the number of workers.

Counted are instructions of the interpreter inside of the machine: the same in each run, on every computer.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from examples.benchmarks.machines import TASK, Crowd
from tests.support.scenes import Scene
from tests.support.worker_scene import Scene as WorkerScene
from zmqpipeline.options import Options
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery import workers as delivery_workers
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.hand_out import RECALL_SECONDS
from zmqpipeline.protocol.distributor import DistributorMachine

FEW, MANY = 10, 150


class Steps:
    """Counts the instructions that are executed inside of `DistributorMachine.handle`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on."""
        self.count = 0
        handle = DistributorMachine.handle

        def counted(machine: DistributorMachine, event: Any, now: float) -> Any:
            outer = sys.gettrace()
            sys.settrace(self._trace)
            try:
                return handle(machine, event, now)
            finally:
                sys.settrace(outer)

        monkeypatch.setattr(DistributorMachine, "handle", counted)

    def _trace(self, frame: FrameType, what: str, _: Any) -> Any:
        if what == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.count += what == "opcode"
        return self._trace

    def take(self) -> int:
        """So many since the last call."""
        count, self.count = self.count, 0
        return count


def steps_an_item(steps: Steps, workers: int, each: int, **kind: Any) -> float:
    """How many steps an item takes, and all that comes with it, if each worker has so many."""
    crowd, items = Crowd(workers, **kind), each * workers
    crowd.until(lambda: crowd.machine.tasks[TASK].workers == workers)
    crowd.until(lambda: crowd.now > 3.0)
    steps.take()
    crowd.give(items)
    crowd.until(lambda: crowd.machine.tasks[TASK].ledger.done == items)
    return steps.take() / items


@pytest.mark.parametrize(
    ("kind", "each", "most"),
    [
        ({}, 1, 1.1),
        ({"seconds": 0.002}, 10, 1.1),
        # there are more messages: the more workers there are, the smaller is the share of each
        ({"seconds": 0.005, "item": bytes(100_000)}, 5, 2.5),
        # the run takes longer, and so many more reports of each worker come meanwhile
        ({"rate": 100.0}, 1, 2.0),
    ],
    ids=["ordinary", "short", "large", "by a rate"],
)
def test_an_item_costs_the_same_with_many_workers(
    kind: dict[str, Any], each: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps workers from more: their window, their share of the bytes, a rate."""
    steps = Steps(monkeypatch)
    few, many = steps_an_item(steps, FEW, each, **kind), steps_an_item(steps, MANY, each, **kind)
    assert many < most * few


def test_a_storm_of_reconnects_costs_each_worker_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are lost with an item, and come again: each report asks for what that worker is blamed for alone."""
    steps = Steps(monkeypatch)

    def again(workers: int) -> float:
        crowd = Crowd(workers)
        crowd.until(lambda: crowd.now > 3.0)
        crowd.give(workers, last=True)
        crowd.until(lambda: not crowd.yields)
        steps.take()
        crowd.storm()
        crowd.until(lambda: crowd.machine.phase != "running")
        assert crowd.machine.counts()[0].collected == workers
        return steps.take() / workers

    few, many = again(FEW), again(MANY)
    assert many < 1.25 * few


def test_who_is_full_has_credit_again_when_an_ack_makes_room() -> None:
    """Without a report: it is not looked at meanwhile, and gets the next item at once."""
    scene = Scene(options=Options(max_held_items=2))
    full = scene.worker(window=8)
    scene.produce(0, 1, 2, 3, state="exhausted")
    assert full.given() == [0, 1]
    for done, following in ((0, 2), (1, 3)):
        scene.ack(done)
        assert full.given() == [following]


def test_what_a_full_worker_hands_back_makes_room() -> None:
    """It has credit at once, as after an ACK."""
    scene = Scene(options=Options(max_held_items=2))
    full = scene.worker(window=4)
    scene.produce(0, 1)
    full.report(4, backlog=2)
    assert full.given() == []
    full.says(m.ItemsReturned("run", "A", (1, 2)))
    assert full.given() == [1]


def test_the_longest_inactive_are_recalled_and_the_active_left_alone() -> None:
    """Whoever did something in the last 50 ms is looked at again."""
    scene = Scene()
    stuck, active = scene.worker(window=3), scene.worker(window=3)
    scene.produce(*range(3))
    assert stuck.given() == [0, 1, 2]
    scene.produce(*range(3, 6), state="exhausted")
    assert active.given() == [3, 4, 5]
    scene.worker()
    scene.bench.wait(RECALL_SECONDS * 0.8)
    scene.ack(3)
    scene.bench.wait(RECALL_SECONDS * 0.4)
    assert stuck.was_told(m.Recall) == [m.Recall("run", "A", 2)]
    assert active.was_told(m.Recall) == []
    scene.bench.wait(RECALL_SECONDS * 2)
    assert len(active.was_told(m.Recall)) == 1


def test_the_more_workers_there_are_the_more_seldom_each_reports_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on the full reports of all of them together: each answer to one says how often it is wanted."""
    monkeypatch.setattr(delivery_workers, "REPORTS_A_SECOND", 2)
    scene = Scene()
    for hand in [scene.worker() for _ in range(8)]:
        hand.report(held=(), done=())
        assert [settled.report_seconds for settled in hand.was_told(m.Settled)] == [4.0]


@pytest.mark.parametrize(("wanted", "seconds"), [(0.0, 1.0), (10.0, 10.0), (1e9, 60.0), (float("nan"), 1.0)])
def test_a_worker_reports_all_as_seldom_as_it_is_told(wanted: float, seconds: float) -> None:
    """At least once a second is the rule; who wants it once in a year is not believed."""
    scene = WorkerScene()
    scene.distributor.says(m.Settled("run", "A", (), report_seconds=wanted))
    # the next one of an idle worker was due before it was told
    scene.bench.wait(5.1)
    assert scene.report().held == ()
    scene.work(0)
    scene.bench.wait(seconds * 0.85)
    assert not any(report.held is not None for report in scene.bench.said(m.WorkerReport))
    scene.bench.wait(seconds * 0.25)
    assert scene.report().held == (0, 1)


def test_a_worker_that_is_not_answered_reports_all_each_second() -> None:
    """Whatever it was told before: it may be that its report was lost."""
    scene = WorkerScene()
    scene.distributor.says(m.Settled("run", "A", (), report_seconds=30.0))
    scene.bench.tell(e.Disconnected("workers"))
    scene.bench.tell(e.Connected("workers"))
    scene.bench.wait(1.1)
    assert scene.report().held == ()


def test_what_one_distributor_wanted_is_not_said_to_the_next() -> None:
    """It may have few workers: its answer was lost, and what it is told of the new run is not told for a minute."""
    scene = WorkerScene()
    scene.distributor.says(m.Settled("run", "A", (), report_seconds=30.0))
    scene.bench.tell(e.Disconnected("workers"))
    scene.bench.tell(e.Connected("workers"))
    scene.distributor.says(m.Welcome("another", b"meta"))
    assert scene.report().run == "another"
    scene.bench.wait(5.1)
    assert scene.report().held == ()


def test_a_worker_that_drains_reports_all_each_few_seconds() -> None:
    """It waits for what it may drop, and not for long: a release that was lost is noticed in time."""
    scene = WorkerScene()
    scene.work(0)
    scene.execute(0)
    scene.distributor.says(m.Settled("run", "A", (), report_seconds=60.0))
    scene.bench.tell(e.Drain(25.0))
    assert scene.report().draining
    scene.bench.wait(5.1)
    assert scene.report().held == (0, 1)


def test_beside_a_limit_an_ack_makes_room_for_any_worker() -> None:
    """Whose item it was may say nothing for long: the next one is another worker's as well."""
    scene = Scene(TaskSpec("A", limit=1))
    first, second = scene.worker(), scene.worker()
    scene.produce(0, 1, state="exhausted")
    assert (first.given(), second.given()) == ([0], [])
    scene.ack(0)
    assert second.given() == [1]
