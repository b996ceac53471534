"""Trivial items a second with everything on and nothing set by hand, beside plain pyzmq in batches of 100 by hand.

See `floor` for the two yardsticks: the one of the ratio packs its items one by one, the one beside it whole batches.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import click

from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.floor import measure_round
from examples.benchmarks.sides import TRANSPORTS, run_ours

SIDES = ("x 100", "packed whole", "ours")


def measure(items: int, rounds: int, workers: Sequence[int], transports: Sequence[str]) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes all."""
    rates: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for _, transport, number, side in itertools.product(range(rounds), transports, workers, SIDES):
        if side == "ours":
            rate = run_ours("examples.benchmarks.trivial_app", workers=number, transport=transport, items=items).rate
        else:
            rate = measure_round(side, items, number, transport)
        rates[transport, number, side].append(rate)
    rows = []
    for transport, number in itertools.product(transports, workers):
        raw, whole, ours = (rates[transport, number, side] for side in SIDES)
        target = "at least 0.6, stretch 0.8" if number == 1 else "at least 0.6"
        rows.append(row(f"{transport}, {named(number, 'worker')}", "items/s", raw, ours, target, whole))
    return rows


@click.command("throughput")
@click.option("--items", type=click.IntRange(200), default=500_000, show_default=True, help="So many in each run.")
@click.option("--workers", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--transport", type=click.Choice(TRANSPORTS), multiple=True, default=("ipc",), show_default=True)
@standard
def command(items: int, workers: Sequence[int], transport: Sequence[str], rounds: int, as_json: bool) -> None:
    """Trivial items a second, beside batches of 100 in plain pyzmq."""
    rows = measure(items, rounds, workers, transport)
    show("throughput", rows, as_json=as_json, sides=("pyzmq x 100", "zmqpipeline"), beside="packed whole")
