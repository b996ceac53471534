"""How long a thread may go on before another one gets its turn, while roles run in this process.

CPython lets a thread that computes go on for 5 ms when another one waits. The loop of a role lets go at each system
call, and so waited 5 ms at each, several times a message, while the threads that it feeds worked off in one of them
what they had: then they waited for the loop. With turns of 0.1 ms both go on.

All who wait look up once a turn, so that many threads that compute would pay for short ones: the turns of a worker are
as many times longer as it has threads. ``python -m examples.benchmarks turns`` measures what is left of that price.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

TURN = 0.0001
"""Seconds, for each thread that runs user code."""

_LEAST = 1e-6
"""What a program sets below this the interpreter gives back as 0, which it would not take; to it they are the same."""

_lock = threading.Lock()
_wanted: list[float] = []
_before = _set = 0.0


@contextlib.contextmanager
def short_turns(threads: int = 1) -> Iterator[None]:
    """Within it turns are at most `TURN` for each of so many threads, or as short as the program had set them.

    Of several at once, from any threads, the shortest counts; after the last one what was set before is set again,
    unless the program has set something else meanwhile.
    """
    wanted = TURN * max(1, threads)
    _change(lambda: _wanted.append(wanted))
    try:
        yield
    finally:
        _change(lambda: _wanted.remove(wanted))


def _change(change: Callable[[], object]) -> None:
    global _before, _set
    with _lock:
        if not _wanted:
            _before = _set = sys.getswitchinterval()
        change()
        # the system's own value has microseconds, ours may have less
        if abs(sys.getswitchinterval() - _set) < _LEAST:
            sys.setswitchinterval(max(_LEAST, min([_before, *_wanted])))
            _set = sys.getswitchinterval()
