"""What happens in a simulated run, as observers are told it: each event at once, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from zmqpipeline.events import Event
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol.observed import front_of, role_of
from zmqpipeline.protocol.recorder import Recorder


class Traced:
    """Stands before the machine of a simulated role, and tells what happens to it."""

    def __init__(self, machine: Any, tell: Callable[[Event], object]) -> None:
        """`tell` is called with each event, after the turn of the machine in which it happened."""
        self._recorder = Recorder(role_of(machine), wake=self._wake)
        self._front, self._tell = front_of(machine, self._recorder), tell
        self._has_news = False
        self.next_deadline, self.check = machine.next_deadline, machine.check

    def _wake(self) -> None:
        self._has_news = True

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """See `Machine.handle`."""
        commands = self._front.handle(event, now)
        if self._has_news:
            self._has_news = False
            for told in self._recorder.take():
                self._tell(told)
        return commands


def shown(event: Event) -> str:
    """An event as a line of the trace: ``ItemSent task='C' count=2 items=((0, 2),) worker='w3-C/0'``."""
    said = (f"{one.name}={getattr(event, one.name)!r}" for one in fields(event) if one.name not in ("time", "role"))
    return f"{type(event).__name__} {' '.join(said)}"
