"""How many items a worker has at hand, and how many travel in one message.

The law. A worker with `slots` threads wants ``slots + prefetch`` items unstarted or running, where

    prefetch = slots * (prefetch_seconds / service_time - 1), rounded up, between 0 and max_prefetch

so that with 80 ms of `prefetch_seconds` an item of 80 ms or more is never hoarded behind another, and one of 40 ms has
one other waiting for its thread: the way to the distributor and back takes milliseconds where all cores compute. Items
that are shorter than a quarter of `prefetch_seconds` have more at hand, those of some microseconds three times as much:
a worker reports, and looks for more, once a quantum of 100 ms (`runtime.threads.shares`), so that 240 ms of work cover
that twice, and the way to the distributor and back on a machine that is busy besides.

`service_time` is observed: the seconds of the last batches by their items, so that a batch weighs as much as it has
items. One item that a busy machine held up for half a millisecond, among thousands that took half a microsecond, is
noise. Averaged batch by batch it shrank the window to a fiftieth, and each such mishap cost thirty round trips: a third
of the throughput of trivial items. What came before is forgotten as new batches come, a fifth with each, and sooner the
longer they take: one of 10 ms leaves a half. The window at most doubles from one observation to the next, beginning at
one item a slot.

The distributor asks a source for no less than a quarter of the window (`dispatcher`): crumbs would go on for ever.

The constants. A message costs each role some 50 us, an item half a microsecond: what is saved by larger batches was
measured by ``python -m examples.benchmarks throughput --workers 1``, with the constants changed in copies (trivial
items a second, medians of 12 runs that took turns, two cores):

============= =================== ============ =======
`MAX_BATCH`   ``max_prefetch``    items/s      the gain
============= =================== ============ =======
1000          2048                  780,000
2000          4096                  960,000      +23 %
2000          8192                1,050,000      +35 %
3000          12288               1,170,000      +50 %
4000          16384               1,130,000      +45 %
============= =================== ============ =======

The fourth row is what is used. The fifth was the best of one session and no better than the third in another one; what
a worker holds is what goes to others when it dies, and what a drain waits for when the collector is slow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MAX_BATCH = 3000
"""The most items in one message, so that no role is busy with one message for more than some milliseconds."""

MAX_BATCH_BYTES = 512 * 1024
"""A batch is closed when its payloads reach this size (bytes).

A message and its encrypted twin then fit into the cache of a core (1 MB here). ``python -m examples.benchmarks curve``
with this constant changed in copies, medians of four runs that took turns, items of 1 KB that are given back, in the
clear and encrypted: 396,000 and 290,000 a second with 1024 KiB, 370,000 and 289,000 with 512, 346,000 and 258,000 with
256. Items whose results are short: 475,000 and 387,000; 470,000 and 408,000; 439,000 and 378,000.
"""

NO_LIMIT = 1 << 62
"""For sizes without a bound (bytes)."""

_KEPT = 0.8
"""So much of what was observed before counts beside a new batch, at most."""

_HORIZON = 0.01
"""Seconds: a batch that took so long leaves half of what was observed before."""


class ServiceTime:
    """The observed time of one item, in seconds; None before the first observation."""

    __slots__ = ("_busy", "_items", "seconds")

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._items = 0.0
        self._busy = 0.0

    def observe(self, items: int, busy: float) -> None:
        """A thread was busy for `busy` seconds with that many items."""
        if items <= 0:
            return
        busy = max(busy, 0.0)
        kept = min(_KEPT, _HORIZON / (_HORIZON + busy))
        self._items = kept * self._items + items
        self._busy = kept * self._busy + busy
        self.seconds = self._busy / self._items


def window(slots: int, service_time: float | None, last: int, *, prefetch_seconds: float, max_prefetch: int) -> int:
    """How many items to want in all, given the last answer (so that it grows by doubling)."""
    if service_time is None:
        return slots
    prefetch_seconds += max(0.0, 2 * prefetch_seconds - 8 * service_time)
    if service_time * (max_prefetch + slots) <= prefetch_seconds * slots:
        ahead = max_prefetch
    else:
        ahead = max(0, math.ceil(slots * (prefetch_seconds / service_time - 1)))
    return min(slots + min(ahead, max_prefetch), max(slots, 2 * last))


def is_room(held: int, window: int, slots: int) -> bool:
    """Whether a thread is idle, or so much of the prefetch is used up that a message for more is worth it."""
    ahead = window - slots
    enough = max(slots + ahead * 3 // 4, window - MAX_BATCH) if ahead > 0 else slots - 1
    return held <= enough


def is_known(room: int, told: int) -> bool:
    """Whether the distributor, as it was told of the window, knows of room for more than half of it, and can go on."""
    return 2 * room > told


def is_another(window: int, told: int) -> bool:
    """Whether the window differs by more than a quarter from what was told of it."""
    return not 3 * told <= 4 * window <= 5 * told


def is_too_much(held: int, window: int, told: int) -> bool:
    """Whether more is held than is wanted now, and the window half of what was told of it: others may need the rest."""
    return held > window and 2 * window <= told


def fits(payloads: Sequence[bytes]) -> bool:
    """Whether all of these go into one message."""
    return len(payloads) <= MAX_BATCH and sum(map(len, payloads)) <= MAX_BATCH_BYTES


def cut(sizes: list[int], max_items: int = MAX_BATCH, max_bytes: int = MAX_BATCH_BYTES) -> int:
    """How many of the first payloads, of these sizes in bytes, go into one message; at least one, if there is one."""
    if len(sizes) <= max_items and sum(sizes) <= max_bytes:
        return len(sizes)
    total = 0
    for count, one in enumerate(sizes[:max_items]):
        total += one
        if total > max_bytes and count:
            return count
    return min(len(sizes), max_items)
