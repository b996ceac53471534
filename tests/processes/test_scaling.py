"""Who is started and who is sent away when the number of workers changes, without a process."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any, cast

import pytest

from zmqpipeline.processes.autoscale import LOOK, REST, Autoscale
from zmqpipeline.processes.restarts import FAILED_STARTS_LIMIT, ChildEnded, ChildSlots, Slot, Verdict
from zmqpipeline.processes.scaling import UNSEEN, ScaledTask, Start
from zmqpipeline.processes.worker_numbers import Bounds
from zmqpipeline.processes.worker_places import TaskPlaces
from zmqpipeline.protocol.messages import Status, TaskCounts, TaskStatus, WorkerStatus
from zmqpipeline.runtime.child import LEAVE, Child, desired_notice, read_desired_notice
from zmqpipeline.runtime.child_report import Told

HERE = socket.gethostname()
AT_WORK = Told.read(b"ready\nstarting\nworking\n")
TASK = TaskStatus(TaskCounts("C", "open", 100, 90), 1000, 0, 0, 4, 4, 10.0, 0, "")
WORKER = WorkerStatus(f"{HERE}/1", "C", HERE, 1, 1, "busy", 1, 9, [])


class Worker:
    """Stands where a child is."""

    def __init__(self, pid: int, told: Told = AT_WORK) -> None:
        self.pid, self.told, self.started, self.asked_to_end = pid, told, 0.0, False

    def has_told(self) -> Told:
        """As `Child.has_told`."""
        return self.told

    def terminate(self) -> None:
        """As `Child.terminate`."""
        self.asked_to_end = True

    def tell(self, line: str) -> bool:
        """As `Child.tell`."""
        self.asked_to_end = self.asked_to_end or line == LEAVE
        return True


class Scene:
    """A task of eight places, of which some are filled."""

    def __init__(self, filled: int, least: int = 1) -> None:
        of_task = TaskPlaces("C", Bounds(least, 8), lambda n: Slot(f"worker {n + 1} of 'C'", [], "C"))
        self.places = of_task.slots
        self.workers = [Worker(n + 1) for n in range(filled)]
        for n, place in enumerate(self.places):
            place.is_wanted = n < filled
            place.child = cast(Child, self.workers[n]) if n < filled else None
        self.slots = ChildSlots(list(self.places[:filled]))
        self.task = ScaledTask(Autoscale(least, 8), of_task)
        self.task.law.desired = of_task.given = filled
        self.now = 100.0

    def look(self, states: dict[int, str], **given: Any) -> None:
        """The distributor says that it has these workers, by process id."""
        workers = [
            replace(WORKER, pid=pid, state=state, leased=int(state == "busy"), host="elsewhere" if pid > 100 else HERE)
            for pid, state in states.items()
        ]
        status = Status("p", "r", "running", 1.0, "", [replace(TASK, **given)], workers)
        self.now += LOOK
        self.task.watch_starts(self.now)
        self.task.take(status, self.slots, self.now)

    @property
    def leaving(self) -> list[int]:
        """Who was asked to."""
        return [worker.pid for worker in self.workers if worker.asked_to_end]

    @property
    def wanted(self) -> list[int]:
        """The places that are, by number."""
        return [number for number, place in enumerate(self.places) if place.is_wanted]


def test_it_grows_by_places_that_are_empty() -> None:
    """When all are busy, at the second look; they are due at once."""
    scene = Scene(1)
    scene.look({1: "busy"})
    assert scene.wanted == [0]
    scene.look({1: "busy"})
    assert scene.wanted == list(range(8))
    assert [place.restart_at for place in scene.places] == [None] + [scene.now] * 7
    assert scene.slots.places == scene.places


def test_only_who_is_idle_or_has_not_come_is_sent_away() -> None:
    """The last ones first, and nobody who is busy; who is still to come is not waited for any more."""
    scene = Scene(6)
    for _ in range(int(REST / LOOK) + 2):
        scene.look({1: "busy", 2: "ready", 3: "busy", 4: "ready", 5: "ready"})
    assert scene.wanted == [0, 2]
    assert scene.leaving == [2, 4, 5, 6]


def test_nobody_who_is_busy_is_sent_away() -> None:
    """Though fewer are desired: it waits for one to be idle."""
    scene = Scene(3)
    scene.task.law.desired = 1
    scene.look({1: "busy", 2: "busy", 3: "busy"}, total=90)
    assert scene.leaving == []
    scene.look({1: "busy", 2: "ready", 3: "busy"}, total=90)
    assert scene.leaving == [2]


def test_a_task_whose_source_raised_keeps_its_workers_for_what_is_under_way() -> None:
    """And no longer."""
    scene = Scene(2)
    failed = TaskCounts("C", "failed", 100, 90)
    for _ in range(int(REST / LOOK) + 2):
        scene.look({1: "busy", 2: "busy"}, counts=failed, waiting=5)
    assert len(scene.wanted) >= 2
    for _ in range(int(REST / LOOK) + 2):
        scene.look({1: "ready", 2: "ready"}, counts=failed, waiting=0)
    assert len(scene.wanted) == 1


def test_who_joins_from_elsewhere_counts() -> None:
    """Fewer of ours are filled, but no fewer than the least."""
    scene = Scene(1, least=1)
    for _ in range(3):
        scene.look({1: "busy", 101: "busy", 102: "busy", 103: "busy"})
    assert len(scene.wanted) == 8 - 3
    scene = Scene(4, least=2)
    for _ in range(int(REST / LOOK) + 2):
        scene.look({1: "ready", 2: "ready", 3: "ready", 4: "ready", 101: "busy", 102: "busy", 103: "busy"})
    assert len(scene.wanted) == 2


def test_a_place_that_drains_is_wanted_again_last() -> None:
    """An empty one is filled first; one that drains is filled when it has."""
    scene = Scene(2)
    scene.slots.dismiss(scene.places[1])
    assert (scene.leaving, scene.wanted) == ([2], [0])
    for _ in range(2):
        scene.look({1: "busy", 2: "draining"})
    assert scene.wanted == list(range(8))
    assert scene.places[1].restart_at is None
    end = ChildEnded(scene.places[1], 2, 0, 5.0, Told.read(b"ready\nexit 0\n"))
    assert scene.slots.judge(end, 200.0) is Verdict.REPLACED
    assert scene.places[1].restart_at == 200.0


@pytest.mark.parametrize(("told", "is_signalled"), [(AT_WORK, False), (Told.read(b"ready\nstarting\n"), True)])
def test_who_has_begun_leaves_when_it_has_finished(told: Told, is_signalled: bool) -> None:
    """However long that takes: the signal has a limit of time. Who has not begun may be in a long init function."""
    scene = Scene(1)
    worker = scene.workers[0]
    worker.told, said = told, []
    worker.tell = lambda line: bool(said.append(line)) or True  # type: ignore[method-assign]
    scene.slots.dismiss(scene.places[0])
    assert (said, worker.asked_to_end) == ([] if is_signalled else [LEAVE], is_signalled)


@pytest.mark.parametrize(
    ("told", "status", "verdict"),
    [(b"", -15, Verdict.DISMISSED), (b"ready\nexit 0\n", 0, Verdict.LEFT), (b"ready\nexit 2\n", 2, Verdict.DISMISSED)],
)
def test_the_end_of_one_that_was_sent_away(told: bytes, status: int, verdict: Verdict) -> None:
    """However it ends, nobody follows, and it is no failed start."""
    place = Slot("worker 2 of 'C'", [], "C", is_wanted=False)
    slots = ChildSlots([place])
    assert slots.judge(ChildEnded(place, 2, status, 1.0, Told.read(told)), 100.0) is verdict
    assert (place.restart_at, place.failed_starts) == (None, 0)


@pytest.mark.parametrize(
    ("told", "status", "verdict"),
    [(b"", -15, Verdict.DISMISSED), (b"ready\nexit 0\n", 0, Verdict.REPLACED), (b"ready\n", -9, Verdict.DISMISSED)],
)
def test_the_end_of_one_whose_place_is_wanted_again(told: bytes, status: int, verdict: Verdict) -> None:
    """Another one is due at once, and however often that happens, it is no failed start."""
    place = Slot("worker 1 of 'C'", [], "C")
    slots = ChildSlots([place])
    for _ in range(2 * FAILED_STARTS_LIMIT):
        place.child = cast(Child, Worker(2, Told.read(told)))
        slots.dismiss(place)
        slots.want(place, 100.0)
        assert slots.judge(ChildEnded(place, 2, status, 0.1, Told.read(told)), 200.0) is verdict
        assert (place.restart_at, place.failed_starts) == (200.0, 0)
    place.child = cast(Child, Worker(2))
    assert slots.judge(ChildEnded(place, 2, -11, 0.1, Told()), 300.0) is Verdict.DIED


def test_places_that_are_not_filled_are_no_hope() -> None:
    """A task of which each worker fails to start is hopeless, however many more it might have."""
    places = [Slot("worker 1 of 'C'", [], "C")] + [Slot("w", [], "C", is_wanted=False) for _ in range(7)]
    slots = ChildSlots(places)
    end = ChildEnded(places[0], 1, -11, 0.1, Told())
    verdicts = [slots.judge(end, 100.0) for _ in range(FAILED_STARTS_LIMIT)]
    assert verdicts[-1] is Verdict.HOPELESS


def test_what_a_start_takes() -> None:
    """Until it is ready, and then its init functions, without the time in which it waited for its first item."""
    start = Start(100.0)
    assert start.see(Told.read(b""), 101.0) is None
    assert start.see(Told.read(b"ready\n"), 102.0) is None
    assert start.see(Told.read(b"ready\nstarting\n"), 202.0) is None
    assert start.see(Told.read(b"ready\nstarting\n"), 210.0) is None
    assert start.see(AT_WORK, 232.0) == 2.0 + 30.0
    assert start.see(AT_WORK, 233.0) is None
    assert Start(100.0).see(AT_WORK, 101.0) == 1.0
    assert Start(100.0).see(AT_WORK, 100.0 + UNSEEN + 1) is None, "it may have waited"


def test_the_line_to_the_distributor() -> None:
    """Any name of a task; no other line is taken for it."""
    for task in ("C", "a b", "x\ny", 'q"'):
        assert read_desired_notice(desired_notice(task, 8)) == (task, 8)
    for other in ("died 4711 killed", "desired", "desired x", "desired 8 {"):
        assert read_desired_notice(other) is None
