"""A worker that waits for a run which is over: how it learns of that, and when it ends.

A distributor stays at its addresses for at least as long as a waiting worker takes to try again (`Stay`), and tells
whoever comes that the run is over. When it has seen its run to the end, it leaves a note of that at its addresses, for
the roles of this host. A worker that is not connected to a distributor looks for such a note (`MissedRun`). Then:

=================================================== =================================================================
the run of the note                                 the worker
=================================================== =================================================================
is the one that it works for                        ends: the word that the run is over was lost on the way
ended while it waited                               ends: the run was too short to be met
ended less than a minute before it was started      says so at once, and ends if nobody at all has come within 20 s:
                                                    it is late for that run, or early for the next one
ended before that, or there is no note              waits
=================================================== =================================================================
"""

from __future__ import annotations

from zmqpipeline.options import Options
from zmqpipeline.protocol.early_end import EarlyEnd
from zmqpipeline.protocol.events import EndFound
from zmqpipeline.protocol.messages import RunEnded

LOOK_SECONDS = 0.5
"""How often a worker looks for a note while it waits."""

RECENT_SECONDS = 60.0
"""A worker that is started so soon after the end of a run may belong to that one."""

PATIENCE_SECONDS = 20.0
"""How long such a worker waits for the next run."""

_LONGER = "To have it wait longer, give it an idle time-out."


class MissedRun:
    """See the module. Times are those of the machine."""

    def __init__(self, options: Options, age: float | None = None) -> None:
        """Nothing is looked for before the first `wait`. `age` is that of `EarlyEnd`."""
        self._early = EarlyEnd(age)
        # who says how long it waits for an item is taken at that word
        self._patience = PATIENCE_SECONDS if options.idle_timeout is None else None
        self._born: float | None = None
        self._since: float | None = None
        """Since when nobody is connected."""
        self._unserved: float | None = None
        """Since when it is not connected to a distributor."""
        self._look_at: float | None = None
        self._has_said = False

    def wait(self, connected: set[str], now: float) -> None:
        """Begin or cease to wait for a distributor; call it with every event."""
        if self._born is None:
            self._born = now
        self._early.wait(now, alone=not connected)
        if connected:
            self._since = None
        elif self._since is None:
            self._since = now
        if "workers" in connected:
            self._unserved = self._look_at = None
        elif self._unserved is None:
            self._unserved, self._look_at = now, now + LOOK_SECONDS

    def next_time(self) -> float | None:
        """When to look for a note."""
        return self._look_at

    def is_due(self, now: float) -> bool:
        """Whether to look for a note now."""
        if self._look_at is None or now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        return True

    def found(self, note: EndFound, run: str, now: float) -> tuple[str, RunEnded | None]:
        """There is this note: what a worker of `run` ("": of none yet) says, if anything, and how its run has ended."""
        if self._unserved is None or self._born is None:
            return "", None
        if note.ended_by:
            early = self._early.verdict(note, now)
            return "", RunEnded("", ok=False, reason=early) if early else None
        at = now - note.seconds
        why, is_told = self._verdict(note.run, at, run, now)
        if why:
            # who was told that it waits is told how that went, as loud
            is_told = is_told or self._has_said
            return why if is_told else "", RunEnded(note.run, reason="" if is_told else why)
        if self._has_said or run or self._since is None or not self._is_late(at):
            return "", None
        self._has_said = True
        wait = "its idle time-out" if self._patience is None else f"{self._patience:.0f} s"
        return f"{self._over(at)}. It waits for the next one to begin, for {wait} at most.", None

    def _verdict(self, ended: str, at: float, run: str, now: float) -> tuple[str, bool]:
        """Why it ends, and whether people have to be told."""
        assert self._unserved is not None
        assert self._born is not None
        if run and ended == run:
            return "the run is over", False
        # one that has worked for a run may have seen the end of the one before
        if at >= (self._unserved if run else self._born):
            return "The run was over before this worker could connect to its distributor.", False
        if self._patience is None or run or not self._is_late(at) or self._since is None:
            return "", False
        if now < max(self._born, self._since) + self._patience:
            return "", False
        seconds = f"{self._patience:.0f} s"
        return f"{self._over(at)}, and no other has begun for {seconds}: ending. {_LONGER}", True

    def _is_late(self, at: float) -> bool:
        assert self._born is not None
        return self._born - RECENT_SECONDS <= at < self._born

    def _over(self, at: float) -> str:
        assert self._born is not None
        return f"The run at this address was over {self._born - at:.1f} s before this worker was started"


class Stay:
    """For how long a distributor stays, from its first event on, although its run is over."""

    def __init__(self, seconds: float) -> None:
        """0 is not at all."""
        self._seconds: float | None = seconds
        self.until: float | None = None
        """The time until which it stays; None when that has come."""

    def pass_time(self, now: float) -> None:
        """Call it with every event."""
        if self._seconds is not None:
            self.until, self._seconds = now + self._seconds, None
        if self.until is not None and now >= self.until:
            self.until = None
