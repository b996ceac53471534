"""The pauses of tasks, as a collector keeps them for a distributor that is started again.

A function of a worker asks for one (``Retry(pause=True)``), and the distributor heeds it. If that one dies, the workers
may have dropped what they said, but the next distributor asks the collector before it hands out anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from zmqpipeline.protocol.ack_messages import TaskPause

MAX_PAUSES = 10_000
"""So many tasks are believed to pause at once."""


class KeptPauses:
    """Until when each task pauses."""

    def __init__(self) -> None:
        """None does."""
        self._until: dict[str, float] = {}
        self._now = 0.0

    def pass_time(self, now: float) -> None:
        """It is so late."""
        self._now = now

    def told(self, pauses: Sequence[TaskPause]) -> None:
        """These tasks pause from now on, and no others."""
        self._until = {
            one.task: self._now + one.seconds for one in pauses[:MAX_PAUSES] if 0 < one.seconds < float("inf")
        }

    def left(self) -> list[TaskPause]:
        """Those that go on, and for how much longer."""
        left = ((task, until - self._now) for task, until in self._until.items())
        return [TaskPause(task, seconds) for task, seconds in left if seconds > 0]
