"""Machines that are looked at from outside: what goes in and what comes out is all that observers are told of.

An observed machine stands before the machine of a role, and hands on each event and each answer. So the machines say
nothing for observers, and one that nobody observes is not even asked. What is told follows from events and commands,
and from what `facts()` shows before and after; the tests hold it against the ledgers.
"""

from __future__ import annotations

from typing import Any

from zmqpipeline import events
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, size, spans_of
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.delivery.workers import WorkerState
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.recorder import Recorder
from zmqpipeline.protocol.worker import WorkerMachine

MAX_ERROR = 300
"""So many characters of an error are told."""


def _text(trouble: m.ErrorInfo) -> str:
    return f"{trouble.error}: {trouble.message}"[:MAX_ERROR]


class ObservedWorker:
    """A worker of a task, or of a service."""

    def __init__(self, machine: WorkerMachine, recorder: Recorder) -> None:
        """The recorder is told what the machine is told."""
        self._machine, self._recorder = machine, recorder
        self.next_deadline, self.check = machine.next_deadline, machine.check

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """See `Machine.handle`."""
        if isinstance(event, e.Executed):
            self._recorder.at(now)
            failed = [number for number, _ in event.failures]
            spans = spans_of([*event.numbers, *failed] if failed else event.numbers)
            self._recorder.items(
                events.ItemExecuted, self._machine.task, spans, failed=len(failed), seconds=event.seconds
            )
        return self._machine.handle(event, now)


class ObservedCollector:
    """A collector: what its thread answers, and what it is told to call."""

    def __init__(self, machine: CollectorMachine, recorder: Recorder) -> None:
        """The recorder is told what the machine does."""
        self._machine, self._recorder = machine, recorder
        self.next_deadline, self.check = machine.next_deadline, machine.check

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """See `Machine.handle`."""
        machine, recorder = self._machine, self._recorder
        recorder.at(now)
        if isinstance(event, e.Collected):
            recorder.items(events.ItemCollected, event.task, event.spans)
        was_finishing = machine.phase == "finishing"
        commands = machine.handle(event, now)
        for command in commands:
            if isinstance(command, c.CallFailed):
                self._failed(command.failures)
        if was_finishing and isinstance(event, e.FinishedCalled):
            self._over()
        return commands

    def _failed(self, failures: list[m.FailedItem]) -> None:
        alike: dict[tuple[str, str, str], list[m.FailedItem]] = {}
        for item in failures:
            alike.setdefault((item.task, item.stage, item.trouble.error), []).append(item)
        for (task, stage, error), items in alike.items():
            self._recorder.items(
                events.ItemFailed,
                task,
                spans_of([item.number for item in items]),
                by={"stage": stage, "error": error},
                last={"message": items[-1].trouble.message[:MAX_ERROR]},
            )

    def _over(self) -> None:
        machine = self._machine
        self._recorder.add(
            events.RunOver,
            run=machine.run,
            ok=machine.ok and not machine.troubles,
            collected=sum(one.collected for one in machine.counts),
            failed=sum(one.failed for one in machine.counts),
        )


class ObservedDistributor:
    """A distributor: what it sends, what it hears, and how its tasks and workers stand before and after."""

    def __init__(self, machine: DistributorMachine, recorder: Recorder) -> None:
        """The recorder is told what the machine does."""
        self._machine, self._recorder = machine, recorder
        self.next_deadline, self.check = machine.next_deadline, machine.check
        facts = machine.facts()
        self._tasks, self._members = facts.tasks, facts.members
        self._known: set[bytes] = set()
        """The workers that have joined."""
        self._at: dict[e.Peer, bytes] = {}
        """Who spoke last on each of their connections."""
        self._waiting = dict(self._tasks)
        """The tasks that have not begun."""
        self._not_over = dict(self._tasks)

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """See `Machine.handle`."""
        self._recorder.at(now)
        match event:
            case e.Received(peer, envelope):
                commands = self._received(event, peer, envelope, now)
            case e.PeerLost(peer):
                who = self._at.pop(peer, b"")
                member, held = self._members.get(who), self._held(who)
                commands = self._machine.handle(event, now)
                if member is not None and who not in self._members:
                    self._left(member, held, "lost")
            case _:
                commands = self._machine.handle(event, now)
        self._started()
        self._sent(commands)
        self._ended()
        return commands

    # messages --------------------------------------------------------------------------------------------------------

    def _received(self, event: e.Event, peer: e.Peer, envelope: m.Envelope, now: float) -> list[c.Command]:
        who, body = envelope.sender, envelope.body
        self._at[peer] = who
        match body:
            case m.Ack(_, task, collected, failed) | m.Ranges(_, task, collected, failed):
                return self._done(event, now, [(task, collected, failed)])
            case m.Holding():
                return self._done(event, now, [(one.task, one.collected, one.failed) for one in body.progress])
            case m.ItemsFailed():
                return self._raised(event, now, who, body.failures)
            case m.WorkerReport():
                commands = self._machine.handle(event, now)
                self._joined(who)
                return commands
            case m.Goodbye():
                member, held = self._members.get(who), self._held(who)
                commands = self._machine.handle(event, now)
                if member is not None and who not in self._members:
                    error = "" if body.trouble is None else _text(body.trouble)
                    self._left(member, held, "left", error)
                return commands
            case _:
                return self._machine.handle(event, now)

    def _done(self, event: e.Event, now: float, told: list[tuple[str, m.Spans, m.Spans]]) -> list[c.Command]:
        """Of what is told to be done, that which is done after the event, and was not before it."""
        if self._machine.phase == "greeting":
            # what was done before this process came to the run
            return self._machine.handle(event, now)
        news = [
            (name, ledger, _undone(ledger, collected), _undone(ledger, failed))
            for name, collected, failed in told
            if name in self._tasks and (ledger := self._tasks[name].ledger)
        ]
        commands = self._machine.handle(event, now)
        for name, ledger, collected, failed in news:
            failures = ledger.failed.common(failed)
            done = RangeSet(ledger.collected.common(collected))
            done.update(failures)
            self._recorder.items(events.ItemAcknowledged, name, done.spans(), failed=size(failures))
        return commands

    def _raised(self, event: e.Event, now: float, who: bytes, failures: list[m.FailedItem]) -> list[c.Command]:
        """Of the items for which a function raised, those that come again."""
        member = self._members.get(who)
        if member is None:
            return self._machine.handle(event, now)
        ledger = self._tasks[member.task].ledger
        held = [item.number for item in failures if ledger.is_with(who, item.number)]
        commands = self._machine.handle(event, now)
        again = [number for number in held if not ledger.is_with(who, number) and _is_open(ledger, number)]
        self._recorder.items(events.ItemRetried, member.task, spans_of(again), by={"reason": "raised"})
        return commands

    # workers ---------------------------------------------------------------------------------------------------------

    def _joined(self, who: bytes) -> None:
        member = self._members.get(who)
        if member is not None and who not in self._known:
            self._known.add(who)
            self._recorder.add(events.WorkerJoined, task=member.task, worker=member.name, slots=member.slots)

    def _held(self, who: bytes) -> m.Spans:
        member = self._members.get(who)
        return () if member is None else spans_of(self._tasks[member.task].ledger.held_by(who))

    def _left(self, member: WorkerState, held: m.Spans, how: str, error: str = "") -> None:
        self._known.discard(member.who)
        about = {"task": member.task, "worker": member.name, "items": size(held), "error": error}
        self._recorder.add(events.WorkerLeft, is_lost=how == "lost", **about)
        ledger = self._tasks[member.task].ledger
        again = [number for number in numbers_of(held) if _is_open(ledger, number)]
        self._recorder.items(events.ItemRetried, member.task, spans_of(again), by={"reason": how})

    def _sent(self, commands: list[c.Command]) -> None:
        for command in commands:
            if isinstance(command, c.Send) and isinstance(work := command.envelope.body, m.Work):
                member = self._members.get(command.envelope.addressee)
                name = "" if member is None else member.name
                self._recorder.items(events.ItemSent, work.task, work.spans, by={"worker": name})

    # tasks -----------------------------------------------------------------------------------------------------------

    def _started(self) -> None:
        for name in [name for name, task in self._waiting.items() if task.state != "waiting"]:
            # one may be over before it began
            if self._waiting.pop(name).opened_at is not None:
                self._recorder.add(events.TaskStarted, task=name)

    def _ended(self) -> None:
        for name in [name for name, task in self._not_over.items() if task.is_over]:
            del self._not_over[name]
            self._over(next(one for one in self._machine.counts() if one.task == name))

    def _over(self, counts: m.TaskCounts) -> None:
        self._recorder.add(
            events.TaskOver,
            task=counts.task,
            state=counts.state,
            sent=counts.sent,
            collected=counts.collected,
            failed=counts.failed,
            aborted=counts.aborted,
            skipped=counts.skipped,
            redelivered=counts.redelivered,
        )


_FRONTS: dict[type, tuple[str, Any]] = {
    DistributorMachine: ("distributor", ObservedDistributor),
    CollectorMachine: ("collector", ObservedCollector),
    WorkerMachine: ("worker", ObservedWorker),
}


def front_of(machine: Any, recorder: Recorder) -> Machine:
    """What stands before this machine; the machine itself, if of its kind only beginning and end are told."""
    _, front = _FRONTS.get(type(machine), ("", None))
    made: Machine = machine if front is None else front(machine, recorder)
    return made


def role_of(machine: Any) -> str:
    """The role of this machine, as events name it."""
    return _FRONTS[type(machine)][0]


def _undone(ledger: Ledger, spans: m.Spans) -> m.Spans:
    return ledger.failed.missing(ledger.collected.missing(spans))


def _is_open(ledger: Ledger, number: int) -> bool:
    """Whether an item that no worker holds comes again."""
    return number not in ledger.given_up and number not in ledger.collected and number not in ledger.failed
