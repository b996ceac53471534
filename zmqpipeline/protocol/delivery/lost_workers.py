"""What became of a lost worker: the connection tells that it is gone, whoever started it tells how it ended.

Both words come within moments of each other, in either order. The line for people waits a moment for the second one;
the worker's items do not.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from zmqpipeline.protocol.commands import Log
from zmqpipeline.protocol.messages import LostWorker

WAIT_SECONDS = 0.5
"""How long a line waits for the word of who started the worker."""

REMEMBERED = 100
"""So many deaths are remembered whose connections have not broken yet."""

UNKNOWN = "its connection broke"

MAX_TOLD, MAX_WHY = 50, 200
"""So many lost workers are told to who asks, each with so many characters of how it ended."""


class LostWorkers:
    """Puts the two words together. `supervised`: somebody tells how workers end; otherwise no line waits."""

    def __init__(self, *, supervised: bool) -> None:
        self._supervised = supervised
        self._deaths: OrderedDict[int, str] = OrderedDict()
        self._waiting: deque[tuple[float, int, str, dict[str, str | int]]] = deque()
        self._last: deque[tuple[float, str, str, str]] = deque(maxlen=MAX_TOLD)
        self.count = 0
        """How many were lost in all."""

    def lost(self, pid: int, line: str, now: float, **about: str | int) -> list[Log]:
        """A worker's connection is gone; `line` says so, with ``{how}`` in it. The lines that can be written now."""
        how = self._deaths.pop(pid, None)
        if how is not None or not self._supervised or not pid:
            return [self._line(now, line, how or UNKNOWN, about)]
        self._waiting.append((now + WAIT_SECONDS, pid, line, about))
        return []

    def died(self, pid: int, how: str) -> list[Log]:
        """A process ended, in this way."""
        known = [
            self._line(due - WAIT_SECONDS, line, how, about) for due, one, line, about in self._waiting if one == pid
        ]
        if known:
            self._waiting = deque(entry for entry in self._waiting if entry[1] != pid)
            return known
        self._deaths[pid] = how
        if len(self._deaths) > REMEMBERED:
            self._deaths.popitem(last=False)
        return []

    def overdue(self, now: float) -> list[Log]:
        """The lines that have waited long enough: the process may well live, behind a broken connection."""
        lines = []
        while self._waiting and now >= self._waiting[0][0]:
            due, _, line, about = self._waiting.popleft()
            lines.append(self._line(due - WAIT_SECONDS, line, UNKNOWN, about))
        return lines

    def next_time(self) -> float | None:
        """When the first line has waited long enough."""
        return self._waiting[0][0] if self._waiting else None

    def last(self, now: float) -> list[LostWorker]:
        """Those that were lost last, the newest first."""
        return [LostWorker(worker, task, how, max(0.0, now - at)) for at, worker, task, how in reversed(self._last)]

    def _line(self, at: float, text: str, how: str, about: dict[str, str | int]) -> Log:
        self.count += 1
        self._last.append((at, str(about.get("worker", "")), str(about.get("task", "")), how[:MAX_WHY]))
        return Log(30, text.format(how=how), about)
