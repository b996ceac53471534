"""The machine contract: what the loop knows of a role, and all it knows."""

from __future__ import annotations

from typing import Protocol

from zmqpipeline.protocol.commands import Command
from zmqpipeline.protocol.events import Event


class Machine(Protocol):
    """The rules of one role. It opens nothing, never sleeps, and is told the time."""

    def handle(self, event: Event, now: float) -> list[Command]:
        """Change the state by one event, the only way that it changes; the order of what is to be done is meaning.

        `now` is in seconds of a monotonic clock.
        """
        ...

    def next_deadline(self) -> float | None:
        """When a `Tick` is due, in seconds of the same clock; None if time alone changes nothing.

        0.0 before the first event: a machine that hears nothing must still learn when its life began.
        """
        ...

    def check(self) -> None:
        """Raise AssertionError if the state contradicts itself."""
        ...
