"""What keeps all threads of a worker busy, told once: behind it nothing begins, so that nothing else is to blame.

See `protocol.delivery.suspects`. The ticker asks at each look, so that it costs the items nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from zmqpipeline.protocol.events import Running
from zmqpipeline.runtime.threads.execution import Slot
from zmqpipeline.runtime.threads.serial import Post


class Busy:
    """Looks at these threads; Running tells."""

    def __init__(self, slots: Sequence[Slot], post: Post) -> None:
        """Nothing is seen yet."""
        self._slots = slots
        self._post = post
        self._numbers: list[list[int]] = []
        """What the threads were at when they were looked at last."""
        self._was_told = False

    def tell(self, *, waiting: bool) -> bool:
        """Tell if all threads are at what they were at before, and others wait; whether to look again soon.

        `waiting`: items wait that no thread has taken. A thread that is parked may begin one of them as soon as the one
        that executes alone is seen to be stuck: only when it is at one of its own, too, does nothing else begin.
        """
        slots = [slot for slot in self._slots if not slot.lost]
        if not (waiting or any(slot.todo for slot in slots)):
            return False
        numbers = [slot.running() for slot in slots]
        if numbers != self._numbers:
            self._numbers, self._was_told = numbers, False
        elif not self._was_told and all(numbers):
            self._was_told = True
            self._post(Running([number for several in numbers for number in several]))
        return not self._was_told
