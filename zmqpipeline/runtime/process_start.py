"""How long ago the process was started that runs a role, which may have imported much before it came to that.

Linux says it. Elsewhere it is known when this module was imported, which is later: a role then learns less often that
its run ended while it was starting (`protocol.early_end`), and never what is not so.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

MAX_START_LENGTH = 10.0
"""A process that runs its first role later than so many seconds after its start has done something else before."""

_IMPORTED = time.monotonic()
_IMPORTED_BY = os.getpid()
_START_FIELD = 19
"""Where the start stands in /proc/PID/stat, behind the name, which may have blanks in it."""

_guard = threading.Lock()
_ran: int | None = None
"""The process, if it has run a role; a fork has run none."""


def age_of_role(*, with_parent: bool) -> float:
    """For how many seconds the role that is run now has been starting; 0.0 if it is not the first of its process.

    `with_parent`: the parent was started for this, and this process by it.
    """
    global _ran
    with _guard:
        is_first, _ran = _ran != os.getpid(), os.getpid()
    own = _age_of("self") if is_first else None
    if own is None and is_first and os.getpid() == _IMPORTED_BY:
        own = time.monotonic() - _IMPORTED
    if own is None or own > MAX_START_LENGTH:
        return 0.0
    parents = _age_of(str(os.getppid())) if with_parent else None
    return own if parents is None else max(own, parents)


def _age_of(process: str) -> float | None:
    """Seconds since the start of this process; None if the system does not say that."""
    try:
        fields = Path("/proc", process, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        started = int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return age if age >= 0.0 else None
