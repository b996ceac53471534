"""How long a thread may go on before another one gets its turn, while roles run in this process.

CPython lets a thread that computes go on for 5 ms when another one waits. The loop of a role lets go at each system
call, and so waited 5 ms at each, several times a message, while the threads that it feeds worked off in one of them
what they had: then they waited for the loop. With turns of 0.1 ms both go on.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

TURN = 0.0001
"""Seconds. Each change of turns costs some microseconds, so that threads that compute lose a few percent at most."""

_lock = threading.Lock()
_running = 0
_before = 0.0


@contextlib.contextmanager
def short_turns() -> Iterator[None]:
    """Within it turns are at most `TURN` long; what was set before the first of several is set after the last."""
    global _running, _before
    with _lock:
        _running += 1
        if _running == 1:
            _before = sys.getswitchinterval()
            if _before > TURN:
                sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            # whoever has set something else meanwhile has the last word
            if _running == 0 and abs(sys.getswitchinterval() - TURN) < TURN / 10:
                sys.setswitchinterval(_before)
