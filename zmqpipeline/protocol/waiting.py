"""What a distributor waits for that is not there: said after five seconds, then each minute."""

from __future__ import annotations

from zmqpipeline.protocol.machine import soonest
from zmqpipeline.protocol.peers import how_to_start

NOBODY_CAME = 75
"""The exit status of who has waited long enough: the same command may succeed later (EX_TEMPFAIL)."""

WARN_FIRST_SECONDS = 5.0
"""When it is said first: somebody sits before the terminal."""

WARN_SECONDS = 60.0
"""How often it is said from then on."""

_TEXTS = {
    "collector": "Waiting for a collector to connect to. {start}",
    "answer": "Waiting for the collector to answer: another distributor is connected to it, most likely. This one "
    "takes over when that one is gone. End that one, or this one with Ctrl-C.",
    "metadata": "Waiting for the metadata worker (receive_metadata is set). Start it.",
}


_NOBODY = {
    "collector": "No collector was there",
    "answer": "The collector did not answer, since another distributor is connected to it, most likely,",
    "metadata": "No metadata worker was there",
}


class Waiting:
    """Who a distributor waits for, if for anybody: "collector", "answer" (of the collector), "metadata", or ""."""

    def __init__(self, patience: float | None, command: str = "") -> None:
        """`patience`: after so many seconds it waits no longer (the option `exit_when_idle`).

        `command` is what starts roles of this pipeline.
        """
        self.has_looked = False
        self._start = how_to_start(command, "collector")
        self._patience = patience
        self._missing = ""
        self._since = 0.0
        self._warn_at: float | None = None

    def look(self, phase: str, now: float, *, connected: bool, remote: bool, is_told: bool = False) -> None:
        """Begin or cease to wait, or wait for another; call it with every event.

        `remote`: the metadata comes from a metadata worker; `is_told`: the log says already what is missing.
        """
        self.has_looked = True
        missing = _missing(phase, connected=connected, remote=remote)
        if missing != self._missing:
            self._missing, self._since = missing, now
            self._warn_at = now + (WARN_SECONDS if is_told else WARN_FIRST_SECONDS) if missing else None

    def next_time(self) -> float | None:
        """When there is something to say."""
        return soonest((self._warn_at, self._until()))

    def _until(self) -> float | None:
        return None if self._patience is None or not self._missing else self._since + self._patience

    def verdict(self, now: float) -> str | None:
        """Why this role ends, if it has waited long enough."""
        until = self._until()
        if until is None or now < until:
            return None
        return f"{_NOBODY[self._missing]} for {self._patience:g} s (exit_when_idle)."

    def warning(self, now: float) -> str | None:
        """What to say now, if it is time."""
        if self._warn_at is None or now < self._warn_at:
            return None
        self._warn_at = now + WARN_SECONDS
        return _TEXTS[self._missing].format(start=self._start)


def _missing(phase: str, *, connected: bool, remote: bool) -> str:
    if phase in ("farewell", "draining", "ended"):
        return ""
    if not connected:
        return "collector"
    if phase in ("greeting", "beginning"):
        return "answer"
    return "metadata" if phase == "metadata" and remote else ""
