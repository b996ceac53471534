"""The end of a run in the distributor machine: a collector that is finishing, or that serves another one."""

from __future__ import annotations

import pytest

from tests.support.bench import Bench, Stranger
from tests.support.scenes import Hand, Scene
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.distributor import FAREWELL_SECONDS
from zmqpipeline.protocol.waiting import WARN_FIRST_SECONDS, WARN_SECONDS
from zmqpipeline.protocol.worker import WorkerMachine


def test_a_finished_run_with_failed_items_is_over_with_status_1() -> None:
    """Nobody says 0 of a run of which not every item was collected; the counts are those that the collector tells."""
    scene = Scene(running=False)
    scene.connect()
    counts = [m.TaskCounts("A", "complete", sent=2, collected=1, failed=1)]
    scene.collector.says(m.Holding("old", True, b"", 2, [], ok=False, counts=counts))
    scene.bench.wait(FAREWELL_SECONDS + 0.1)
    scene.collector.says(m.Bye("old"))
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
    assert scene.bench.said(m.Begin)[-1] == m.Begin("pipe", "old", b"meta", [m.TaskProgress("A", (), (), told=3)])
    scene.collector.says(m.Finished("old"))
    (told,) = worker.was_told(m.RunEnded)
    assert (told.run, told.ok) == ("old", ok)
    scene.bench.wait(FAREWELL_SECONDS + 0.1)
    assert scene.bench.said_one(m.Bye).run == "old"
    scene.collector.says(m.Bye("old"))
    assert scene.bench.one(c.Ended) == c.Ended(status, told.reason or "the run is over")


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


PATIENT = Options(exit_when_idle=30.0)


@pytest.mark.parametrize("connected", [False, True], ids=["no collector", "no answer"])
def test_a_distributor_that_waits_for_nobody_ends(connected: bool) -> None:
    """With 75, as nothing is known to be collected; what it hears from the collector begins the time anew."""
    scene = Scene(running=False, options=PATIENT)
    scene.bench.tell(e.Tick())
    if connected:
        scene.connect()
    scene.bench.wait(29.9)
    assert scene.bench.ended is None
    scene.bench.wait(0.2)
    assert scene.bench.ended is not None
    assert scene.bench.ended.status == 75


def test_a_distributor_with_a_collector_ends_only_when_that_one_is_gone() -> None:
    """A run may take any time; a connection that is back is not missing."""
    scene = Scene(options=PATIENT)
    scene.bench.wait(3600.0)
    scene.bench.tell(e.Disconnected("acks"))
    scene.bench.wait(29.0)
    scene.connect()
    scene.bench.wait(3600.0)
    assert scene.bench.ended is None
    scene.bench.tell(e.Disconnected("acks"))
    scene.bench.wait(30.1)
    assert scene.bench.ended == c.Ended(75, "No collector was there for 30 s (exit_when_idle).")


def test_a_collector_that_waits_for_nobody_ends() -> None:
    """With 75; not while a distributor is there, also one that waits for its metadata, and not within a call."""
    machine = CollectorMachine("pipe", incarnation=b"collector", options=PATIENT)
    bench = Bench(machine)
    bench.tell(e.Tick())
    bench.wait(29.0)
    distributor = Stranger(bench, "acks", b"d1", who=b"distributor")
    distributor.says(m.Propose("pipe", "run"))
    bench.wait(3600.0)
    distributor.says(m.Begin("pipe", "run", b"", [m.TaskProgress("A", (), ())]))
    bench.wait(3600.0)
    Stranger(bench, "results", b"w1", who=b"worker").says(m.Results("run", "A", 1, (0, 1), [b"x"]))
    bench.tell(e.PeerLost(("acks", b"d1")))
    bench.wait(3600.0)
    assert bench.ended is None
    bench.tell(e.Collected("A", (0, 1), [], b""))
    assert bench.ended == c.Ended(75, "No distributor was there for 30 s (exit_when_idle).")


def test_a_collector_whose_distributor_left_before_it_began_waits_again() -> None:
    """It had proposed a run and no more: from its end on nobody is there, which is said and is counted."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector", options=PATIENT))
    Stranger(bench, "acks", b"d1", who=b"distributor").says(m.Propose("pipe", "run"))
    bench.tell(e.PeerLost(("acks", b"d1")))
    bench.wait(30.1)
    assert bench.ended == c.Ended(75, "No distributor was there for 30 s (exit_when_idle).")


def test_a_worker_that_waits_for_nobody_ends() -> None:
    """With 0; not while it executes something, and not while distributor and collector are there."""
    machine = WorkerMachine("A", slots=1, incarnation=b"worker", options=PATIENT)
    bench = Bench(machine)
    for hop in ("workers", "results"):
        bench.tell(e.Connected(hop))
    bench.wait(3600.0)
    bench.tell(e.Disconnected("results"))
    bench.wait(29.9)
    assert bench.ended is None
    bench.wait(0.2)
    assert bench.of(c.TakeBack) == [c.TakeBack(None)]
    bench.tell(e.TakenBack([]))
    assert bench.ended is not None
    assert bench.ended.status == 0


@pytest.mark.parametrize(("pipeline", "said"), [("pipe", "on the run old;"), ("other", "of the pipeline 'other'")])
def test_a_newcomer_with_a_wrong_journal_ends(pipeline: str, said: str) -> None:
    """The distributor that is at work is not refused, which would end it; one that only asks for a run is."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector"))
    bench.tell(e.Restored("mine", b"", []))
    distributor = Stranger(bench, "acks", b"d1", who=b"distributor")
    distributor.says(m.Begin(pipeline, "old", b"", []))
    assert bench.said(m.Refused) == []
    assert bench.ended is not None
    assert bench.ended.status == 2
    assert said in bench.ended.reason


def test_a_collector_at_work_refuses_a_distributor_of_another_run() -> None:
    """There it is the distributor that comes newly, and its own collector may be anywhere."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector"))
    bench.tell(e.Restored("mine", b"", []))
    first = Stranger(bench, "acks", b"d1", who=b"first")
    first.says(m.Begin("pipe", "mine", b"", []))
    bench.tell(e.PeerLost(("acks", b"d1")))
    Stranger(bench, "acks", b"d2", who=b"second").says(m.Begin("pipe", "old", b"", []))
    assert "not old" in bench.said_one(m.Refused).reason
    assert bench.ended is None
