"""How many workers a task is given by `run --workers MIN:MAX`. Pure: it starts nothing, and never asks the time.

The law, of each task by itself, which is looked at every LOOK seconds:

1. A task that is not open is given MIN workers; an open one has one at least.
2. It grows while each of its workers that are there has an item for each of its threads, for FULL seconds without a
   look at which that is not so, and once one of them has come beyond its init functions.
3. It is then given so many that a new one works at least as long as its start has taken (`enough`, with twice the time
   of a start as the horizon), and at most one thread for each item that is left. What is left is what the `total` of
   the task says, or what is at hand. A source does not say how much it still has: of one without a total, as much is
   expected as there was so far, and then a task is given no more than twice the workers that are there.
4. It shrinks to the most that had an item, or had not come yet, at any look of the last REST seconds, or of as many as
   a start takes, if that is longer: what costs a start to have back is kept for as long. Who is idle is asked to drain,
   or who has not come yet; nobody is killed.
5. After a growth that was in vain, since it shrank again, the next one waits for twice as long (rule 2), up to
   MAX_PATIENCE: a load between two numbers does not have workers started and ended for ever. A growth whose workers
   have all had items for as long as rule 4 has it sets that back.
6. Whoever was asked for and has not come is still asked for. While the distributor does not answer, nothing changes.

`cli/exposition.py` has the same question for autoscalers outside (`desired_workers`), which look when they like, and
start and end workers by rules of their own: it shares `enough`, with a horizon of a minute, and none of the memory.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

LOOK = 0.5
"""Seconds between two looks."""

FULL = 0.5
"""Seconds for which all workers must have had enough to do before there are more of them."""

REST = 8.0
"""Seconds that a worker is without an item before it is asked to leave."""

START = 1.0
"""Seconds that a start is taken to need before one was seen."""

LEAST_START = 0.5
"""Seconds that a start is taken to need at least: looks are no closer."""

MAX_PATIENCE = 60.0
"""The most seconds for which a growth waits after others that were in vain."""

WELL_USED = 0.9
"""So much of a growth must have been needed, on average, for it to be right."""

MAX_REST = 300.0
"""The most seconds that a worker is kept without an item, however long starts take."""


def enough(left: float, seconds_each: float, threads: float, horizon: float) -> int:
    """The workers that are done with so many items in `horizon` seconds, at most one thread for each item.

    `seconds_each` is how long one worker, with all its `threads`, is at an item, on average.
    """
    return math.ceil(min(left * seconds_each / horizon, left / threads))


@dataclass(frozen=True)
class Look:
    """How a task stands at a look. What is said of workers is of those that are there and do not drain."""

    is_open: bool
    there: int = 0
    idle: int = 0
    """Workers without an item."""
    is_full: bool = False
    """Each has an item for each of its threads, and one of them is beyond its init functions."""
    working: int = 0
    """Workers with an item that are beyond their init functions."""
    threads: float = 1.0
    """Those of one worker, on average."""
    done: int = 0
    """Items done in this run, by any distributor."""
    left: int = 0
    """Items that are known of, and not done."""
    is_all: bool = False
    """There will not be others."""


@dataclass
class Autoscale:
    """One task: tell it what is seen (`look`) and how long starts take (`started`); `desired` is how many it is given.

    Times in seconds; `now` is of any clock that only goes forward.
    """

    least: int
    most: int
    desired: int = field(init=False)
    start_seconds: float = field(default=START, init=False)
    """What a start takes."""
    patience: float = field(default=FULL, init=False)
    """For how long all must have had enough to do before the next growth."""
    _was_started: bool = field(default=False, init=False)
    _spent: float = field(default=0.0, init=False)
    """Seconds that workers have been at items."""
    _first_done: int | None = field(default=None, init=False)
    _looked_at: float | None = field(default=None, init=False)
    _full_since: float | None = field(default=None, init=False)
    _is_on_trial: bool = field(default=False, init=False)
    """It has grown, and whether that was right is not known yet."""
    _came_at: float | None = field(default=None, init=False)
    """When all that it has grown to were there."""
    _needs: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    """When it was looked at, and how many were needed: for as long as a worker may rest."""

    def __post_init__(self) -> None:
        self.desired = self.least

    @property
    def rest(self) -> float:
        """Seconds that a worker may be without an item."""
        return min(max(REST, self.start_seconds), MAX_REST)

    def from_here(self, number: int) -> Autoscale:
        """The law of this task, which goes on from this number: only what a start takes is still known."""
        law = Autoscale(self.least, self.most)
        law.desired = min(max(number, self.least), self.most)
        law.start_seconds, law._was_started = self.start_seconds, self._was_started
        return law

    def started(self, seconds: float) -> None:
        """A worker has come beyond its init functions, so long after its start."""
        mean = (self.start_seconds + seconds) / 2 if self._was_started else seconds
        self._was_started, self.start_seconds = True, max(LEAST_START, mean)

    def look(self, look: Look, now: float) -> int:
        """The workers that the task is given from now on."""
        if self._looked_at is not None:
            # of a time in which nobody answered nothing is known
            self._spent += look.working * min(max(0.0, now - self._looked_at), 2 * LOOK)
        self._looked_at = now
        if self._first_done is None:
            self._first_done = look.done
        if look.is_open:
            self.desired = max(self.desired, 1)
        self._note_need(look, now)
        self._shrink(now)
        self._judge_growth(look, now)
        if not (look.is_open and look.is_full):
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        elif now - self._full_since >= self.patience:
            self._grow(look, now)
        return self.desired

    def _note_need(self, look: Look, now: float) -> None:
        need = self.least
        if look.is_open:
            # who has not come yet is needed, unless somebody who has come is not
            need = look.there - look.idle if look.idle else max(look.there, self.desired)
        floor = max(self.least, 1) if look.is_open else self.least
        self._needs.append((now, min(max(need, floor), self.most)))
        # the first one is what was needed when the time began that is looked back on
        while len(self._needs) > 1 and self._needs[1][0] <= now - self.rest:
            self._needs.popleft()

    def _shrink(self, now: float) -> None:
        if self._needs[0][0] > now - self.rest:
            return  # nobody has been watched for so long
        needed = max(need for _, need in self._needs)
        if needed < self.desired:
            self.desired = needed
            if self._is_on_trial:
                self._is_on_trial, self.patience = False, min(2 * self.patience, MAX_PATIENCE)

    def _judge_growth(self, look: Look, now: float) -> None:
        if not self._is_on_trial or look.there < self.desired:
            self._came_at = None
        elif self._came_at is None:
            self._came_at = now
        elif now - self._came_at >= self.rest and self._mean_need() >= WELL_USED * self.desired:
            self._is_on_trial, self.patience = False, FULL

    def _mean_need(self) -> float:
        return sum(need for _, need in self._needs) / len(self._needs)

    def _grow(self, look: Look, now: float) -> None:
        wanted = min(self._wanted(look), self.most)
        if wanted > self.desired:
            self.desired, self._is_on_trial, self._came_at = wanted, True, None
            self._needs.append((now, wanted))

    def _wanted(self, look: Look) -> int:
        horizon = 2 * self.start_seconds
        # of those that are under way half is done, on average
        done = look.done - (self._first_done or 0) + look.working * look.threads / 2
        seconds_each = self._spent / max(1.0, done)
        known = enough(look.left, seconds_each, look.threads, horizon)
        if look.is_all:
            return known
        # as much again as there was: how many items that are, nobody knows
        return max(known, min(math.ceil(self._spent / horizon), 2 * look.there))
