"""What an earlier life of a run has done is passed over at once, and the source is told of it."""

from __future__ import annotations

from tests.support.scenes import Scene, Task
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.ledger import Ledger


def resumed(progress: m.TaskProgress, task: Task | None = None) -> Scene:
    """A distributor that goes on with a run of which so much is done."""
    scene = Scene(task or Task("A"), running=False)
    scene.connect()
    scene.holding("run", progress)
    scene.holding("run", progress)
    return scene


def test_what_is_done_without_a_gap_is_passed_over_before_the_first_step() -> None:
    """Collected or failed for good, in any order: the source is to pass over all of it, and then to give one item."""
    scene = resumed(m.TaskProgress("A", (0, 5, 6, 9, 12, 14), (5, 6, 9, 10)))
    hand = scene.worker()
    asked = scene.bench.one(c.Produce)
    assert (asked.count, asked.over) == (1, 10)
    scene.bench.tell(e.Produced("A", "more", over=4))
    scene.bench.tell(e.Produced("A", "more", over=6))
    scene.produce(10)
    assert hand.given() == [10]


def test_what_is_done_behind_a_gap_is_passed_over_when_it_comes() -> None:
    """After the items of the gap the next Produce passes over what is done behind them."""
    scene = resumed(m.TaskProgress("A", (0, 5, 6, 9), ()))
    hand = scene.worker()
    assert scene.bench.one(c.Produce).over == 5
    scene.bench.tell(e.Produced("A", "ready", [b"5"], over=5))
    assert hand.given() == [5]
    scene.ack(5)
    hand.report(1)
    assert scene.bench.one(c.Produce).over == 3


def test_a_source_that_ends_while_it_passes_over_is_exhausted() -> None:
    """What is left of it is done: the task is complete."""
    scene = resumed(m.TaskProgress("A", (0, 5), ()))
    scene.worker()
    scene.bench.tell(e.Produced("A", "exhausted", over=5))
    assert scene.state() == "complete"
    assert scene.machine.counts()[0].sent == 5


def test_a_new_run_passes_nothing_over() -> None:
    """What was acknowledged in this life was yielded in it."""
    scene = Scene()
    hand = scene.worker()
    assert scene.bench.one(c.Produce).over == 0
    scene.produce(0)
    scene.ack(0)
    hand.report(1)
    assert scene.bench.one(c.Produce).over == 0


def test_of_keys_more_are_asked_for_the_more_were_known() -> None:
    """Nobody knows which keys come next: as long as they are done ones, twice as many are asked for each time."""
    ledger = Ledger(Task("A", keyed=True))
    keys = [b"%16d" % number for number in range(100)]
    ledger.keys.done.update(keys)
    ledger.take_over(0)
    asked, taken = [], 0
    while taken < 100:
        assert ledger.done_ahead() == 0
        asked.append(ledger.steps_for(1))
        some = keys[taken : taken + asked[-1]]
        ledger.add([b"x"] * len(some), some)
        taken += asked[-1]
    assert asked == [1, 1, 2, 4, 8, 16, 32, 36]
    assert ledger.steps_for(1) == 1
    ledger.add([b"x"], [b"a new one       "])
    assert ledger.steps_for(1) == 1
