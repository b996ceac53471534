"""The places of the workers of a run: how many each task has, and how many of them are filled.

A task begins with what `--workers` says. Its number is changed by the law of `--workers MIN:MAX` (`scaling`), and by
orders, which the page of the run takes:

1. An order is a number of worker processes of this run, from 0 to a limit. It holds until the next order: the law does
   not change the number of this task meanwhile.
2. The order `None` ends that: a task with a range is scaled again, from the number that it has; another one has the
   number of `--workers` again.
3. For more workers, empty places are filled, then those whose worker drains, when it has, and then new ones.
4. For fewer, places are left empty: first those without a worker, then those whose worker is not ready yet, then the
   last ones. A worker is asked to drain: it finishes what it has begun, however long that takes, and hands back the
   rest.
5. While the run ends nothing is changed any more.

Whoever shows the run is told of each change: the distributor, of the tasks whose number is not just that of
`--workers`, and whoever watches, how many processes each task has and is to have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from zmqpipeline.processes.cores import usable_cores
from zmqpipeline.processes.restarts import ChildSlots, Slot
from zmqpipeline.processes.worker_numbers import Bounds
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.status_records import MAX_WORKERS
from zmqpipeline.runtime.child import Child, desired_notice

log = logging.getLogger("zmqpipeline.run")

PROCESSES_PER_CORE = 16
"""A task may be ordered to have so many processes for each core of this machine, or as many as `--workers` says."""


def most_on_this_machine() -> int:
    """How many processes of one task this machine may be ordered to have."""
    return min(MAX_WORKERS, PROCESSES_PER_CORE * usable_cores())


@dataclass(frozen=True)
class Staff:
    """How many processes a task has, and is to have."""

    there: int
    wanted: int
    is_ordered: bool


class StaffWatcher(Protocol):
    """Who is told of each change, on the thread that supervises; it must be brief."""

    def staffed(self, task: str, staff: Staff) -> bool:
        """A task has other numbers than before; False: tell it again."""
        ...

    def ends(self) -> None:
        """The run ends: nothing can be ordered any more."""
        ...


class TaskPlaces:
    """The places of one task."""

    def __init__(self, task: str, bounds: Bounds, make: Callable[[int], Slot], limit: int = MAX_WORKERS) -> None:
        """`make` makes the place of this number, from 0; `limit` is the most workers that may be ordered."""
        self.task = task
        self.bounds = bounds
        self.limit = max(limit, bounds.most)
        self.slots = [make(index) for index in range(bounds.most)]
        for place in self.slots[bounds.least :]:
            place.is_wanted = False
        self.given = self.most_seen = self.least_seen = bounds.least if bounds.is_scaled else bounds.most
        """How many workers it is given, and the most and the fewest that it was."""
        self.ordered: int | None = None
        self.has_changed = bounds.is_scaled
        """Whether its number is more than what `--workers` says."""
        self._make = make

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    def give(self, number: int) -> None:
        """It is given so many from now on, by an order or the law; places are filled and left by others."""
        if number != self.given:
            log.info("Task %r is given %d workers, in the place of %d.", self.task, number, self.given)
        self.given = number
        self.most_seen, self.least_seen = max(self.most_seen, number), min(self.least_seen, number)

    def order(self, number: int | None, slots: ChildSlots, now: float) -> list[Slot]:
        """Have so many workers; None: as many as `--workers` says. The places that are new."""
        self.ordered, self.has_changed = number, True
        self.give(min(max(self.given, self.bounds.least), self.bounds.most) if number is None else number)
        new = [self._make(index) for index in range(len(self.slots), self.given)]
        for place in new:
            place.is_wanted = False
        self.slots += new
        self.fill(self.given, slots, now)
        self.leave(self.given, slots, _rank)
        return new

    def fill(self, wanted: int, slots: ChildSlots, now: float) -> None:
        """Fill places until so many are wanted: empty ones, and then those that drain."""
        missing = wanted - sum(place.is_wanted for place in self.slots)
        empty = sorted((one for one in self.slots if not one.is_wanted), key=lambda one: one.child is not None)
        for place in empty[: max(0, missing)]:
            slots.want(place, now)

    def leave(self, wanted: int, slots: ChildSlots, rank: Callable[[Slot], int | None]) -> None:
        """Leave places empty until so many are wanted, those of the lowest rank first, and none without a rank.

        Of equal ones the last.
        """
        staying = [place for place in reversed(self.slots) if place.is_wanted]
        ranks = ((rank(place), place) for place in staying)
        spare = sorted(((at, place) for at, place in ranks if at is not None), key=lambda pair: pair[0])
        for _, place in spare[: max(0, len(staying) - wanted)]:
            slots.dismiss(place)

    @property
    def staff(self) -> Staff:
        """How many processes it has now."""
        there = sum(place.child is not None for place in self.slots)
        return Staff(there, self.given, self.ordered is not None)


def _rank(place: Slot) -> int:
    """Who leaves first for an order: whoever does nothing yet."""
    if place.child is None:
        return 0
    return 2 if place.child.has_told().is_ready else 1


class WorkerPlaces:
    """The places of all tasks of a run."""

    def __init__(self, tasks: Mapping[str, TaskPlaces]) -> None:
        """Nobody watches them yet."""
        self.tasks = tasks
        self.all = [place for task in tasks.values() for place in task]
        """New ones are added to it."""
        self.watcher: StaffWatcher | None = None
        self._told: dict[str, tuple[Child, int]] = {}
        """By task, the distributor that was told last, and how many."""
        self._shown: dict[str, Staff] = {}

    def order(self, task: str, number: int | None, slots: ChildSlots, now: float) -> None:
        """Have so many workers of a task; of one that there is not, or of too many, it is said that nothing changes."""
        found = self.tasks.get(task)
        if found is None or (number is not None and not 0 <= number <= found.limit):
            log.warning("Nothing is changed: %s workers of task %r cannot be had.", number, task)
            return
        if found.ordered == number and (number is not None or not found.has_changed):
            return
        self.all += found.order(number, slots, now)

    def tell(self, distributor: Child | None, *, is_ending: bool) -> None:
        """Tell the distributor, of each one what it has not been told, and whoever watches, what has changed."""
        for task in self.tasks.values():
            told = None if distributor is None or not task.has_changed else (distributor, task.given)
            if told is not None and self._told.get(task.task) != told and _tell(told[0], task):
                self._told[task.task] = told
        if self.watcher is not None and is_ending:
            self.watcher.ends()
            self.watcher = None
        if self.watcher is not None:
            for name, task in self.tasks.items():
                if self._shown.get(name) != (staff := task.staff) and self.watcher.staffed(name, staff):
                    self._shown[name] = staff

    def numbers(self) -> tuple[dict[str, int], dict[str, int]]:
        """The most and the fewest workers that each task was given."""
        return (
            {name: task.most_seen for name, task in self.tasks.items()},
            {name: task.least_seen for name, task in self.tasks.items()},
        )


def _tell(distributor: Child, task: TaskPlaces) -> bool:
    try:
        return distributor.tell(desired_notice(task.task, task.given))
    except ValueError:
        return True  # its name is longer than a line may be: `status` does not show this number


def waves(workers: Sequence[Slot], cores: int) -> tuple[list[Slot], list[Slot]]:
    """Those that are started together with the distributor, one at least, and the others; the tasks take turns.

    A start costs a third of a second of a core: if more start than there are cores, each of them is ready later, and so
    is the first, which may do a short run alone.
    """
    turns: dict[str, int] = {}
    keyed = []
    for place in workers:
        turns[place.task] = turns.get(place.task, 0) + 1
        keyed.append((turns[place.task], place))
    in_turn = [place for _, place in sorted(keyed, key=lambda one: one[0])]
    number = max(1, cores - 1)
    return in_turn[:number], in_turn[number:]
