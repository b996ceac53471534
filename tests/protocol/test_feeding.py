"""Tasks that results of others feed, in a distributor and a collector played by hand."""

from __future__ import annotations

from tests.protocol.test_status import ask, why
from tests.support.scenes import Scene, Task
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import size
from zmqpipeline.protocol.to_collector import REPEAT_SECONDS

CHAIN = (Task("A"), Task("B", for_each=("A",)))


def gives(scene: Scene, count: int, *numbers: int, waiting: int = 10, closed: bool = True, task: str = "B") -> None:
    """These items of A are acknowledged, and there are so many of B now."""
    scene.count += len(numbers)
    spans = tuple(end for number in numbers for end in (number, number + 1))
    outbox = m.Outbox(task, count, waiting, closed)
    scene.collector.says(m.Ack("run", "A", spans, (), 0, scene.count, b"", outboxes=[outbox]))


def fetched(scene: Scene, *spans: int, task: str = "B") -> None:
    """The collector hands these out."""
    scene.collector.says(m.Fetched("run", task, spans, [b"x"] * size(spans)))


def asked(scene: Scene) -> list[tuple[int, int]]:
    """What the last event made the distributor ask for: from where on, and how many."""
    return [(one.start, one.count) for one in scene.collector.was_told(m.Fetch)]


def test_what_there_is_is_asked_for_as_workers_have_room() -> None:
    """For each task once at a time, from where it was left."""
    scene = Scene(*CHAIN)
    worker = scene.worker("B", window=3)
    assert asked(scene) == []
    gives(scene, 5)
    assert asked(scene) == [(0, 3)]
    gives(scene, 7)
    assert asked(scene) == []
    fetched(scene, 0, 3)
    assert worker.given() == [0, 1, 2]
    worker.report(3)
    assert asked(scene) == [(3, 3)]


def test_an_unanswered_question_is_said_again() -> None:
    """After a second, and to a collector that is new."""
    scene = Scene(*CHAIN)
    scene.worker("B", window=2)
    gives(scene, 5)
    scene.bench.now += 2 * REPEAT_SECONDS
    scene.bench.tell(e.Tick())
    assert asked(scene) == [(0, 2)]
    fetched(scene, 0, 2)
    fetched(scene, 0, 2)
    assert not scene.collector.was_told(m.Begin)
    assert scene.machine.tasks["B"].ledger.leased == 2


def test_what_lies_between_is_done_or_asked_about() -> None:
    """Numbers that are missing in an answer are done; if that was not heard, the collector says again what it holds."""
    scene = Scene(*CHAIN)
    worker = scene.worker("B", window=4)
    gives(scene, 6)
    fetched(scene, 2, 4)
    assert worker.given() == []
    assert scene.collector.was_told(m.Begin)
    scene.machine.tasks["B"].ledger._is_first = False
    scene.collector.says(
        m.Holding("run", False, b"meta", 2, [m.TaskProgress("B", (0, 2), ())], outboxes=[m.Outbox("B", 6, 10, True)])
    )
    assert asked(scene) == [(2, 4)]
    fetched(scene, 2, 4)
    assert worker.given() == [2, 3]


def test_a_stage_is_over_when_all_that_feeds_it_is() -> None:
    """And when all that they gave is done."""
    scene = Scene(*CHAIN)
    a, b = scene.worker("A", window=2), scene.worker("B", window=2)
    scene.produce(0, 1)
    scene.exhaust("A")
    gives(scene, 1, 0)
    fetched(scene, 0, 1)
    scene.ack(0, task="B")
    assert (scene.state("A"), scene.state("B")) == ("exhausted", "open")
    gives(scene, 2, 1)
    assert (scene.state("A"), scene.state("B")) == ("complete", "open")
    b.report(2)
    fetched(scene, 1, 2)
    assert (scene.state("B"), scene.machine.phase) == ("exhausted", "running")
    scene.ack(1, task="B")
    assert (scene.state("B"), scene.machine.phase) == ("complete", "finishing")
    assert a.given() == []


def test_a_circle_is_over_when_nothing_of_it_is_left() -> None:
    """Not before its first items are all there, nor while an item is out that may give others."""
    scene = Scene(Task("P", for_each=("P",)))
    worker = scene.worker("P", window=5)
    scene.collector.says(m.Ack("run", "", (), (), 0, 0, b"", outboxes=[m.Outbox("P", 1, 1, False)]))
    fetched(scene, 0, 1, task="P")
    assert worker.given() == [0]

    def done(number: int, count: int, *, closed: bool) -> None:
        scene.count += 1
        outbox = m.Outbox("P", count, 1, closed)
        scene.collector.says(m.Ack("run", "P", (number, number + 1), (), 0, scene.count, b"", outboxes=[outbox]))

    done(0, 2, closed=False)
    worker.report(5)
    fetched(scene, 1, 2, task="P")
    scene.collector.says(m.Ack("run", "", (), (), 0, 0, b"", outboxes=[m.Outbox("P", 2, 1, True)]))
    assert scene.state("P") == "open"
    done(1, 2, closed=True)
    assert (scene.state("P"), scene.machine.phase) == ("complete", "finishing")


def test_a_feeder_is_held_back_by_what_waits() -> None:
    """Until enough of it is done; `status` says so of both."""
    scene = Scene(*CHAIN, options=Options(max_waiting_bytes=100))
    a = scene.worker("A", window=2)
    scene.produce(0, 1)
    gives(scene, 4, 0, 1, waiting=101)
    a.report(2)
    assert scene.bench.of(c.Produce) == []
    assert why(scene) == "held back: 101 B wait for 'B' (max_waiting_bytes)"
    assert why(scene, "B") == "no worker for 'B'"
    assert next(one.waiting for one in ask(scene).tasks if one.counts.task == "B") == 4
    scene.worker("B", window=4)
    assert why(scene, "B") == "waits for the collector to give its next items"
    fetched(scene, 0, 4)
    scene.count += 4
    scene.collector.says(m.Ack("run", "B", (0, 4), (), 0, 6, b"", outboxes=[m.Outbox("B", 4, 0, True)]))
    assert scene.bench.of(c.Produce) != []
    assert why(scene, "B") == "waits for results of 'A'"


def test_status_says_by_what_is_gathered() -> None:
    """Of one that waits for the last of a group."""
    scene = Scene(Task("A"), Task("B", for_each=("A",)), Task("C", for_each=("B",), gather="A"))
    scene.worker("C", window=1)
    scene.collector.says(m.Ack("run", "", (), (), 0, 0, b"", outboxes=[m.Outbox("C", 0, 0, True)]))
    assert why(scene, "C") == "waits for results of 'B', to gather them by 'A'"


def test_one_that_has_not_begun_holds_nobody_back() -> None:
    """It waits for the very task that would be held back."""
    scene = Scene(Task("A"), Task("B", ("A",), for_each=("A",)), options=Options(max_waiting_bytes=100))
    a = scene.worker("A", window=1)
    scene.produce(0)
    gives(scene, 4, 0, waiting=101)
    a.report(1)
    assert scene.bench.of(c.Produce) != []


def test_what_a_source_of_first_items_raised_fails_the_task() -> None:
    """When what it had given is done."""
    scene = Scene(Task("P", for_each=("P",)))
    trouble = m.ErrorInfo("ValueError", "no more")
    scene.collector.says(m.Ack("run", "", (), (), 0, 0, b"", outboxes=[m.Outbox("P", 0, 0, True, trouble)]))
    assert scene.state("P") == "failed"
    assert scene.machine.troubles == {"P": trouble}


def test_what_nobody_will_do_is_counted_as_aborted() -> None:
    """Items of a stage that is given up, which nobody has asked for."""
    scene = Scene(*CHAIN)
    gives(scene, 3)
    scene.machine.tasks["B"].state = "failed"
    counts = next(one for one in scene.machine.counts() if one.task == "B")
    assert (counts.sent, counts.aborted) == (3, 3)


def test_who_depends_on_a_stage_waits_for_its_feeders() -> None:
    """Each of them is named."""
    scene = Scene(*CHAIN, Task("D", ("B",)))
    assert why(scene, "D") == "waits for 'B': 0 done, 0 under way, 'A': 0 done, 0 under way"
