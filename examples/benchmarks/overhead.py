"""What it costs to hand out naps of 10 ms: seconds beyond the naps themselves, in percent of them.

Beside it, in the same run: a plain loop that takes the same naps (time.sleep is always a little late), and PUSH and
PULL in plain pyzmq with as many processes and threads. The clock runs from the moment when all workers and threads are
ready to the moment when the last result is collected.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Sequence

import click

from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.sides import TRANSPORTS, run_ours, run_raw

NAP = 0.01
MORE_FROM = 20
"""With so many slots there are five times as many items, so that a run takes long enough to measure."""

Shape = tuple[str, int, int]
"""Transport, workers, and threads of each."""


def percent(seconds: float, items: int, slots: int) -> float:
    """By how much this is more than the naps take if every slot is always at one."""
    return 100 * (seconds * slots / (items * NAP) - 1)


def plain_loop(items: int) -> float:
    """Seconds for the naps alone."""
    began = time.perf_counter()
    for _ in range(items):
        time.sleep(NAP)
    return time.perf_counter() - began


def items_of(items: int, slots: int) -> int:
    """How many naps so many slots take: as many each."""
    count = 5 * items if slots >= MORE_FROM else items
    return max(1, count // slots) * slots


def measure(items: int, rounds: int, shapes: Sequence[Shape]) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes all."""
    loop: list[float] = []
    raw: dict[Shape, list[float]] = defaultdict(list)
    ours: dict[Shape, list[float]] = defaultdict(list)
    for _ in range(rounds):
        loop.append(percent(plain_loop(items), items, 1))
        for shape in shapes:
            transport, workers, threads = shape
            slots = workers * threads
            count = items_of(items, slots)
            run = run_raw("nap", count, workers=workers, threads=threads, transport=transport, seconds=NAP)
            raw[shape].append(percent(run.whole, count, slots))
            run = run_ours(
                "examples.benchmarks.nap_app",
                workers=workers,
                threads=threads,
                transport=transport,
                items=count,
                seconds=NAP,
            )
            ours[shape].append(percent(run.whole, count, slots))
    return [row(_named(shape), "%", raw[shape], ours[shape], _target(shape), loop) for shape in shapes]


def _named(shape: Shape) -> str:
    transport, workers, threads = shape
    return f"{transport}, {named(workers, 'worker')} x {named(threads, 'thread')}"


def _target(shape: Shape) -> str:
    return "at most +0.5" if shape[2] == 1 else "at most +1"


@click.command("overhead")
@click.option(
    "--items", type=click.IntRange(20), default=1000, show_default=True, help="Naps; 5 times as many from 20 slots on."
)
@click.option("--workers", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--threads", type=click.IntRange(1), multiple=True, default=(1, 10), show_default=True)
@click.option("--transport", type=click.Choice(TRANSPORTS), multiple=True, default=("ipc",), show_default=True)
@standard
def command(
    items: int,
    workers: Sequence[int],
    threads: Sequence[int],
    transport: Sequence[str],
    rounds: int,
    as_json: bool,
) -> None:
    """What naps of 10 ms cost beyond the naps, in percent, beside a plain loop and plain PUSH and PULL."""
    shapes = list(itertools.product(transport, workers, threads))
    rows = measure(items, rounds, shapes)
    show("overhead", rows, as_json=as_json, compared="difference", beside="plain loop")
