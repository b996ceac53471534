"""A simulated world with an observer in each process: what it was told of each life, held against the machines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.support.harness import World
from zmqpipeline import events
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.data.ranges import numbers_of
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.observed import ObservedCollector, ObservedDistributor, ObservedWorker
from zmqpipeline.protocol.recorder import Recorder
from zmqpipeline.protocol.worker import WorkerMachine

Item = tuple[str, int]


def numbers(event: events.ItemEvent) -> list[Item]:
    """The items of an event, each by its task and number."""
    return [(event.task, number) for start, stop in event.items for number in range(start, stop)]


class Life:
    """One life of one process: its machine, and what its observer was told, with looks at odd moments."""

    def __init__(self, machine: Any) -> None:
        role, front = {
            DistributorMachine: ("distributor", ObservedDistributor),
            CollectorMachine: ("collector", ObservedCollector),
            WorkerMachine: ("worker", ObservedWorker),
        }[type(machine)]
        self.role, self.machine = role, machine
        self.recorder = Recorder(role)
        self.events: list[events.Event] = []
        self.retried: set[Item] = set()
        self.base: Counter[str] | None = None
        """How many items of each task were done when the distributor left its greeting."""
        self.check, self.next_deadline = machine.check, machine.next_deadline
        self._front: Any = front(machine, self.recorder)
        self._turns = 0

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """Look each time for the first turns, then seldom, so that there is something to sum up."""
        if self.role == "distributor" and self.base is None and self.machine.phase != "greeting":
            self.base = self._done()
        commands: list[c.Command] = self._front.handle(event, now)
        self._check_again(commands)
        self._turns += 1
        if self._turns < 50 or self._turns % 37 == 0:
            self.look()
        return commands

    def _check_again(self, commands: list[c.Command]) -> None:
        """What is sent at a later attempt was told to come again, by this distributor or one before it."""
        for command in commands:
            if isinstance(command, c.Send) and isinstance(work := command.envelope.body, m.Work) and work.attempt > 1:
                self.look()
                missing = {(work.task, number) for number in numbers_of(work.spans)} - self.retried
                assert not (missing and self.machine.tasks[work.task].ledger._is_first), f"{missing} came unannounced"

    def _done(self) -> Counter[str]:
        return Counter({name: task.ledger.done for name, task in self.machine.tasks.items()})

    def look(self) -> None:
        """Take what there is."""
        for event in self.recorder.take():
            self.events.append(event)
            if isinstance(event, events.ItemRetried):
                self.retried.update(numbers(event))

    def of(self, kind: type[events.Event], **wanted: str) -> list[Any]:
        """The events of this kind."""
        return [
            one
            for one in self.events
            if isinstance(one, kind) and all(getattr(one, name) == value for name, value in wanted.items())
        ]

    def total(self, kind: type[events.ItemEvent], what: str = "count") -> int:
        """The sum of these."""
        return sum(getattr(one, what) for one in self.of(kind))

    def items(self, kind: type[events.ItemEvent]) -> list[Item]:
        """All items of these events, as often as they come."""
        return [item for one in self.of(kind) for item in numbers(one)]

    # laws ------------------------------------------------------------------------------------------------------------

    def judge(self, *, was_killed: bool) -> None:
        """The sums are those of the machine, at the end of this life."""
        self.look()
        assert all(one.role == self.role for one in self.events)
        assert not self.of(events.EventsDropped)
        if self.role == "distributor":
            self._judge_distributor()
        elif self.role == "collector":
            self._judge_collector(was_killed)
        else:
            assert self.total(events.ItemExecuted) == self.machine.executed
            assert self.total(events.ItemExecuted, "failed") == self.machine.failed

    def _judge_distributor(self) -> None:
        tasks = self.machine.tasks
        base = self._done() if self.base is None else self.base
        acknowledged = self.items(events.ItemAcknowledged)
        assert self.total(events.ItemAcknowledged) == (self._done() - base).total()
        assert len(acknowledged) == len(set(acknowledged)), "an item was acknowledged twice"
        gone = self.of(events.WorkerLeft)
        assert len(self.of(events.WorkerJoined)) - len(gone) == len(self.machine.facts().members)
        over = {one.task: (one.state, one.collected, one.failed) for one in self.of(events.TaskOver)}
        assert len(over) == len(self.of(events.TaskOver)), "a task was over twice"
        for counts in self.machine.counts():
            end = (counts.state, counts.collected, counts.failed)
            assert over.get(counts.task) == (end if tasks[counts.task].is_over else None)
        started = [one.task for one in self.of(events.TaskStarted)]
        assert len(started) == len(set(started))
        assert {task for task, _ in self.items(events.ItemSent)} <= set(started)

    def _judge_collector(self, was_killed: bool) -> None:
        machine, progress = self.machine, self.machine._tasks.values()
        collected, failed = self.items(events.ItemCollected), self.items(events.ItemFailed)
        assert len(collected) == len(set(collected)), "an item was collected twice"
        assert len(failed) == len(set(failed)), "an item failed twice"
        inherited = machine.inherited - machine.inherited_failed
        # one whose key was collected under another number is done without a call
        assert len(collected) == sum(one.done - len(one.failed) for one in progress) - inherited
        known = sum(len(one.failed) for one in progress) - machine.inherited_failed
        # what was being told to `failed` when it was killed or drained is not done
        assert len(failed) == known if machine.phase == "ended" and not machine._calls else len(failed) >= known
        assert len(self.of(events.RunOver)) <= 1


@dataclass
class ObservedWorld(World):
    """A world that remembers every life."""

    lives: list[Life] = field(default_factory=list)

    def front_of(self, machine: Any) -> Machine:
        """Look on."""
        self.lives.append(Life(machine))
        return self.lives[-1]

    def judge_lives(self) -> None:
        """The laws of each life, and those of all."""
        for one in self.lives:
            one.judge(was_killed=one.machine.phase != "ended")
        executed = {item for one in self.lives for item in one.items(events.ItemExecuted)}
        collected = [item for one in self.lives for item in one.items(events.ItemCollected)]
        assert set(collected) <= executed, "an item was collected that nobody executed"
        assert sum(one.total(events.ItemExecuted) for one in self.lives) <= self.executions.total()
        first = next(one for one in self.lives if one.role == "distributor")
        sent = first.items(events.ItemSent)
        if sum(one.role == "distributor" for one in self.lives) == 1:
            assert set(first.items(events.ItemAcknowledged)) <= set(sent), "an item is done that was never sent"
        if self.plan.is_calm:
            assert sum(one.total(events.ItemExecuted) for one in self.lives) == self.executions.total()
