"""Megabytes a second of arrays of numpy, to a worker and from it to the collector, beside plain pyzmq.

The yardstick sends as many bytes, and copies none of them.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import click

from examples.benchmarks.figures import Row, row, show, standard
from examples.benchmarks.rates import PAYLOAD_SIDES, items_of, payload_round
from examples.benchmarks.sides import run_ours

SIZES = (8_000, 800_000, 8_000_000)
TARGETS = {8_000_000: "at least 0.6"}


def measure_round(side: str, size: int, count: int) -> float:
    """Megabytes a second of one run, from the start to the last item; each way counts, and each result is compared."""
    if side == "raw":
        return payload_round("raw", size, count, 1, "ipc")
    return size * count / run_ours("examples.benchmarks.arrays_app:app", items=count, size=size).whole / 1e6


def measure(sizes: Sequence[int], megabytes: int, rounds: int) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes both."""
    rates: dict[tuple[int, str], list[float]] = defaultdict(list)
    for _, size, side in itertools.product(range(rounds), sizes, PAYLOAD_SIDES):
        rates[size, side].append(measure_round(side, size, items_of(size, megabytes)))
    return [
        row(f"float64, {size / 1000:g} kB", "MB/s", rates[size, "raw"], rates[size, "ours"], TARGETS.get(size, ""))
        for size in sizes
    ]


@click.command("arrays")
@click.option("--size", type=click.IntRange(8), multiple=True, default=SIZES, show_default=True, help="Bytes an item.")
@click.option("--megabytes", type=click.IntRange(1), default=800, show_default=True, help="So many a run.")
@standard
def command(size: Sequence[int], megabytes: int, rounds: int, as_json: bool) -> None:
    """Megabytes a second of float64 arrays, there and back."""
    show("arrays", measure(size, megabytes, rounds), as_json=as_json)
