"""`run --workers MIN:MAX`: each task is given the workers that `autoscale` says, by how the distributor says it stands.

The answers come by the supervisor's queue (`run_questions` asks); all happens on the thread that supervises.

A worker is sent away by having it drain, like one of a run that ends: it takes nothing more and finishes what it has.
Its place is left empty (`Slot.is_wanted`), and is the first to be filled again. While there is an order for a task
(`worker_places`), its number is not changed here.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from zmqpipeline.processes.autoscale import Autoscale, Look
from zmqpipeline.processes.restarts import ChildSlots
from zmqpipeline.processes.worker_places import TaskPlaces
from zmqpipeline.protocol.messages import Status, TaskStatus, WorkerStatus
from zmqpipeline.runtime.child import Child
from zmqpipeline.runtime.child_report import Told

Name = tuple[str, int]
"""Machine and process id of a worker."""


UNSEEN = 3.0
"""A worker that was not seen before it had begun has started so many seconds ago at most, or it is not known when it
was ready: it may have waited since."""


@dataclass
class Start:
    """How far one worker is: what it takes to have one is its start and its init functions, without waiting between."""

    began: float
    ready_at: float | None = None
    init_at: float | None = None
    has_begun: bool = False
    """It is beyond its init functions."""

    def see(self, told: Told, now: float) -> float | None:
        """What it has told by now; how long its start took, if it has just begun and that is known."""
        if self.has_begun:
            return None
        self.has_begun = told.has_worked
        if told.has_worked:
            if self.ready_at is None and self.init_at is None:
                return now - self.began if now - self.began <= UNSEEN else None
            init = 0.0 if self.init_at is None else now - self.init_at
            return (self.ready_at or self.init_at or now) - self.began + init
        if told.is_ready:
            self.ready_at = self.ready_at or now
        elif told.is_starting:
            self.init_at = self.init_at or now
        return None


@dataclass
class ScaledTask:
    """The places of one task, as many as it may have workers, and what decides how many of them are filled."""

    law: Autoscale
    places: TaskPlaces
    starts: dict[Child, Start] = field(default_factory=dict)
    """How far each of the workers is."""
    was_ordered: bool = False
    """The number that it had last was not of the law."""

    def watch_starts(self, now: float) -> None:
        """See how far the workers are, and how long those took that have just come beyond their init functions."""
        there = [place.child for place in self.places if place.child is not None]
        self.starts = {child: self.starts.get(child) or Start(child.started) for child in there}
        for child, start in self.starts.items():
            if (seconds := start.see(child.has_told(), now)) is not None:
                self.law.started(seconds)

    def take(self, status: Status, slots: ChildSlots, now: float) -> None:
        """The distributor has said how it stands: change the number of workers if that is due."""
        task = self.places.task
        found = next((one for one in status.tasks if one.counts.task == task), None)
        if self.places.ordered is not None:
            self.was_ordered = True
            return
        if found is None:
            return
        if self.was_ordered:
            self.was_ordered, self.law = False, self.law.from_here(self.places.given)
        seen = {(one.host, one.pid): one for one in status.workers if one.task == task and one.state != "draining"}
        names = {place.child: name_of(place.child) for place in self.places if place.child is not None}
        others = len(seen.keys() - set(names.values()))
        leaving = {names[place.child] for place in self.places if place.child is not None and not place.is_wanted}
        begun = {names[child] for child, start in self.starts.items() if start.has_begun and child in names}
        there = {name: one for name, one in seen.items() if name not in leaving}
        self.places.give(self.law.look(self._look(found, there, begun), now))
        # who has joined from elsewhere does what ours would do
        wanted = max(self.law.least, self.law.desired - others)
        self.places.fill(wanted, slots, now)
        states = {child: seen[name].state for child, name in names.items() if name in seen}
        # who has something to do stays; first those leave that have no worker, or whose worker has not come
        self.places.leave(wanted, slots, lambda one: 0 if one.child is None else _RANKS.get(states.get(one.child, "")))

    def _look(self, task: TaskStatus, seen: Mapping[Name, WorkerStatus], begun: Collection[Name]) -> Look:
        busy = {name: one for name, one in seen.items() if one.state == "busy"}
        working = [name for name, one in busy.items() if name in begun or one.executed]
        done = task.counts.collected + task.counts.failed
        left = task.waiting + task.retrying + task.leased
        is_all = task.counts.state == "exhausted"
        # of one whose source has raised some may be under way
        is_open = task.counts.state in ("open", "exhausted") or (task.counts.state == "failed" and left > 0)
        if task.total is not None and task.total > done:
            left, is_all = max(left, task.total - done), True
        return Look(
            is_open=is_open,
            there=len(seen),
            idle=sum(one.state == "ready" for one in seen.values()),
            is_full=bool(working) and all(one.state == "busy" and one.leased >= one.threads for one in seen.values()),
            working=len(working),
            threads=sum(one.threads for one in seen.values()) / max(1, len(seen)),
            done=done,
            left=left,
            is_all=is_all,
        )


_RANKS = {"": 1, "ready": 2}
"""In which order workers are sent away, by what the distributor says of them; it says nothing of who has not come."""


def name_of(child: Child) -> Name:
    """Where a worker is; of one that a command starts, as it has said itself."""
    told = child.has_told()
    return (told.host or socket.gethostname(), told.pid or child.pid)


class Scaler:
    """All tasks of a run that are scaled."""

    def __init__(self, tasks: Iterable[TaskPlaces]) -> None:
        """Those of these that have a range are."""
        self.tasks = [
            ScaledTask(Autoscale(one.bounds.least, one.bounds.most), one) for one in tasks if one.bounds.is_scaled
        ]

    def take(self, status: Status, slots: ChildSlots, now: float) -> None:
        """Have the workers follow an answer."""
        for one in self.tasks:
            one.watch_starts(now)
        if status.phase != "running":
            return
        for one in self.tasks:
            one.take(status, slots, now)
