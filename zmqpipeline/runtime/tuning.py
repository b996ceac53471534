"""Settings of the interpreter and of the C library while roles run: short turns, and freed memory that stays.

How long a thread may go on before another one gets its turn, while roles run in this process.

CPython lets a thread that computes go on for 5 ms when another one waits. The loop of a role lets go at each system
call, and so waited 5 ms at each, several times a message, while the threads that it feeds worked off in one of them
what they had: then they waited for the loop. With turns of 0.1 ms both go on.

All who wait look up once a turn, so that many threads that compute would pay for short ones: the turns of a worker are
as many times longer as it has threads. ``python -m examples.benchmarks turns`` measures what is left of that price.

How much memory a process has, and that freed memory stays with it.

That is so where the C library is glibc and the user has not said otherwise.

A batch is half a megabyte at most, and libzmq makes and frees a buffer or two of that size for each message, four with
encryption. glibc gives such memory back to the system and asks for it again a moment later, and the system clears each
page each time. ``python -m examples.benchmarks curve`` shows it: with items of 1 KB a third of what keys cost was this.

How many files a process may have open, which is how many workers a role can have.

Systems begin with a limit of 1024 that each process may raise, to a much higher one; libzmq ends a process that finds
none left. What the process starts inherits it, hence not all of it: some programs look at each number.

What was imported is never garbage, as long as roles run.

The collector of cycles looks at all of it each time it looks at what is old, and once more as the process ends: a tenth
of the CPU time of a process that executes a handful of items.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from zmqpipeline.options import shown_size
from zmqpipeline.protocol.events import Event, Executed, Retire
from zmqpipeline.runtime.threads.serial import Post

TURN = 0.0001
"""Seconds, for each thread that runs user code."""

MAX_FILES = 65536
"""So many open files a role asks for at most."""

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
    global _before, _set  # noqa: PLW0603 - the interpreter has one interval
    with _lock:
        if not _wanted:
            _before = _set = sys.getswitchinterval()
        change()
        # the system's own value has microseconds, ours may have less
        if abs(sys.getswitchinterval() - _set) < _LEAST:
            sys.setswitchinterval(max(_LEAST, min([_before, *_wanted])))
            _set = sys.getswitchinterval()


MAX_KEPT_BYTES = 32 * 1024 * 1024
"""Bytes, the most that glibc takes: a larger piece of memory is asked from the system by itself, and given back when it
is freed. With 8 MiB, items of 10 MB went at a quarter of their pace."""

MAX_KEPT = 128 * 1024 * 1024
"""Bytes at the end of the heap that are kept; what is beyond goes back."""

LOOK_SECONDS = 0.02
"""So seldom at most a worker with `max_memory` looks how much it has."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of mallopt(3)."""


def keep_freed_memory() -> bool:
    """Have it so from now on; whether the C library takes it. Set ``MALLOC_TRIM_THRESHOLD_`` to decide otherwise."""
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, MAX_KEPT_BYTES) and mallopt(_TRIM_THRESHOLD, MAX_KEPT))


def raise_file_limit() -> None:
    """Let this process have as many open files as it may, at most MAX_FILES; a higher limit is left as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def keep_imported() -> None:
    """Have the collector of cycles pass over all that there is now, for good; to be called before roles run."""
    gc.freeze()


def resident_bytes() -> int:
    """How much memory of the machine this process has now (RSS); where the system does not tell, the most it had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return pages * resource.getpagesize()


def retiring(post: Post, most: int) -> Post:
    """As `post`; after items it posts Retire, too, if the process has more than `most` bytes by then."""
    looked_at = 0.0

    def posting(event: Event) -> None:
        nonlocal looked_at
        post(event)
        if isinstance(event, Executed) and time.monotonic() - looked_at >= LOOK_SECONDS:
            looked_at = time.monotonic()
            found = resident_bytes()
            if found > most:
                post(Retire(f"it has {shown_size(found)} of memory, more than max_memory={shown_size(most)}", 30))

    return posting
