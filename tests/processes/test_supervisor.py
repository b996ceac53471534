"""The policy of `run`: what the end of a process means, without one."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from zmqpipeline.errors import ConfigurationError, PipelineError, RoleDied, WorkerInitError
from zmqpipeline.processes.restarts import FAILED_STARTS_LIMIT, ChildEnded, ChildSlots, Slot
from zmqpipeline.processes.supervisor import DISTRIBUTOR_DEATHS_LIMIT, GRACE, OVERTIME, Plan, RunSupervisor
from zmqpipeline.processes.unanswering import ANSWER_SECONDS, ANSWER_SECONDS_EACH
from zmqpipeline.protocol.messages import ErrorInfo, TaskCounts
from zmqpipeline.runtime.child import Child
from zmqpipeline.runtime.child_report import Told, failed_start

AT_WORK = b"ready\nstarting\nworking\n"
"""What a worker has told that executes items."""


class Numbers:
    """What a collector's machine would show: so many items collected and failed."""

    def __init__(self) -> None:
        self.collected = self.failed = self.inherited = self.inherited_failed = 0

    def snapshot(self) -> Any:
        """The counts of the only task."""
        return SimpleNamespace(tasks={"C": (self.collected, self.failed)})


class Ear:
    """Stands where a child is: keeps the lines that it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.asked_to_end = self.was_killed = False
        self.told = Told()
        self.status: int | None = None
        self.dies, self.pid = True, 4711

    def tell(self, line: str) -> bool:
        """As `Child.tell`."""
        self.lines.append(line)
        return True

    def terminate(self) -> None:
        """As `Child.terminate`."""
        self.asked_to_end = True

    def has_told(self) -> Told:
        """As `Child.has_told`."""
        return self.told

    def kill(self) -> None:
        """As `Child.kill`."""
        self.was_killed = True
        self.status = -9 if self.dies else None

    def join(self, timeout: float) -> None:
        """As `Child.join`."""


class Scene:
    """A supervisor whose children are none, with a distributor and one worker in their places."""

    def __init__(self) -> None:
        self.numbers = Numbers()
        self.collector = SimpleNamespace(machine=self.numbers, counts=[], ok=None, status=0, is_finishing=False)
        self.told_collector: list[str] = []
        ends = partial(self.told_collector.append, "the distributor ends")
        runner = SimpleNamespace(
            reasons=list, tracebacks=list, end=lambda *, final, seconds: None, distributor_ends=ends
        )
        self.distributor, self.worker = Slot("distributor", []), Slot("worker of 'C'", [], "C")
        plan = Plan(
            "p",
            cast(Any, self.collector),
            cast(Any, runner),
            self.distributor,
            [self.worker],
            {"C": None},
            drain_timeout=25,
        )
        self.supervisor = RunSupervisor(plan, ChildSlots([self.distributor, self.worker]))
        self.seat(self.distributor)
        self.seat(self.worker)

    def seat(self, place: Slot) -> Ear:
        """Put a child in a place, as the slots does when it is due."""
        ear = Ear()
        place.child, place.restart_at = cast(Child, ear), None
        return ear

    def ends(self, place: Slot, status: int, told: bytes | None = None, now: float = 100.0) -> None:
        """The child of a place has ended with this status, after it had told this: by default that it is at work."""
        if told is None:
            told = b"ready\n" if place is self.distributor else AT_WORK
        self.supervisor._take(ChildEnded(place, 4711, status, 1.0, Told.read(told)), now)

    def leaves(self, place: Slot, status: int, now: float = 100.0) -> None:
        """The child of a place has ended with this status, as it said it would."""
        self.ends(place, status, AT_WORK + b"exit %d\n" % status, now)

    @property
    def error(self) -> PipelineError | None:
        """What the run ends with, if it is to end."""
        return cast(PipelineError, self.supervisor.error)


@pytest.mark.parametrize("status", [0, 1, 2, 3, 70, 139, -9, -11])
def test_no_status_of_user_code_is_read(status: int) -> None:
    """However often a worker at work dies, with whatever status: its place is due again, and the run goes on."""
    scene = Scene()
    for _ in range(100):
        scene.ends(scene.worker, status)
        assert scene.worker.restart_at == 100.1
    assert scene.error is None


def test_failed_starts_end_the_run() -> None:
    """Five deaths in a row before the worker was ready, whatever it died of; one that was ready interrupts them."""
    scene = Scene()
    for _ in range(FAILED_STARTS_LIMIT - 1):
        scene.ends(scene.worker, -11, b"ready\nstarting\n")
    scene.ends(scene.worker, 1)
    for status in range(FAILED_STARTS_LIMIT - 1):
        scene.ends(scene.worker, status, b"")
    assert scene.error is None
    scene.ends(scene.worker, 1, b"ready\nstarting\nexit 1\n")
    assert isinstance(scene.error, WorkerInitError)
    assert "5 times in a row" in str(scene.error)
    assert scene.supervisor._status() == 3


def test_a_bug_in_an_init_function_ends_the_run_with_its_reason() -> None:
    """The third time in a row; the status is 1, since the program is wrong, and the summary says of what."""
    scene = Scene()
    trouble = ErrorInfo("KeyError", "'m'", "Traceback ...", "app.py:9 begin")
    for now in (100.0, 102.0, 104.0):
        assert scene.error is None
        scene.ends(scene.worker, 1, f"ready\nstarting\n{failed_start(trouble)}\nexit 1\n".encode(), now)
    assert isinstance(scene.error, WorkerInitError)
    assert str(scene.error).endswith(
        "can be initialized, and each would meet the same: KeyError: 'm' in app.py:9 begin."
    )
    outcome = scene.supervisor._outcome()
    assert (outcome.status, [str(one) for one in outcome.summary.reasons]) == (
        1,
        ["C: KeyError: 'm' in app.py:9 begin (init)"],
    )


def test_what_the_class_of_a_worker_raised_is_told_here(caplog: pytest.LogCaptureFixture) -> None:
    """Once, and then their number: it was not yet known to the distributor, which says it of init functions."""
    trouble = ErrorInfo("KeyError", "'m'", "Traceback ...", "app.py:9 begin")
    line = failed_start(trouble)
    for words, number in ((f"ready\nstarting\n{line}", 0), (line, 1)):
        caplog.clear()
        scene = Scene()
        for now in (100.0, 102.0, 104.0):
            assert scene.error is None
            scene.ends(scene.worker, 1, f"{words}\nexit 1\n".encode(), now)
        scene.supervisor.starts.close()
        assert str(scene.error).endswith("each would meet the same: KeyError: 'm' in app.py:9 begin.")
        assert scene.supervisor._status() == 1
        assert caplog.text.count("could not be initialized: KeyError: 'm' in app.py:9 begin. The next") == number
        assert caplog.text.count("KeyError: 'm' in app.py:9 begin: 3 starts of workers of ") == number


def test_what_is_wrong_in_the_configuration_ends_the_run_at_once() -> None:
    """A worker that says itself that it ends with 2, before it was ready or later."""
    for told in (b"exit 2\n", b"ready\nexit 2\n"):
        scene = Scene()
        scene.ends(scene.worker, 2, told)
        assert isinstance(scene.error, ConfigurationError)
        assert scene.supervisor._status() == 2


def test_a_worker_that_retires_is_replaced_at_once() -> None:
    """Without a word to the distributor, without a delay, and without counting against its place."""
    scene = Scene()
    for _ in range(10):
        scene.ends(scene.worker, 0, AT_WORK + b"replace\nexit 0\n")
        assert scene.worker.restart_at == 100.0
        scene.seat(scene.worker)
    assert (scene.worker.failed_starts, cast(Ear, scene.distributor.child).lines) == (0, [])


@pytest.mark.parametrize("status", [-9, -11, 0, 1, 2, 3, 70, 143])
def test_a_distributor_that_dies_is_started_again(status: int) -> None:
    """By a signal, or with a status that user code chose: its place is due again after its delay."""
    scene = Scene()
    scene.ends(scene.distributor, status)
    assert scene.error is None
    assert scene.distributor.restart_at == 100.1
    assert scene.worker.child is not None, "the workers wait for the next one"
    scene.seat(scene.distributor)
    scene.ends(scene.distributor, status)
    assert scene.distributor.restart_at == pytest.approx(100.2)


def test_a_distributor_that_keeps_dying_ends_the_run() -> None:
    """The fifth death in a row without one item done; one that was collected or failed begins the count anew."""
    scene = Scene()
    for progress in ("collected", "failed"):
        for _ in range(DISTRIBUTOR_DEATHS_LIMIT - 1):
            scene.ends(scene.distributor, -9)
        setattr(scene.numbers, progress, 1)
    for _ in range(DISTRIBUTOR_DEATHS_LIMIT - 1):
        scene.ends(scene.distributor, -9)
    assert scene.error is None
    scene.ends(scene.distributor, -9)
    assert isinstance(scene.error, RoleDied)
    assert scene.error.exit_status == 3
    assert "5 times in a row, last by SIGKILL" in str(scene.error)
    assert scene.distributor.restart_at is None


def test_deaths_of_the_distributor_while_finished_runs_do_not_end_the_run() -> None:
    """However many: it is started again each time; those before and after count as ever."""
    scene = Scene()
    for _ in range(DISTRIBUTOR_DEATHS_LIMIT - 1):
        scene.ends(scene.distributor, -9)
    scene.collector.is_finishing = True
    for _ in range(3 * DISTRIBUTOR_DEATHS_LIMIT):
        scene.ends(scene.distributor, -9)
        assert scene.distributor.restart_at is not None
    assert scene.error is None
    scene.collector.is_finishing = False
    for _ in range(DISTRIBUTOR_DEATHS_LIMIT):
        assert scene.error is None
        scene.ends(scene.distributor, -9)
    assert isinstance(scene.error, RoleDied)


@pytest.mark.parametrize(("status", "error"), [(0, RoleDied), (1, RoleDied), (2, ConfigurationError)])
def test_a_distributor_that_leaves_early_is_not_started_again(status: int, error: type[PipelineError]) -> None:
    """It ended of its own accord, or could not start: another one would do the same."""
    scene = Scene()
    scene.leaves(scene.distributor, status)
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
    """What it waited for is over: who still runs has one second. The collector knows before that nobody comes."""
    scene = Scene()
    scene.supervisor._signal(15, 100.0)
    assert scene.told_collector == ["the distributor ends"]
    assert scene.supervisor.deadlines["overtime"] > 120
    scene.ends(scene.distributor, -9)
    assert scene.distributor.restart_at is None
    assert scene.supervisor.deadlines["overtime"] == 100.0 + GRACE


def test_a_worker_that_closes_what_it_opened_may_take_as_long_as_a_drain() -> None:
    """It has said so; whoever has not is killed as soon as nobody is left to tell it that the run is over."""
    scene = Scene()
    scene.supervisor._signal(15, 100.0)
    scene.ends(scene.distributor, -9)
    child = cast(Ear, scene.worker.child)
    child.told = Told(is_closing=True)
    scene.supervisor._overtime_is_due(101.0)
    scene.supervisor._overtime_is_due(120.0)
    assert not child.was_killed
    scene.supervisor._overtime_is_due(102.0 + scene.supervisor.plan.drain_timeout + OVERTIME)
    assert child.was_killed
    scene.worker.child = other = cast(Any, Ear())
    scene.supervisor.closing_by = None
    scene.supervisor._overtime_is_due(101.0)
    assert other.was_killed


def at_the_end() -> Scene:
    """Everything is done, the distributor has ended, and the worker is still there."""
    scene = Scene()
    scene.collector.counts = [TaskCounts("C", "done", 9, 9)]
    scene.leaves(scene.distributor, 0)
    return scene


@pytest.mark.parametrize(("told", "is_killed"), [("working", True), ("answered", False), ("closing", False)])
def test_a_worker_that_does_not_answer_is_killed_when_all_is_done(told: str, is_killed: bool) -> None:
    """It is asked at once. One that answers may drain, and one that closes what it opened may do that."""
    scene = at_the_end()
    child = cast(Ear, scene.worker.child)
    assert child.lines == ["answer"]
    assert scene.supervisor.deadlines["answers"] == 100.0 + ANSWER_SECONDS + ANSWER_SECONDS_EACH
    child.told = Told.read(AT_WORK + f"{told}\n".encode())
    scene.supervisor._answers_is_due(105.0)
    assert child.was_killed == is_killed


def test_nobody_waits_for_what_the_system_does_not_let_die() -> None:
    """A process that is held in a call of the system is killed, and left when it has not gone."""
    scene = at_the_end()
    cast(Ear, scene.worker.child).dies = False
    scene.supervisor._collector_ended(None, 101.0)
    assert not scene.supervisor._over()
    scene.supervisor._answers_is_due(105.0)
    assert scene.supervisor._over()


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
    scene.leaves(scene.worker, 70)
    scene.leaves(scene.worker, 0)
    ear = cast(Ear, scene.distributor.child)
    assert ear.lines == ["died 4711 killed by SIGKILL", "died 4711 exit status 70"]


def test_a_worker_may_die_while_there_is_no_distributor() -> None:
    """Between two lives of the distributor nobody is told, and the worker is started again as ever."""
    scene = Scene()
    scene.ends(scene.distributor, -9)
    scene.ends(scene.worker, -9)
    assert scene.error is None
    assert scene.worker.restart_at == 100.1
