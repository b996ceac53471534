"""A role that was still starting when its run was ended early: how it learns of that, and when it ends.

Who ends a run by Ctrl-C or `shutdown`, a collector or a distributor, tells all that are connected, and waits for those
that try to be. A process that was started, and has not come so far yet, is told by nobody. So who ends a run leaves a
note of that at its addresses, for the roles of this host, with the time at which it was interrupted.

A note must never end a role of the next run, which may be started at once and in any order. So it ends a role if all
of this is so, and is nothing to it otherwise:

* **Its process was started before the interruption**, by `MARGIN_SECONDS` at least, since a signal is heard a little
  after it was sent. Whoever starts the next run does so after the end of this one. This is what tells the two apart.
* It had not waited for `WAITED_SECONDS` by then: one that had was connected, or tried to be, and was told.
* It has no company, the one that it needs to begin, for `PATIENCE_SECONDS`, and never had it. One that was started a
  moment before the interruption, and then finds the roles of the next run, works for these.

Only a process that carries out a command, from its import of zmqpipeline on, is known to be starting
(`runtime.process_start`). A program may have run anything before it ran its role: that one's start is `run()`.
"""

from __future__ import annotations

from zmqpipeline.protocol.events import EndFound

MARGIN_SECONDS = 0.2
WAITED_SECONDS = 2.0
PATIENCE_SECONDS = 3.0

LOOK_SECONDS = 1.0
"""How often it looks for a note when it has waited for so long."""

LOOKS_FOR_SECONDS = 40.0
"""For how long it does so: a drain takes half a minute, and the note is left at its end."""


class EarlyEnd:
    """See the module. Times are those of the machine."""

    def __init__(self, age: float | None) -> None:
        """`age`: for how many seconds the process was there when the machine begins. None: nothing is looked for."""
        self._age = age
        self._born: float | None = None
        self._look_at: float | None = None
        self._had_company = False

    def wait(self, now: float, *, alone: bool) -> None:
        """Call it with every event; `alone`: the role waits for the one that it needs to begin."""
        if self._age is None:
            return
        if self._born is None:
            self._born = now
            self._look_at = now + PATIENCE_SECONDS
        if not alone:
            self._had_company, self._look_at = True, None

    def next_time(self) -> float | None:
        """When to look for a note."""
        return self._look_at

    def is_due(self, now: float) -> bool:
        """Whether to look for a note now."""
        if self._look_at is None or self._born is None or now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS if now < self._born + LOOKS_FOR_SECONDS else None
        return True

    def verdict(self, found: EndFound, now: float) -> str:
        """Why the role ends, if it does, by this note."""
        if not found.ended_by or self._age is None or self._born is None or self._had_company:
            return ""
        at = now - found.seconds
        was_starting = self._born - self._age + MARGIN_SECONDS < at <= self._born + WAITED_SECONDS
        if not was_starting or now < self._born + PATIENCE_SECONDS:
            return ""
        return (
            f"The run ended early: the {found.ended_by} was interrupted or shut down {found.seconds:.0f} s ago, when "
            "this process was starting already. To have it run, start all of it again."
        )
