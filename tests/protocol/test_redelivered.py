"""How often items were delivered again, and results came again, outlives the distributor: the collector knows of it."""

from __future__ import annotations

from tests.support.collector_scene import Scene as CollectorScene
from tests.support.scenes import TROUBLE, Scene
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.fields import MAX_NUMBER


def counted(scene: Scene) -> tuple[int, int]:
    """What the summary would say now of deliveries and results that were not the first."""
    counts = scene.machine.tasks["A"].counts()
    return counts.redelivered, counts.duplicates


def held(scene: CollectorScene) -> tuple[int, int]:
    """What this collector tells a distributor that knows of no run."""
    scene.distributor.says(m.Propose("pipe", "new"))
    (known,) = scene.bench.said_one(m.Holding).progress
    return known.redelivered, known.duplicates


def test_the_collector_counts_the_attempts_of_what_ends_and_tells_the_next_distributor() -> None:
    """Results and failed items alike, each once; with each ACK, and with what it holds."""
    scene = CollectorScene()
    scene.results(0)
    scene.results(1, 2, attempt=3)
    scene.results(1, attempt=4)
    scene.collected(0)
    scene.collected(1, 2, attempt=3)
    ack = scene.bench.said_one(m.Ack)
    assert (ack.redelivered, ack.duplicates) == (4, 1)
    failed = m.FailedItem("A", 3, 2, "worker", TROUBLE, b"")
    scene.distributor.says(m.GiveUp("run", [failed]))
    scene.distributor.says(m.GiveUp("run", [failed]))
    assert held(scene) == (5, 1)


def test_a_distributor_that_takes_over_goes_on_with_what_the_collector_knows() -> None:
    """Its own come on top; what the collector has counted since is counted once."""
    scene = Scene(running=False)
    scene.connect()
    scene.holding("run", m.TaskProgress("A", (0, 2), (), redelivered=8, duplicates=2), count=2)
    scene.holding("run", m.TaskProgress("A", (0, 2), (), redelivered=8, duplicates=2), count=2)
    assert counted(scene) == (8, 2)
    first = scene.worker()
    scene.produce(0, 1, 2)
    assert first.given() == [2]
    scene.bench.tell(e.PeerLost(first.peer))
    second = scene.worker()
    assert second.given() == [2]
    assert counted(scene) == (9, 2)
    scene.collector.says(m.Ack("run", "A", (2, 3), (), 2, 3, b"", redelivered=9))
    assert counted(scene) == (9, 2)
    # an item that had been delivered again by the one before
    scene.collector.says(m.Ack("run", "A", (3, 4), (), 3, 4, b"", redelivered=11))
    assert counted(scene) == (11, 3)


def test_a_collector_is_told_of_what_is_under_way_when_nothing_ends() -> None:
    """A distributor that waits says it again each second; a collector that was started again learns it, too."""
    scene = Scene()
    first = scene.worker()
    scene.produce(0)
    scene.bench.tell(e.PeerLost(first.peer))
    scene.worker()
    scene.bench.wait(1.1)
    (begin,) = (one for one in scene.bench.said(m.Begin) if one.progress[0].redelivered)
    assert begin.progress[0].redelivered == 1
    for begun in (True, False):
        collector = CollectorScene(begun=begun)
        collector.distributor.says(m.Begin("pipe", "run", b"meta", begin.progress))
        assert held(collector) == (1, 0)
        # the item ends: that it was delivered again is known already
        collector.results(0, attempt=2)
        assert held(collector) == (1, 0)


def test_what_a_worker_claims_can_always_be_said() -> None:
    """Whatever attempt it names."""
    scene = CollectorScene()
    scene.results(0, 1, attempt=MAX_NUMBER)
    scene.collected(0, 1, attempt=MAX_NUMBER)
    (sent,) = [one for one in scene.bench.last if isinstance(one, c.Send) and isinstance(one.envelope.body, m.Ack)]
    assert codec.decode(codec.encode(sent.envelope)) == sent.envelope


def test_a_distributor_that_has_delivered_all_knows_better_than_the_collector() -> None:
    """A worker that was lost and came back may end its item in an attempt that was never sent."""
    scene = Scene()
    worker = scene.worker()
    scene.produce(0)
    assert worker.given() == [0]
    scene.collector.says(m.Ack("run", "A", (0, 1), (), 0, 1, b"", redelivered=1))
    assert counted(scene) == (0, 0)
