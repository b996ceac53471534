"""A rate for each value of a field of the items: when the next of a value may be handed out.

The law:

* A delivery of a value, retries included, moves on the time at which it is even with its rate, by ``1 / rate`` from
  then or from now, whichever is later. It may be no more than ``burst - 1`` such steps ahead of the clock, where
  `burst` is what comes together in `BURST_SECONDS`, and one at least. So of each value no more than
  ``rate * T + burst`` are handed out in any time T.
* A value of which nothing is known may have its burst at once; at a distributor that takes over a run, no more than the
  rate since then. What is even with the clock is forgotten: so as many values are known as had one lately.
* Which values come next is the outbox's choice (`runtime.journal.paced`), by the same law: the one that has waited
  longest. So an item comes here when it may be handed out, however many of other values there are; what has to wait
  here all the same (it comes again, say) is little: nothing is fetched while `MAX_AT_HAND` wait.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmqpipeline.protocol.machine import soonest

BURST_SECONDS = 1.0
"""What may be handed out at once of a value that had none for a while: what comes together in so many seconds."""

MAX_AT_HAND = 1000
MAX_AT_HAND_BYTES = 64 * 1024 * 1024
"""While so many items wait at a distributor, or so many bytes, no more are fetched."""

_NEVER = float("-inf")


class Pace:
    """Of one task. Times in seconds."""

    __slots__ = ("_even", "_floor", "_swept", "apart", "burst", "now", "rests_until", "values", "wake_at")

    def __init__(self, rate: float) -> None:
        """`rate` is in items a second of each value."""
        self.apart, self.burst = 1.0 / rate, max(1, int(rate * BURST_SECONDS))
        self.now = 0.0
        self.values: dict[int, bytes] = {}
        """That of each item which is not done, by its number."""
        self.rests_until: float | None = None
        """Until then the collector has no item that may be handed out."""
        self.wake_at: float | None = None
        """When to look again."""
        self._even: dict[bytes, float] = {}
        self._floor = _NEVER
        self._swept = 1000

    def take_over(self, now: float) -> None:
        """An earlier distributor may have given each value its burst."""
        self._floor = now + self.burst * self.apart

    def due(self, number: int) -> float:
        """When this item may be handed out."""
        even = max(self._even.get(self.values[number], _NEVER), self._floor)
        return even - (self.burst - 1) * self.apart

    def allows(self, number: int) -> bool:
        """Whether this item may be handed out now."""
        return self.due(number) <= self.now

    def take(self, number: int) -> bool:
        """Whether it may; then it counts as handed out."""
        if not self.allows(number):
            return False
        value = self.values[number]
        self._even[value] = max(self._even.get(value, _NEVER), self._floor, self.now) + self.apart
        if len(self._even) > self._swept:
            self._even = {one: even for one, even in self._even.items() if even > self.now}
            self._swept = 1000 + 2 * len(self._even)
        return True

    def look(self, waiting: Iterable[int]) -> None:
        """Find out when to look again: when one of these is due that is not yet, or the collector has more."""
        due = (self.due(number) for number in waiting)
        self.wake_at = soonest((self.rests_until, *(one for one in due if one > self.now)))
