"""The items, the work, and the count of what came back: the same for the library and for the yardsticks."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

KINDS = ("trivial", "nap", "bytes", "loops")


def blob(size: int) -> bytes:
    """So many bytes, the same each time, that no compression would make anything of."""
    return random.Random(size).randbytes(size)


def items(kind: str, count: int, *, size: int = 0, seconds: float = 0.0, loops: int = 0) -> Iterator[dict[str, Any]]:
    """So many items of one kind, all different: `size` bytes of payload each, a nap of `seconds`, or so many loops."""
    if kind == "trivial":
        return ({"n": n} for n in range(count))
    if kind == "nap":
        return ({"n": n, "seconds": seconds} for n in range(count))
    if kind == "loops":
        return ({"n": n, "loops": loops} for n in range(count))
    data = blob(size)
    return ({"n": n, "data": data} for n in range(count))


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
    total = number
    for _ in range(loops):
        total += 1
    return {"n": number, "double": number + total - loops}


WORK: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "trivial": double,
    "nap": nap,
    "bytes": hand_on,
    "loops": count,
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
