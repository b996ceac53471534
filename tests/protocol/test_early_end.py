"""Roles that were still starting when their run was ended early; a note of that ends no role of the next run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.bench import Bench, Stranger
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.early_end import MARGIN_SECONDS, PATIENCE_SECONDS, WAITED_SECONDS
from zmqpipeline.protocol.metadata import MetadataMachine
from zmqpipeline.protocol.worker import WorkerMachine

AGE = 1.5


def distributor(age: float | None = AGE) -> Bench:
    """One that has just begun to wait for a collector."""
    return begun(DistributorMachine("", [TaskSpec("A", ())], incarnation=b"d", run="run", age=age))


def collector(age: float | None = AGE) -> Bench:
    """One that waits for a distributor."""
    return begun(CollectorMachine("", incarnation=b"c", age=age))


def worker(age: float | None = AGE) -> Bench:
    """One that waits for both."""
    return begun(WorkerMachine("A", slots=1, incarnation=b"w", age=age))


def metadata(age: float | None = AGE) -> Bench:
    """A metadata worker that waits for a distributor."""
    return begun(MetadataMachine(b"meta", incarnation=b"m", age=age))


def begun(machine: object) -> Bench:
    """Its first event."""
    bench = Bench(machine)  # type: ignore[arg-type]
    bench.tell(e.Tick())
    return bench


def note(bench: Bench, ago: float, waited: float = PATIENCE_SECONDS) -> e.EndFound:
    """Interrupted so many seconds before the role began, which waits for `waited` seconds by now."""
    return e.EndFound("", ago + waited, "distributor" if isinstance(bench.machine, CollectorMachine) else "collector")


ROLES: list[Callable[..., Bench]] = [distributor, collector, worker, metadata]
every_role = pytest.mark.parametrize("role", ROLES)


@every_role
@pytest.mark.parametrize("ago", [AGE - MARGIN_SECONDS - 0.01, 0.0, 0.01 - WAITED_SECONDS])
def test_a_process_that_was_there_at_the_interruption_belongs_to_that_run(
    role: Callable[..., Bench], ago: float
) -> None:
    """It looks for a note after a while, each second, and ends; it says who was interrupted."""
    bench = role()
    bench.wait(PATIENCE_SECONDS - 0.1)
    assert not any(isinstance(one, c.LookForEnd) for one in bench.all if role is not worker)
    bench.wait(0.2)
    assert c.LookForEnd() in bench.all
    bench.tell(note(bench, ago, PATIENCE_SECONDS + 0.1))
    assert bench.ended is not None
    assert bench.ended.status == (1 if role in (distributor, collector) else 0)
    said = "\n".join([bench.ended.reason, *(one.text for one in bench.all if isinstance(one, c.Log))])
    who = "distributor" if role is collector else "collector"
    assert f"The run ended early: the {who} was interrupted or shut down" in said


@every_role
@pytest.mark.parametrize(
    "ago",
    [
        AGE - MARGIN_SECONDS + 0.01,  # it was started after that, or just then: for the next run
        60.0,
        -WAITED_SECONDS - 0.01,  # it has waited for long by then: it was told, or another run is meant
    ],
)
def test_no_other_process_is_ended(role: Callable[..., Bench], ago: float) -> None:
    """However long it waits, and however often the note is read."""
    bench = role()
    bench.wait(PATIENCE_SECONDS - 1)
    for second in range(int(PATIENCE_SECONDS), 60):
        bench.wait(1.0)
        bench.tell(note(bench, ago, second))
        assert bench.ended is None


@every_role
def test_who_meets_its_company_works_for_it(role: Callable[..., Bench]) -> None:
    """Also when that is gone again: it is the company of the next run."""
    bench = role()
    if role is collector:
        peer = Stranger(bench, "acks", b"1", who=b"d")
        peer.says(m.Propose("", "next"))
        bench.tell(e.PeerLost(peer.peer))
    else:
        hop = {distributor: "acks", worker: "results", metadata: "metadata"}[role]
        bench.tell(e.Connected(hop))
        bench.tell(e.Disconnected(hop))
    bench.wait(10.0)
    bench.tell(note(bench, 0.0, 10.0))
    assert bench.ended is None


@every_role
def test_nobody_is_ended_before_the_others_had_the_time_to_come(role: Callable[..., Bench]) -> None:
    """They may be on their way, whoever's they are."""
    bench = role()
    bench.wait(PATIENCE_SECONDS - 0.1)
    bench.tell(note(bench, 0.5, PATIENCE_SECONDS - 0.1))
    assert bench.ended is None


@every_role
def test_a_role_that_is_not_told_its_age_looks_for_nothing(role: Callable[..., Bench]) -> None:
    """Simulations, for which there are no notes."""
    bench = role(None)
    bench.wait(20.0)
    bench.tell(note(bench, 0.0, 20.0))
    assert bench.ended is None
    assert role is worker or c.LookForEnd() not in bench.all


def test_a_collector_tells_its_workers() -> None:
    """They have its company, and nobody else who could tell them."""
    bench = collector()
    hand = Stranger(bench, "results", b"1", who=b"w")
    hand.says(m.Kept("", "A", ()))
    bench.wait(PATIENCE_SECONDS)
    bench.tell(note(bench, 0.0))
    (told,) = hand.was_told(m.RunEnded)
    assert not told.ok
    assert "the distributor was interrupted" in told.reason


def test_a_second_distributor_that_is_interrupted_has_ended_no_run() -> None:
    """It waits for the answer of a collector that another one is at work with: no note is left of it."""
    second = distributor()
    second.tell(e.Connected("acks"))
    second.tell(e.Drain(10.0, final=True))
    alone = distributor()
    alone.tell(e.Drain(10.0, final=True))
    assert (second.machine.interrupted_at, alone.machine.interrupted_at) == (None, alone.now)


def test_a_collector_that_is_interrupted_after_the_end_has_ended_no_run() -> None:
    """Only a drain that is final, and comes before `finished` has returned, ends a run early."""
    bench = collector()
    bench.tell(e.Drain(10.0))
    assert bench.machine.interrupted_at is None
    bench = collector()
    peer = Stranger(bench, "acks", b"1", who=b"d")
    peer.says(m.Begin("", "run", b"", []))
    peer.says(m.Finish("run", True, []))
    bench.tell(e.Drain(10.0, final=True))
    assert bench.machine.interrupted_at == bench.now
    bench.tell(e.FinishedCalled())
    assert bench.machine.interrupted_at is None
