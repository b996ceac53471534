"""The machine contract: what the loop knows of a role, and all it knows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from zmqpipeline.protocol.commands import Command
from zmqpipeline.protocol.events import Event


def soonest(times: Iterable[float | None]) -> float | None:
    """The least of these times, or None if none is known."""
    least = None
    for one in times:
        if one is not None and (least is None or one < least):
            least = one
    return least


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
