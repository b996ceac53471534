"""How many workers a task is given by orders, who is started and who is sent away for it, without a process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from tests.processes.test_scaling import TASK, WORKER, Worker
from zmqpipeline.processes.autoscale import LOOK
from zmqpipeline.processes.restarts import ChildSlots, Slot
from zmqpipeline.processes.scaling import Scaler
from zmqpipeline.processes.worker_numbers import Bounds
from zmqpipeline.processes.worker_places import (
    PROCESSES_PER_CORE,
    Staff,
    TaskPlaces,
    WorkerPlaces,
    most_on_this_machine,
)
from zmqpipeline.protocol.messages import Status
from zmqpipeline.runtime.child import MAX_LINE_LENGTH, Child
from zmqpipeline.runtime.child_report import Told


class Ear(Worker):
    """Stands where a distributor is."""

    def __init__(self) -> None:
        super().__init__(1)
        self.lines: list[str] = []

    def tell(self, line: str) -> bool:
        """As `Child.tell`."""
        Child.said(line)
        self.lines.append(line)
        return True


class Scene:
    """A run with one task, whose workers begin and end at once; who watches it keeps what it is told."""

    def __init__(self, least: int, most: int, limit: int = 6, task: str = "C") -> None:
        self.task = TaskPlaces(task, Bounds(least, most), lambda n: Slot(f"worker {n + 1}", [], task), limit)
        self.places = WorkerPlaces({task: self.task})
        self.slots = ChildSlots(self.places.all[:0])
        self.distributor, self.hears, self.now = Ear(), True, 100.0
        self.told: list[Staff | None] = []
        self.places.watcher = self
        self._pid = 0
        for place in self.places.all:
            if place.is_wanted:
                self.slots.add(place, self.now)
        self.turn()

    def staffed(self, task: str, staff: Staff) -> bool:
        """As `StaffWatcher`."""
        if self.hears:
            self.told.append(staff)
        return self.hears

    def ends(self) -> None:
        """As `StaffWatcher`."""
        self.told.append(None)

    def turn(self, *, is_ending: bool = False) -> None:
        """What is due is started, and everybody is told."""
        for place in self.slots.places:
            if place.restart_at is not None and place.restart_at <= self.now:
                self._pid += 1
                place.child, place.restart_at = cast(Child, Worker(self._pid)), None
        self.places.tell(cast(Child, self.distributor), is_ending=is_ending)

    def order(self, number: int | None) -> None:
        """The page has ordered so many."""
        self.places.order(self.task.task, number, self.slots, self.now)
        self.turn()

    def has_drained(self) -> None:
        """All that were asked to leave have left."""
        for place in self.task:
            if place.child is not None and cast(Worker, place.child).asked_to_end:
                place.child = None
                if place.is_wanted:
                    self.slots.add(place, self.now)
        self.turn()

    @property
    def at_work(self) -> list[int]:
        """The places with a worker that has not been asked to leave, by number."""
        filled = ((n, cast(Any, place.child)) for n, place in enumerate(self.task))
        return [n for n, child in filled if child is not None and not child.asked_to_end]


def test_more_are_ordered_than_there_are_places() -> None:
    """New places are made, and are the run's."""
    scene = Scene(2, 2)
    scene.order(4)
    assert scene.at_work == [0, 1, 2, 3]
    assert len(scene.places.all) == 4
    assert scene.distributor.lines == ['desired 4 "C"']
    assert scene.told == [Staff(2, 2, False), Staff(4, 4, True)]


def test_fewer_are_ordered() -> None:
    """The last ones leave, those that are not ready before the others; their places are filled first again."""
    scene = Scene(4, 4)
    cast(Any, scene.task.slots[1].child).told = Told()
    scene.order(2)
    assert scene.at_work == [0, 2]
    scene.has_drained()
    assert scene.told[-1] == Staff(2, 2, True)
    scene.order(3)
    assert scene.at_work == [0, 1, 2]
    assert len(scene.places.all) == 4


def test_one_that_drains_is_followed_when_it_has_left() -> None:
    """No more than were ordered are there meanwhile."""
    scene = Scene(3, 3)
    scene.order(1)
    scene.order(3)
    assert (scene.at_work, scene.task.staff) == ([0], Staff(3, 3, True))
    scene.has_drained()
    assert scene.at_work == [0, 1, 2]
    assert len(scene.places.all) == 3


def test_none_and_back_again() -> None:
    """Without an order it has what `--workers` says."""
    scene = Scene(2, 2)
    scene.order(0)
    scene.has_drained()
    assert scene.task.staff == Staff(0, 0, True)
    scene.order(None)
    assert scene.task.staff == Staff(2, 2, False)
    assert scene.places.numbers() == ({"C": 2}, {"C": 0})


@pytest.mark.parametrize("number", [-1, 7, 10**9])
def test_what_cannot_be_had_changes_nothing(number: int, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the page's server lets pass."""
    scene = Scene(2, 2)
    scene.order(number)
    scene.places.order("none", 1, scene.slots, scene.now)
    assert (scene.task.staff, scene.distributor.lines) == (Staff(2, 2, False), [])
    assert [one.getMessage().split(":")[0] for one in caplog.records] == ["Nothing is changed"] * 2


def test_the_next_distributor_is_told_and_who_does_not_hear_is_told_again() -> None:
    """Once each."""
    scene = Scene(1, 1)
    scene.hears = False
    scene.order(2)
    scene.distributor = Ear()
    scene.turn()
    scene.turn()
    assert scene.distributor.lines == ['desired 2 "C"']
    assert scene.told == [Staff(1, 1, False)]
    scene.hears = True
    scene.turn()
    scene.turn()
    assert scene.told == [Staff(1, 1, False), Staff(2, 2, True)]


def test_at_the_end_of_the_run_it_is_told_once() -> None:
    """And nothing after that."""
    scene = Scene(2, 2)
    for _ in range(3):
        scene.turn(is_ending=True)
    assert scene.told == [Staff(2, 2, False), None]


def test_a_name_that_is_longer_than_a_line_ends_no_run() -> None:
    """The distributor does not hear of it."""
    scene = Scene(1, 1, task="x" * MAX_LINE_LENGTH)
    scene.order(2)
    assert (scene.at_work, scene.distributor.lines) == ([0, 1], [])


def test_a_machine_has_room_for_so_many() -> None:
    """By its cores; `--workers` may say more."""
    assert most_on_this_machine() % PROCESSES_PER_CORE == 0
    assert Scene(9, 9, limit=6).task.limit == 9


# with --workers MIN:MAX -----------------------------------------------------------------------------------------------


def look(scene: Scene, scaler: Scaler, state: str) -> None:
    """The distributor says that all the workers are there, and at this."""
    workers = [
        replace(WORKER, pid=cast(Any, place.child).pid, state=state, leased=int(state == "busy"))
        for place in scene.task
        if place.child is not None
    ]
    scene.now += LOOK
    status = Status("p", "r", "running", 1.0, "", [replace(TASK, total=10_000)], workers)
    scaler.take(status, scene.slots, scene.now)
    scene.turn()


def test_the_law_does_not_change_what_was_ordered() -> None:
    """Neither more nor fewer, also beyond MIN and MAX; after it, it goes on from the number that there is."""
    scene = Scene(1, 4)
    scaler = Scaler([scene.task])
    for number in (6, 0, 2):
        scene.order(number)
        scene.has_drained()
        for state in ("busy", "ready") * 20:
            look(scene, scaler, state)
        assert scene.task.staff == Staff(number, number, True)
    scene.order(None)
    assert scene.task.staff == Staff(2, 2, False)
    for _ in range(4):
        look(scene, scaler, "busy")
    assert scene.task.staff == Staff(4, 4, False)
    assert scene.places.numbers() == ({"C": 6}, {"C": 0})


@pytest.mark.parametrize(("number", "then"), [(0, 1), (6, 4)])
def test_after_an_order_beyond_its_bounds_it_is_within_them(number: int, then: int) -> None:
    """At once."""
    scene = Scene(1, 4)
    scene.order(number)
    scene.order(None)
    scene.has_drained()
    assert scene.task.staff == Staff(then, then, False)


def test_what_a_start_takes_is_known_after_an_order() -> None:
    """All else is of a time in which somebody else said how many."""
    scene = Scene(1, 4)
    scaler = Scaler([scene.task])
    look(scene, scaler, "busy")
    scaler.tasks[0].law.started(7.0)
    scene.order(3)
    look(scene, scaler, "busy")
    scene.order(None)
    look(scene, scaler, "busy")
    assert (scaler.tasks[0].law.start_seconds, scaler.tasks[0].law.desired) == (7.0, 3)
