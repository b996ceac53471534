"""Megabytes a second of items that carry bytes, to a worker and from it to the collector, beside plain pyzmq.

The yardstick puts small items into batches by hand, of up to 100 items or 64 KiB, and copies no large ones.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import click

from examples.benchmarks.figures import Row, row, show, standard
from examples.benchmarks.raw_pipeline import BIG
from examples.benchmarks.sides import TRANSPORTS, run_ours, run_raw

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LEAST, MOST = 8, 200_000
"""So many items a run has at least, and at most."""

SIDES = ("raw", "ours")
TARGETS = {1_000_000: "at least 0.6"}
"""By size."""


def items_of(size: int, megabytes: int) -> int:
    """How many items of this size (bytes) make so many megabytes, within reason."""
    return max(LEAST, min(MOST, megabytes * 1_000_000 // size))


def batch_of(size: int) -> int:
    """How many of them the yardstick puts into a message."""
    return max(1, min(100, BIG // size))


def measure_round(side: str, size: int, count: int, workers: int, transport: str) -> float:
    """Megabytes a second of one run, from the start to the last item; each way counts, and each result is compared."""
    if side == "ours":
        run = run_ours("examples.benchmarks.bytes_app", workers=workers, transport=transport, items=count, size=size)
    else:
        run = run_raw("bytes", count, workers=workers, transport=transport, size=size, batch=batch_of(size))
    return size * count / run.whole / 1e6


def measure(sizes: Sequence[int], megabytes: int, rounds: int, workers: int, transport: str) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes both."""
    rates: dict[tuple[int, str], list[float]] = defaultdict(list)
    for _, size, side in itertools.product(range(rounds), sizes, SIDES):
        rates[size, side].append(measure_round(side, size, items_of(size, megabytes), workers, transport))
    return [row(_named(size), "MB/s", rates[size, "raw"], rates[size, "ours"], TARGETS.get(size, "")) for size in sizes]


def _named(size: int) -> str:
    for unit, name in ((1_000_000, "MB"), (1_000, "kB")):
        if size >= unit:
            return f"{size / unit:g} {name} an item"
    return f"{size} B an item"


@click.command("payload")
@click.option("--size", type=click.IntRange(1), multiple=True, default=SIZES, show_default=True, help="Bytes an item.")
@click.option(
    "--megabytes", type=click.IntRange(1), default=500, show_default=True, help="So many a run, or 200,000 items."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@click.option("--transport", type=click.Choice(TRANSPORTS), default="ipc", show_default=True)
@standard
def command(size: Sequence[int], megabytes: int, workers: int, transport: str, rounds: int, as_json: bool) -> None:
    """Megabytes of payload a second, from 100 bytes to 10 MB an item."""
    show("payload", measure(size, megabytes, rounds, workers, transport), as_json=as_json)
