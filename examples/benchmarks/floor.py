"""The floor: what plain pyzmq and msgpack do with trivial items, one a message, and in batches of 100 made by hand.

The yardstick of the other benchmarks are the batches whose items are packed one by one, with `msgpack.packb`: so must
everybody have them who is to execute, repeat and account for single items. Beside them stands what is left when even
that is saved, and a batch is packed as a whole.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import click

from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.sides import TRANSPORTS, run_raw

BATCH = 100
SIDES = ("one a message", "x 100", "packed whole")


def measure_round(side: str, items: int, workers: int, transport: str) -> float:
    """Items a second of one run; a tenth of the items where each is a message of its own."""
    if side == "one a message":
        return run_raw("trivial", max(2, items // 10), workers=workers, transport=transport).rate
    packing = "batch" if side == "packed whole" else "item"
    return run_raw("trivial", items, workers=workers, transport=transport, batch=BATCH, packing=packing).rate


def measure(items: int, rounds: int, workers: Sequence[int], transports: Sequence[str]) -> list[Row]:
    """All rounds, everything in turn."""
    rates: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for _, transport, number, side in itertools.product(range(rounds), transports, workers, SIDES):
        rates[transport, number, side].append(measure_round(side, items, number, transport))
    rows = []
    for transport, number in itertools.product(transports, workers):
        one, many, whole = (rates[transport, number, side] for side in SIDES)
        rows.append(row(f"{transport}, {named(number, 'worker')}", "items/s", one, many, beside=whole))
    return rows


@click.command("floor")
@click.option("--items", type=click.IntRange(200), default=500_000, show_default=True, help="So many in each run.")
@click.option("--workers", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--transport", type=click.Choice(TRANSPORTS), multiple=True, default=TRANSPORTS, show_default=True)
@standard
def command(items: int, workers: Sequence[int], transport: Sequence[str], rounds: int, as_json: bool) -> None:
    """Trivial items a second in plain pyzmq: the yardstick itself."""
    one, many, whole = SIDES
    show("floor", measure(items, rounds, workers, transport), as_json=as_json, sides=(one, many), beside=whole)
