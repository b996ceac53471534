"""A worker that waits for a run which is over ends, and one that may be early for the next waits for it."""

from __future__ import annotations

import pytest

from tests.support.bench import Bench, Stranger
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.missed_run import LOOK_SECONDS, PATIENCE_SECONDS, RECENT_SECONDS
from zmqpipeline.protocol.worker import WorkerMachine


def waiting(options: Options | None = None, *, answers: bool = False) -> Bench:
    """A worker that has just been started, and is connected to nobody."""
    bench = Bench(WorkerMachine("A", slots=1, incarnation=b"w", options=options, answers=answers))
    bench.tell(e.Tick())
    return bench


def working() -> tuple[Bench, Stranger]:
    """A worker of the run ``run``, and its distributor."""
    bench = waiting()
    for hop in ("workers", "results"):
        bench.tell(e.Connected(hop))
    distributor = Stranger(bench, "workers", who=b"d")
    distributor.says(m.Welcome("run", b""))
    return bench, distributor


def ended_with(bench: Bench) -> tuple[int, str]:
    """Status and reason of its end."""
    assert bench.ended is not None
    return bench.ended.status, bench.ended.reason


def test_it_looks_for_a_note_as_long_as_it_waits_for_a_distributor() -> None:
    """Twice a second; not while a distributor is connected, and again when that is gone."""
    bench = waiting()
    bench.wait(10 * LOOK_SECONDS + 0.1)
    assert len(bench.of(c.LookForEnd)) == 10
    bench.tell(e.Connected("results"))
    bench.wait(LOOK_SECONDS)
    assert len(bench.of(c.LookForEnd)) == 1
    bench.tell(e.Connected("workers"))
    bench.wait(60.0)
    assert bench.of(c.LookForEnd) == []
    bench.tell(e.Disconnected("workers"))
    bench.wait(LOOK_SECONDS)
    assert len(bench.of(c.LookForEnd)) == 1


def test_a_worker_of_a_broker_looks_for_none() -> None:
    """It serves one broker after the other."""
    bench = waiting(answers=True)
    bench.wait(60.0)
    assert bench.of(c.LookForEnd) == []
    bench.tell(e.EndFound("run", 1.0))
    assert bench.ended is None


@pytest.mark.parametrize("collector", [False, True])
def test_a_run_that_was_over_while_it_waited_ends_it(collector: bool) -> None:
    """Whether a collector is still there or not."""
    bench = waiting()
    if collector:
        bench.tell(e.Connected("results"))
    bench.wait(3.0)
    bench.tell(e.EndFound("run", 2.9))
    assert ended_with(bench) == (0, "The run was over before this worker could connect to its distributor.")


def test_a_lost_word_of_the_end_is_made_good() -> None:
    """It worked for this very run; the connection broke before the word came."""
    bench, _ = working()
    bench.wait(1.0)
    bench.tell(e.Disconnected("workers"))
    bench.wait(0.1)
    bench.tell(e.EndFound("run", 5.0))
    assert ended_with(bench) == (0, "the run is over")


def test_a_distributor_that_ended_before_any_run_ends_no_worker() -> None:
    """It has no run, and neither has a worker that waits: that is not the same run."""
    bench = waiting()
    bench.tell(e.EndFound("", 30.0))
    assert bench.ended is None


def test_the_end_of_another_run_does_not_end_one_that_works() -> None:
    """It was over before this one lost its distributor, which may come back; one that is over later has replaced it."""
    bench, _ = working()
    bench.wait(1.0)
    bench.tell(e.Disconnected("workers"))
    bench.wait(3.0)
    bench.tell(e.EndFound("another", 3.5))
    assert bench.ended is None
    bench.tell(e.EndFound("another", 1.0))
    assert ended_with(bench)[0] == 0


def test_an_answer_that_comes_after_the_connection_changes_nothing() -> None:
    """A distributor came in the moment in which the note was read."""
    bench = waiting()
    bench.wait(3.0)
    bench.tell(e.Connected("workers"))
    bench.tell(e.EndFound("run", 2.0))
    assert bench.ended is None


def test_a_late_one_waits_for_the_next_run_for_a_while() -> None:
    """The run was over 5 s before it was started: it says so once, ends if nobody came, and says why."""
    bench = waiting()
    late = "The run at this address was over 5.0 s before this worker was started"
    for second in range(1, int(PATIENCE_SECONDS)):
        bench.wait(1.0)
        bench.tell(e.EndFound("run", 5.0 + second))
        assert bench.ended is None
        said = f"{late}. It waits for the next one to begin, for 20 s at most."
        assert bench.logged() == (said if second == 1 else "")
    bench.wait(1.0)
    bench.tell(e.EndFound("run", 5.0 + PATIENCE_SECONDS))
    assert ended_with(bench)[0] == 0
    assert bench.logged().startswith(f"{late}, and no other has begun for 20 s: ending.")


def test_who_was_told_that_it_waits_is_told_of_a_run_that_it_missed_again() -> None:
    """The next run was too short, too."""
    bench = waiting()
    bench.wait(1.0)
    bench.tell(e.EndFound("run", 5.0))
    bench.wait(5.0)
    bench.tell(e.EndFound("another", 1.0))
    assert bench.logged() == "The run was over before this worker could connect to its distributor."
    assert ended_with(bench)[0] == 0


def test_nothing_is_said_beside_a_collector_that_is_there() -> None:
    """It is of the next run."""
    bench = waiting()
    bench.tell(e.Connected("results"))
    bench.wait(1.0)
    bench.tell(e.EndFound("run", 5.0))
    assert bench.logged() == ""


@pytest.mark.parametrize("hop", ["results", "workers"])
def test_whoever_comes_is_of_the_next_run(hop: str) -> None:
    """A collector or a distributor that was there makes it wait on; it is patient anew when that one is gone."""
    bench = waiting()
    bench.wait(PATIENCE_SECONDS - 1)
    bench.tell(e.Connected(hop))
    bench.wait(60.0)
    bench.tell(e.EndFound("run", 65.0 + PATIENCE_SECONDS))
    assert bench.ended is None
    bench.tell(e.Disconnected(hop))
    bench.wait(PATIENCE_SECONDS - 0.5)
    bench.tell(e.EndFound("run", 65.0 + 2 * PATIENCE_SECONDS))
    assert bench.ended is None
    bench.wait(1.0)
    bench.tell(e.EndFound("run", 66.0 + 2 * PATIENCE_SECONDS))
    assert bench.ended is not None


def test_who_is_not_late_waits() -> None:
    """The last run was over long before it was started; or it was told how long to wait."""
    bench = waiting()
    bench.wait(PATIENCE_SECONDS + 1)
    bench.tell(e.EndFound("run", PATIENCE_SECONDS + 1 + RECENT_SECONDS + 1))
    assert bench.ended is None
    told = waiting(Options(idle_timeout=300.0))
    told.wait(PATIENCE_SECONDS + 1)
    told.tell(e.EndFound("run", PATIENCE_SECONDS + 2))
    assert told.ended is None
    assert told.logged().endswith("It waits for the next one to begin, for its idle time-out at most.")


def test_a_distributor_stays_for_those_that_try_to_connect() -> None:
    """Its run is over at once; a worker that comes in within its stay hears of the end, and says goodbye."""
    bench = Bench(DistributorMachine("", [TaskSpec("A", ())], incarnation=b"d", run="run", stay=0.1))
    bench.tell(e.Connected("acks"))
    collector = Stranger(bench, "acks", who=b"c")
    collector.says(m.Holding("", False, b"", 0, []))
    collector.says(m.Holding("run", False, b"", 0, []))
    early = Stranger(bench, "workers", b"1")
    early.says(m.WorkerReport("run", "A", 1, 1, 0, False, (), (), "box", 1))
    bench.tell(e.Produced("A", "exhausted"))
    collector.says(m.Finished("run"))
    early.says(m.Goodbye("run", "A"))
    assert bench.ended is None
    bench.wait(0.05)
    late = Stranger(bench, "workers", b"2")
    late.says(m.WorkerReport("", "A", 1, 1, 0, False, (), (), "box", 2))
    assert late.was_told(m.RunEnded) == [m.RunEnded("run")]
    late.says(m.Goodbye("", "A"))
    assert bench.ended is None
    bench.wait(0.06)
    collector.says(m.Bye("run"))
    assert ended_with(bench) == (0, "the run is over")
    assert bench.machine.is_over


def test_a_distributor_that_ran_for_longer_does_not_stay() -> None:
    """The stay counts from its first event."""
    bench = Bench(DistributorMachine("", [TaskSpec("A", ())], incarnation=b"d", run="run", stay=0.1))
    bench.tell(e.Connected("acks"))
    collector = Stranger(bench, "acks", who=b"c")
    collector.says(m.Holding("", False, b"", 0, []))
    collector.says(m.Holding("run", False, b"", 0, []))
    worker = Stranger(bench, "workers", b"1")
    worker.says(m.WorkerReport("run", "A", 1, 1, 0, False, (), (), "box", 1))
    bench.wait(0.2)
    bench.tell(e.Produced("A", "exhausted"))
    collector.says(m.Finished("run"))
    worker.says(m.Goodbye("run", "A"))
    collector.says(m.Bye("run"))
    assert ended_with(bench) == (0, "the run is over")
