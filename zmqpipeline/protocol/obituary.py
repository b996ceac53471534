"""What became of a lost worker: the connection tells that it is gone, whoever started it tells how it ended.

Both words come within moments of each other, in either order. The line for people waits a moment for the second one;
the worker's items do not.
"""

from __future__ import annotations

from collections import OrderedDict, deque

WAIT_SECONDS = 0.5
"""How long a line waits for the word of who started the worker."""

REMEMBERED = 100
"""So many deaths are remembered whose connections have not broken yet."""

UNKNOWN = "its connection broke"


class Obituaries:
    """Puts the two words together. `supervised`: somebody tells how workers end; otherwise no line waits."""

    def __init__(self, *, supervised: bool) -> None:
        self._supervised = supervised
        self._deaths: OrderedDict[int, str] = OrderedDict()
        self._waiting: deque[tuple[float, int, str]] = deque()

    def lost(self, pid: int, line: str, now: float) -> list[str]:
        """A worker's connection is gone; `line` says so, with ``{how}`` in it. The lines that can be written now."""
        how = self._deaths.pop(pid, None)
        if how is not None or not self._supervised or not pid:
            return [line.format(how=how or UNKNOWN)]
        self._waiting.append((now + WAIT_SECONDS, pid, line))
        return []

    def died(self, pid: int, how: str) -> list[str]:
        """A process ended, in this way."""
        known = [line for _, one, line in self._waiting if one == pid]
        if known:
            self._waiting = deque(entry for entry in self._waiting if entry[1] != pid)
            return [line.format(how=how) for line in known]
        self._deaths[pid] = how
        if len(self._deaths) > REMEMBERED:
            self._deaths.popitem(last=False)
        return []

    def overdue(self, now: float) -> list[str]:
        """The lines that have waited long enough: the process may well live, behind a broken connection."""
        lines = []
        while self._waiting and now >= self._waiting[0][0]:
            lines.append(self._waiting.popleft()[2].format(how=UNKNOWN))
        return lines

    def next_time(self) -> float | None:
        """When the first line has waited long enough."""
        return self._waiting[0][0] if self._waiting else None
