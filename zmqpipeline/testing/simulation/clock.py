"""Where simulated processes live: virtual time, as a heap of timed events, and one seeded generator of chance.

Nothing here sleeps or opens anything: an hour of a pipeline's life takes a fraction of a second. Everything that
happens is drawn from the seed, so that a seed is a run.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from zmqpipeline.protocol.machine import Machine


class SimulationError(AssertionError):
    """An invariant of the pipeline does not hold in a simulated run."""


class Weather(Protocol):
    """What the network is like."""

    @property
    def lose(self) -> float:
        """The chance of a message to be lost."""

    @property
    def double(self) -> float:
        """The chance of a message to arrive twice."""

    @property
    def delay(self) -> float:
        """How long a message takes, in seconds, on the average."""

    @property
    def uneven(self) -> float:
        """How much slower some connections are than others, so that messages of different peers overtake each other."""


@dataclass
class Stage:
    """The clock and the chance of one run."""

    seed: int
    verbose: bool = False
    """Print what happens, step by step."""
    now: float = 0.0
    """Virtual seconds since the beginning."""
    notes: Counter[str] = field(default_factory=Counter)
    """How often what happened, for people."""

    weather: Weather = field(init=False, repr=False)
    rng: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Begin at 0 with nothing to do."""
        self.rng = random.Random(self.seed * 7919 + 1)
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = 0

    def serial(self) -> int:
        """A number that nobody had before."""
        self._serial += 1
        return self._serial

    def incarnation(self) -> bytes:
        """An id for a process."""
        return b"%08d" % self.serial()

    def front_of(self, machine: Any) -> Machine:
        """What stands before a machine and sees what it is told: nothing, unless a subclass looks on."""
        return cast("Machine", machine)

    def at(self, time: float, call: Callable[[], object]) -> None:
        """Let this happen at this time."""
        heapq.heappush(self._heap, (time, self.serial(), call))

    def after(self, seconds: float, call: Callable[[], object]) -> None:
        """Let this happen in so many seconds."""
        self.at(self.now + seconds, call)

    def step(self) -> bool:
        """Let the next thing happen; False if there is none."""
        if not self._heap:
            return False
        self.now, _, call = heapq.heappop(self._heap)
        call()
        return True

    def settle(self, seconds: float) -> None:
        """Some seconds more for what is on its way."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] < end:
            self.step()

    def note(self, what: str, whom: str) -> None:
        """Count what happened."""
        self.notes[what] += 1
        self.log("world", 10, f"{what}: {whom}")

    def log(self, who: str, level: int, text: str) -> None:
        """A line for who wants to see it step by step."""
        if self.verbose:
            print(f"{self.now:10.4f} {who:12} {level} {text}")
