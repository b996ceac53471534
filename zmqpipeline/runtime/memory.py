"""How much memory a process has, and that freed memory stays with it.

That is so where the C library is glibc and the user has not said otherwise.

A batch is half a megabyte at most, and libzmq makes and frees a buffer or two of that size for each message, four with
encryption. glibc gives such memory back to the system and asks for it again a moment later, and the system clears each
page each time. ``python -m examples.benchmarks curve`` shows it: with items of 1 KB a third of what keys cost was this.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import time
from pathlib import Path

from zmqpipeline.protocol.events import Event, Executed, Retire
from zmqpipeline.runtime.calls import Post
from zmqpipeline.sizes import shown_size

LARGEST_KEPT = 32 * 1024 * 1024
"""Bytes, the most that glibc takes: a larger piece of memory is asked from the system by itself, and given back when it
is freed. With 8 MiB, items of 10 MB went at a quarter of their pace."""

MOST_KEPT = 128 * 1024 * 1024
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
    return bool(mallopt(_MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(_TRIM_THRESHOLD, MOST_KEPT))


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
