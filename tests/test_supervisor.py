"""The policy of `run`: what the end of a process means, without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from zmqpipeline.errors import ConfigurationError, PipelineError, RoleDied
from zmqpipeline.protocol.messages import TaskCounts
from zmqpipeline.runtime.crew import ChildEnded, Crew, Place
from zmqpipeline.runtime.processes import Child
from zmqpipeline.supervisor import DISTRIBUTOR_DEATHS_LIMIT, GRACE, IDLE_DEATHS_LIMIT, IdleDeaths, Plan, RunSupervisor


class Numbers:
    """What a collector's machine would show: so many items collected and failed."""

    def __init__(self) -> None:
        self.collected = self.failed = self.inherited = 0

    def snapshot(self) -> Any:
        """The counts of the only task."""
        return SimpleNamespace(tasks={"C": (self.collected, self.failed)})


class Ear:
    """Stands where a child is: keeps the lines that it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.asked_to_end = False

    def tell(self, line: str) -> bool:
        """As `Child.tell`."""
        self.lines.append(line)
        return True

    def terminate(self) -> None:
        """As `Child.terminate`."""
        self.asked_to_end = True


class Scene:
    """A supervisor whose children are none, with a distributor and one worker in their places."""

    def __init__(self) -> None:
        self.numbers = Numbers()
        self.collector = SimpleNamespace(machine=self.numbers, counts=[], ok=None, status=0, is_finishing=False)
        self.distributor, self.worker = Place("distributor", []), Place("worker of 'C'", [], "C")
        plan = Plan("p", cast(Any, self.collector), self.distributor, [self.worker], {"C": None}, drain_timeout=25.0)
        self.supervisor = RunSupervisor(plan, Crew([self.distributor, self.worker]))
        self.seat(self.distributor)
        self.seat(self.worker)

    def seat(self, place: Place) -> Ear:
        """Put a child in a place, as the crew does when it is due."""
        ear = Ear()
        place.child, place.restart_at = cast(Child, ear), None
        return ear

    def ends(self, place: Place, status: int, now: float = 100.0) -> None:
        """The child of a place has ended with this status."""
        self.supervisor._take(ChildEnded(place, 4711, status, 1.0), now)

    @property
    def error(self) -> PipelineError | None:
        """What the run ends with, if it is to end."""
        return cast(PipelineError, self.supervisor.error)


def test_failed_items_do_not_hide_that_workers_keep_dying() -> None:
    """A worker that dies as it starts gives up items at their crash limit; only a collected one proves it well."""
    scene = Scene()
    for _ in range(IDLE_DEATHS_LIMIT - 1):
        scene.numbers.failed += 1
        scene.ends(scene.worker, -11)
    scene.numbers.collected += 1
    scene.ends(scene.worker, -11)
    for _ in range(IDLE_DEATHS_LIMIT - 2):
        scene.ends(scene.worker, -11)
    assert scene.error is None
    scene.ends(scene.worker, -11)
    assert isinstance(scene.error, RoleDied)


def test_deaths_count_only_without_a_collected_item() -> None:
    """One collected item in between begins the count anew."""
    deaths = IdleDeaths(3)
    assert [deaths.add(collected) for collected in (0, 0, 1, 1, 1)] == [False, False, False, False, True]


@pytest.mark.parametrize("status", [-9, -11, 3, 70, 143])
def test_a_distributor_that_dies_is_started_again(status: int) -> None:
    """By a signal or with a status that no distributor ends with: its place is due again after its delay."""
    scene = Scene()
    scene.ends(scene.distributor, status)
    assert scene.error is None
    assert scene.distributor.restart_at == 100.1
    assert scene.worker.child is not None, "the workers wait for the next one"
    scene.seat(scene.distributor)
    scene.ends(scene.distributor, status)
    assert scene.distributor.restart_at == pytest.approx(100.2)


def test_a_distributor_that_keeps_dying_ends_the_run() -> None:
    """The fifth death in a row without one item collected; a collected item begins the count anew."""
    scene = Scene()
    for _ in range(DISTRIBUTOR_DEATHS_LIMIT - 1):
        scene.ends(scene.distributor, -9)
    scene.numbers.collected = 1
    for _ in range(DISTRIBUTOR_DEATHS_LIMIT - 1):
        scene.ends(scene.distributor, -9)
    assert scene.error is None
    scene.ends(scene.distributor, -9)
    assert isinstance(scene.error, RoleDied)
    assert scene.error.exit_status == 3
    assert "5 times in a row, last by SIGKILL" in str(scene.error)
    assert scene.distributor.restart_at is None


@pytest.mark.parametrize(("status", "error"), [(0, RoleDied), (1, RoleDied), (2, ConfigurationError)])
def test_a_distributor_that_leaves_early_is_not_started_again(status: int, error: type[PipelineError]) -> None:
    """It ended of its own accord, or could not start: another one would do the same."""
    scene = Scene()
    scene.ends(scene.distributor, status)
    assert isinstance(scene.error, error)
    assert scene.distributor.restart_at is None
    assert cast(Ear, scene.worker.child).asked_to_end


def test_a_distributor_that_dies_after_the_last_item_is_not_missed() -> None:
    """`finished` has returned: nobody is started again, and the exit status is the collector's."""
    scene = Scene()
    scene.collector.counts, scene.collector.ok = [TaskCounts("C", "complete", collected=1)], True
    scene.ends(scene.distributor, -9)
    assert scene.error is None
    assert scene.distributor.restart_at is None
    assert scene.supervisor._status() == 0
    scene.supervisor._collector_ended(None, 101.0)
    assert scene.error is None
    assert scene.supervisor._status() == 0


def test_a_distributor_that_dies_while_finished_runs_is_started_again() -> None:
    """There is somebody to be told of the end, and nothing is cut off, however long it takes."""
    scene = Scene()
    scene.collector.counts, scene.collector.ok = [TaskCounts("C", "complete", collected=1)], True
    scene.collector.is_finishing = True
    scene.ends(scene.distributor, -9)
    assert scene.error is None
    assert scene.distributor.restart_at is not None
    assert scene.supervisor.deadlines == {}


def test_a_distributor_is_not_started_again_while_the_run_drains() -> None:
    """What it waited for is over: who still runs has one second."""
    scene = Scene()
    scene.supervisor._signal(15, 100.0)
    assert scene.supervisor.deadlines["overtime"] > 120
    scene.ends(scene.distributor, -9)
    assert scene.distributor.restart_at is None
    assert scene.supervisor.deadlines["overtime"] == 100.0 + GRACE


def test_nobody_waits_for_a_collector_that_is_gone() -> None:
    """If the collector could not open its journal, what the workers still do could not be acknowledged."""
    scene = Scene()
    scene.supervisor._collector_ended(ConfigurationError("no journal"), 100.0)
    assert scene.supervisor.deadlines["overtime"] == 100.0 + GRACE
    assert cast(Ear, scene.worker.child).asked_to_end
    assert scene.supervisor._status() == 2


def test_the_distributor_is_told_how_a_worker_died() -> None:
    """One line with the process id and the cause; not for a worker that ended in good order."""
    scene = Scene()
    scene.ends(scene.worker, -9)
    scene.ends(scene.worker, 70)
    scene.ends(scene.worker, 0)
    ear = cast(Ear, scene.distributor.child)
    assert ear.lines == ["died 4711 killed by SIGKILL", "died 4711 exit status 70"]


def test_a_worker_may_die_while_there_is_no_distributor() -> None:
    """Between two lives of the distributor nobody is told, and the worker is started again as ever."""
    scene = Scene()
    scene.ends(scene.distributor, -9)
    scene.ends(scene.worker, -9)
    assert scene.error is None
    assert scene.worker.restart_at == 100.1
