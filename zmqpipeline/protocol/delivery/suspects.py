"""Who may have killed a worker: which of its items had begun when it was lost, and are suspects.

The law:

* An item that the worker had finished, or surely had not begun, is no suspect: it goes to others at full speed.
* What had begun is known from its last word. A report says what is done, and how much is unfinished; a worker whose
  threads are all busy with an item that takes long names these (`begun`): behind them nothing begins. An item that was
  lost with a worker before is on trial (`Work.trial`): it begins only after the distributor has heard that it is there.
* Short items are too many to be told of one by one. If more than `FEW` beside one a thread may have begun, they are a
  crowd: they go out in groups of the square root of it, each group to a worker that holds nothing else. So the second
  death leaves a hundred of ten thousand, which are tried one by one.
* A suspect counts one crash each time. It is given up at the `crash_limit`-th, if it is known by then which item it
  was: no other one may have begun, and the worker had said that it had received it. Else it is tried alone first. With
  a limit of one it is not tried again, and one a thread may have begun.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import field

from zmqpipeline.protocol.data.ranges import RangeSet
from zmqpipeline.protocol.dataclass import dataclass

FEW = 16
"""So many suspects beside one a thread are tried one by one at once; more are tried in groups."""

_ALL = 1 << 62


@dataclass(slots=True)
class LastWord:
    """What a lost worker had said of its items; by default nothing, and as many threads as items."""

    done: RangeSet = field(default_factory=RangeSet)
    """It has a result or a failure of these."""
    begun: RangeSet | None = None
    """Only these had begun, and no other could; None if nobody knows."""
    finished: int = 0
    """All that our messages up to this one brought is finished."""
    received: int = _ALL
    """The last of our messages that it has surely received."""
    slots: int = _ALL

    def finished_of(self, held: Mapping[int, int]) -> set[int]:
        """Of these items, by number with the message that brought them, those that it had finished."""
        return {number for number, message in held.items() if 0 < message <= self.finished or number in self.done}

    def suspects_of(self, held: Mapping[int, int], on_trial: Collection[int]) -> set[int]:
        """Of these, those that may have been running; `on_trial` are those that were lost with a worker before."""
        begun, finished = self.begun, self.finished_of(held)
        return {
            number
            for number, message in held.items()
            if number not in finished
            and (begun is None or number in begun)
            and (message <= self.received or number not in on_trial)
        }

    def is_exact(self, suspects: Collection[int], held: Mapping[int, int], limit: int) -> bool:
        """Whether each of these may be called what the worker died of: each was there, and had a thread of its own.

        Where several may be tried once more, alone, they are: calls with a list have one thread for many items. An item
        whose `limit` is one crash is not.
        """
        most = self.slots if limit == 1 or self.slots == _ALL else 1
        return len(suspects) <= most and all(held[number] <= self.received for number in suspects)

    def group_of(self, suspects: Collection[int]) -> int:
        """In groups of how many these are tried; 0: one by one."""
        return math.isqrt(len(suspects)) if len(suspects) > self.slots + FEW else 0
