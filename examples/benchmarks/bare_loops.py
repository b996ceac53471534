"""The limit: plain loops over the same items in as many processes, each with its share from the start.

They begin together, and nothing goes between them. Start one with ``python -m examples.benchmarks.bare_loops PLAN``.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.benchmarks import meeting, work


@dataclass(frozen=True)
class Bare:
    """What the loops did: items a second, all together, and seconds of the processor for an item."""

    rate: float
    cpu: float


def loop(kind: str, items: Iterable[dict[str, Any]]) -> work.Tally:
    """Execute all of them, here and now, one after the other."""
    tally, execute = work.Tally(), work.WORK[kind]
    for item in items:
        tally.add(execute(item)["double"])
    return tally


SOME = 1000
"""With so many loops an item is measured, beside one with none."""


def loops_of(seconds: float) -> int:
    """How many loops an item has that takes a plain loop so long, with all that belongs to it, on this machine now."""
    without = _seconds(2000, 0)
    each = (_seconds(40, SOME) - without) / SOME
    return max(0, round((seconds - without) / each))


def _seconds(count: int, loops: int, tries: int = 30) -> float:
    """Seconds an item: the median of several tries, each of so many items."""
    found = []
    for _ in range(tries):
        items = work.items("loops", count, loops=loops)
        began = time.perf_counter()
        loop("loops", items)
        found.append((time.perf_counter() - began) / count)
    return statistics.median(found)


def run_bare(kind: str, count: int, processes: int, **sizes: Any) -> Bare:
    """Run so many loops beside each other, `count` items in each; `sizes` are what else `work.items` is told.

    Raises:
        SystemExit: one of them failed, or made a mistake.
    """
    from examples.benchmarks import figures, sides  # here, so that a loop need not import what it does not use

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        start = stack.enter_context(meeting.Meeting(folder / "start"))
        said = stack.enter_context((folder / "said").open("wb"))
        outs = [folder / str(number) for number in range(processes)]
        plans = [
            {"kind": kind, "items": count, "sizes": sizes, "meeting": str(start.path), "out": str(out)} for out in outs
        ]
        commands = [["-m", "examples.benchmarks.bare_loops", json.dumps(plan)] for plan in plans]
        started = stack.enter_context(figures.processes(*commands, stderr=said))
        sides.hold(start, processes, started, folder / "said")
        sides.wait_for(started, folder / "said")
        found = [json.loads(out.read_text()) for out in outs]
    rate = sum(count / (one["last"] - one["first"]) for one in found)
    return Bare(rate, sum(one["cpu"] for one in found) / (count * processes))


def main(plan: dict[str, Any]) -> None:
    """One of them."""
    items = work.items(plan["kind"], plan["items"], **plan["sizes"])
    loop(plan["kind"], itertools.islice(work.items(plan["kind"], 1, **plan["sizes"]), 1))
    meeting.attend(plan["meeting"])
    began, cpu = time.monotonic(), time.process_time()
    tally = loop(plan["kind"], items)
    last, cpu = time.monotonic(), time.process_time() - cpu
    tally.write(plan["items"], plan["out"], first=began, last=last, cpu=cpu)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
