"""Who a role waits for: said after ten seconds, then each minute, for as long as it takes."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Set

WARN_FIRST_SECONDS = 10.0
"""When it is said first: an address may be misspelt, and somebody sits before the terminal."""

WARN_SECONDS = 60.0
"""How often a role that waits for another one says so."""


class Absence:
    """The hops of a role that lead to somebody who is not there; `names` says who that would be, as people call it."""

    def __init__(self, names: Mapping[str, str], patience: float | None = None) -> None:
        """`patience`: after so many seconds it waits no longer (the option `exit_when_idle`)."""
        self._names = names
        self._patience = patience
        self._warn_at: float | None = None
        self._since = 0.0

    def look(self, connected: Set[str], now: float) -> None:
        """Begin or cease to wait; call it with every event."""
        if connected >= self._names.keys():
            self._warn_at = None
        elif self._warn_at is None:
            self._warn_at, self._since = now + WARN_FIRST_SECONDS, now

    def until(self) -> float | None:
        """When it has waited long enough, if it waits."""
        return None if self._patience is None or self._warn_at is None else self._since + self._patience

    def next_time(self) -> float | None:
        """When to warn."""
        return self._warn_at

    def warning(self, connected: Set[str], now: float) -> str | None:
        """What to say now, if it is time."""
        if self._warn_at is None or now < self._warn_at:
            return None
        self._warn_at = now + WARN_SECONDS
        missing = " and ".join(name for hop, name in self._names.items() if hop not in connected)
        return (
            f"Waiting for {missing} to connect to; what is held here is kept. Start it, see whether --endpoint names "
            "its address, or end this worker with Ctrl-C."
        )


def how_to_start(command: str, *role: str) -> str:
    """The end of a message about a role that is missing: what starts it, by the command that starts roles, if known."""
    if not command:
        return "Start the program that runs one."
    return f"Start one: {command} {shlex.join(role)}, with the --endpoint of this role if it has one."
