"""The items, the work, and the count of what came back: the same for the library and for the yardsticks."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import random
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LUMP = 256 * 1024
"""So many bytes are hashed or compressed for an item of these kinds."""

LOG_NORMAL, RARE = "log-normal", "rare"
"""Kinds of uneven items, which compute: of any length from 10 us to 100 ms, or of 20 us and rarely of 50 ms."""

_SHORTEST, _LONGEST = 0.01, 100.0
"""Of the log-normal ones, in milliseconds."""

_SHORT, _LONG, _ONE_IN = 0.02, 50.0, 1000
"""Of the others, in milliseconds: and one in so many is long."""


def blob(size: int) -> bytes:
    """So many bytes, the same each time, that no compression would make anything of."""
    return random.Random(size).randbytes(size)


@functools.cache
def lump() -> tuple[bytes, bytes, bytes]:
    """What is hashed and compressed, and what comes of both."""
    data = blob(LUMP)
    return data, hashlib.sha256(data).digest(), zlib.compress(data)


def lengths(kind: str, count: int, seed: int) -> Iterator[float]:
    """Of so many uneven items, in milliseconds; the same for the same seed."""
    chance = random.Random(seed)
    if kind == RARE:
        long = set(chance.sample(range(count), max(1, count // _ONE_IN)))
        yield from (_LONG if n in long else _SHORT for n in range(count))
        return
    middle = math.sqrt(_SHORTEST * _LONGEST)
    wide = math.log(_LONGEST / middle) / 2  # 95 of 100 lie between the two, and the others are drawn again
    while count:
        drawn = chance.lognormvariate(math.log(middle), wide)
        if _SHORTEST <= drawn <= _LONGEST:
            count -= 1
            yield drawn


def items(
    kind: str, count: int, *, size: int = 0, seconds: float = 0.0, loops: int = 0, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """So many items of one kind, all different: `size` bytes of payload each, a nap of `seconds`, or so many loops.

    Of uneven items, `loops` is how many take a millisecond.
    """
    if kind in ("trivial", "hash", "compress"):
        return ({"n": n} for n in range(count))
    if kind == "nap":
        return ({"n": n, "seconds": seconds} for n in range(count))
    if kind == "loops":
        return ({"n": n, "loops": loops} for n in range(count))
    if kind in (LOG_NORMAL, RARE):
        drawn = enumerate(lengths(kind, count, seed))
        return ({"n": n, "loops": round(length * loops)} for n, length in drawn)
    data = blob(size)
    return ({"n": n, "data": data} for n in range(count))


NAP = 0.01
"""Seconds of a usual nap."""


def percent(seconds: float, items: int, slots: int) -> float:
    """By how much this is more than the naps take if every slot is always at one."""
    return 100 * (seconds * slots / (items * NAP) - 1)


def double(data: dict[str, Any]) -> dict[str, Any]:
    """The smallest piece of work."""
    return {"n": data["n"], "double": 2 * data["n"]}


def nap(data: dict[str, Any]) -> dict[str, Any]:
    """Sleep; say how long it really was."""
    began = time.perf_counter()
    time.sleep(data["seconds"])
    return {"n": data["n"], "double": 2 * data["n"], "took": time.perf_counter() - began}


def hand_on(data: dict[str, Any]) -> dict[str, Any]:
    """Give the bytes back."""
    return {"n": data["n"], "double": 2 * data["n"], "data": data["data"]}


def count(data: dict[str, Any]) -> dict[str, Any]:
    """Count up from `n`, so many loops, in pure Python; the double is right only if each of them was made."""
    number, loops = data["n"], data["loops"]
    total, end = number, number + loops
    while total < end:  # each of its loops takes as long as any other, which those over a range do not
        total += 1
    return {"n": number, "double": number + total - loops}


def take_hash(data: dict[str, Any]) -> dict[str, Any]:
    """The SHA-256 of the lump, for which Python lets go of the interpreter; the double is right only if that is."""
    lumped, digest, _ = lump()
    return {"n": data["n"], "double": 2 * data["n"] + (hashlib.sha256(lumped).digest() != digest)}


def compress(data: dict[str, Any]) -> dict[str, Any]:
    """The lump by zlib, for which Python lets go of the interpreter, too."""
    lumped, _, packed = lump()
    return {"n": data["n"], "double": 2 * data["n"] + (zlib.compress(lumped) != packed)}


WORK: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "trivial": double,
    "nap": nap,
    "bytes": hand_on,
    "loops": count,
    LOG_NORMAL: count,
    RARE: count,
    "hash": take_hash,
    "compress": compress,
}
"""What a worker does, by the kind of the items."""


class Tally:
    """What a collector has seen: a repeat and a loss do not make up for each other in both numbers."""

    __slots__ = ("count", "first", "total")

    def __init__(self) -> None:
        """Nothing yet."""
        self.count = 0
        self.total = 0
        self.first = 0.0

    def add(self, double: int) -> None:
        """One result has come."""
        if not self.count:
            self.first = time.monotonic()
        self.count += 1
        self.total += double

    def write(self, items: int, out: str | Path, **more: Any) -> None:
        """Write when the first and the last result came (time.monotonic), and `more`, if they are the right ones.

        The last one has come now, unless `more` says when it has.

        Raises:
            SystemExit: some are missing, or came twice.
        """
        last = time.monotonic()
        if (self.count, self.total) != (items, items * (items - 1)):
            raise SystemExit(f"{self.count} of {items} items were collected, with the sum {self.total}.")
        Path(out).write_text(json.dumps({"items": items, "first": self.first, "last": last, **more}))
