"""One machine on trial: whatever its peers say, it is asked each time whether it still holds together.

Peers may lie about everything. What the machine's own process answers (`Executed`, `Collected`, ...) is true: it comes
only after the command that it answers, in the order in which the threads of the runtime would give it. Each trial
(`trials.py`) plays its process with the least that does so.
"""

from __future__ import annotations

import math
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from tests.support.adversarial import MOST, US, arrives
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.machine import Machine

COMMANDS = typing.get_args(c.Command)

Chosen: TypeAlias = tuple[int, int, int]
"""What is chosen, by whoever thinks up the steps, of what the machine's process may truly answer."""

Answer: TypeAlias = Callable[[Chosen], e.Event | None]

OPTIONS = Options(max_message_bytes=100, max_queued_requests=5, max_held_items=6, idle_timeout=300.0)
"""Bounds so small that the lies reach them."""

STANDSTILL = 100
"""So many Ticks at one moment are a loop that goes round for nothing."""


@dataclass(frozen=True)
class Says:
    """A peer says something: `how` is the place of its number in the order, `where` picks hop and connection."""

    body: m.Message
    who: bytes = b"p1"
    where: int = 0
    how: str = "next"
    addressee: bytes = US
    received: int = 0


HOW = ("next", "gap", "repeat", "zero", "far")


@dataclass(frozen=True)
class Happens:
    """An event that needs no occasion."""

    event: e.Event


@dataclass(frozen=True)
class Answers:
    """The machine's process says something that it owes: the first kind of its events, from `first` on, that it can."""

    first: int = 0
    chosen: Chosen = (0, 0, 0)


@dataclass(frozen=True)
class Waits:
    """Time passes, with a Tick whenever one is due."""

    seconds: float


Step: TypeAlias = Says | Happens | Answers | Waits


class Trial:
    """See the module. `phases` are those of the machine, with the steps that lead there."""

    bound: ClassVar[tuple[str, ...]] = ()
    connecting: ClassVar[tuple[str, ...]] = ()
    hears: ClassVar[tuple[type, ...]] = ()
    """The messages that it listens to; the others are lies in themselves."""

    phases: ClassVar[dict[str, Sequence[Step]]] = {}
    busy: ClassVar[dict[str, Sequence[Step]]] = {}
    """Scenes in which there is more to lose: courses begin in them, too."""

    def __init__(self) -> None:
        self.machine: Any = self.make()
        self.now = 1000.0
        self.is_over = False
        self.seen: Counter[tuple[str, str]] = Counter()
        """How often which event, or which message, came in which phase."""
        self.own: dict[type, Answer] = self.answers()
        self._numbers: Counter[bytes] = Counter()

    def make(self) -> Machine:
        """The machine, new."""
        raise NotImplementedError

    def answers(self) -> dict[type, Answer]:
        """The events that only its own process says, and what makes them: None if it has nothing to say now."""
        return {}

    def carry_out(self, command: c.Command) -> None:
        """The machine's process does this."""

    def phase(self) -> str:
        """The machine's phase, as its docstring names them."""
        return str(self.machine.phase)

    @classmethod
    def scenes(cls) -> dict[str, Sequence[Step]]:
        """Where a course may begin: the phases, and the busy scenes."""
        return {**cls.phases, **cls.busy}

    def at(self, scene: str) -> Trial:
        """Bring it there."""
        for step in self.scenes()[scene]:
            self.take(step)
        assert scene in self.busy or self.phase() == scene, f"the steps to {scene!r} lead to {self.phase()!r}"
        return self

    # steps -----------------------------------------------------------------------------------------------------------

    def take(self, step: Step) -> None:
        """Let this happen."""
        match step:
            case Says():
                self.happens(e.Received(self.peer(step.where), self._envelope(step)))
            case Happens(event):
                self.happens(event)
            case Answers(first, chosen):
                self._answer(first, chosen)
            case Waits(seconds):
                self.wait(seconds)

    def _answer(self, first: int, chosen: Chosen) -> bool:
        makers = list(self.own.values())
        for index in range(len(makers)):
            event = makers[(first + index) % len(makers)](chosen)
            if event is not None:
                self.happens(event)
                return True
        return False

    def says_of_its_own(self, kind: type, chosen: Chosen) -> bool:
        """Let its process say an event of this kind, if it can truly say one now."""
        event = self.own[kind](chosen)
        if event is not None:
            self.happens(event)
        return event is not None

    def peer(self, where: int) -> e.Peer:
        """One of the connections that this machine may have."""
        places = [(hop, b"r%d" % route) for hop in self.bound for route in range(2)]
        places += [(hop, b"") for hop in self.connecting]
        return places[where % len(places)]

    def _envelope(self, step: Says) -> m.Envelope:
        last = self._numbers[step.who]
        number = {"next": last + 1, "gap": last + 3, "repeat": last, "zero": 0, "far": MOST}[step.how]
        if number < MOST:
            self._numbers[step.who] = max(last, number)
        return m.Envelope(step.who, step.addressee, number, step.received, step.body)

    def happens(self, event: e.Event) -> list[c.Command]:
        """Tell the machine, and look at all that it makes of it."""
        told = event.envelope.body if isinstance(event, e.Received) else event
        self.seen[(self.phase(), type(told).__name__)] += 1
        commands: list[c.Command] = self.machine.handle(event, self.now)
        self.machine.check()
        assert self.machine.snapshot() is not None
        assert isinstance(commands, list)
        for command in commands:
            assert not self.is_over, f"after its end: {command}"
            self._look_at(command)
        self._look_at_deadline()
        return commands

    def _look_at(self, command: c.Command) -> None:
        assert type(command) in COMMANDS, f"no command: {command!r}"
        if isinstance(command, c.Send):
            self._look_at_send(command)
        elif isinstance(command, c.Ended):
            self.is_over = True
            assert command.status in (0, 1, 2, 70)
        elif isinstance(command, c.Log):
            assert command.level in (10, 20, 30, 40)
            assert command.text
        else:
            self.carry_out(command)

    def _look_at_send(self, command: c.Send) -> None:
        hop, route = command.peer
        assert (hop in self.connecting and route == b"") or (hop in self.bound and route), f"to nobody: {command}"
        assert command.envelope.sender == US
        assert command.envelope.number > 0
        arrives(command.envelope)  # raises if the far side would drop it as garbage

    def _look_at_deadline(self) -> None:
        deadline = self.machine.next_deadline()
        assert deadline is None or (isinstance(deadline, float | int) and not math.isnan(deadline)), deadline
        assert not self.is_over or deadline is None, "it is over, and yet something is due"

    # time ------------------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Let time pass, with a Tick at each deadline, as the loop does it."""
        end = self.now + seconds
        at_once = 0
        while (deadline := self.machine.next_deadline()) is not None and deadline <= end:
            at_once = at_once + 1 if deadline <= self.now else 0
            assert at_once < STANDSTILL, f"a Tick at {deadline} changes nothing, for ever"
            self.now = max(self.now, deadline)
            self.happens(e.Tick())
        self.now = end

    def drains(self) -> None:
        """Whatever was said: asked to end, it does, once its process has said what it owes."""
        self.happens(e.Drain(1.0))
        for _ in range(500):
            if self.is_over:
                return
            if not self._answer(0, (1, 0, 0)):
                self.wait(1.0)
        raise AssertionError(f"asked to end, it does not; it is {self.phase()}")
