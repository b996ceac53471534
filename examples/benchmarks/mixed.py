"""One item in a hundred takes a hundred times longer: how close a run comes to the best possible schedule.

That one keeps every thread busy to the end. It is computed from how long the items of the same run really took: all of
them shared out evenly, or the longest alone, whichever is more. The long ones stand anywhere, and nobody knows which.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import click

from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.sides import TRANSPORTS, run_ours

LONG_SHARE = 100
"""One item in so many is a long one."""

TARGET = "at most 1.1"


def best(slept: float, longest: float, slots: int) -> float:
    """The seconds of the best possible schedule."""
    return max(slept / slots, longest)


def measure_round(
    items: int, seconds: float, workers: int, threads: int, transport: str, seed: int
) -> tuple[float, float]:
    """The best possible schedule and ours, in seconds."""
    long = max(1, items // LONG_SHARE)
    run = run_ours(
        "examples.benchmarks.nap_app", workers=workers, threads=threads, transport=transport,
        items=items, seconds=seconds, long=long, seed=seed,
    )  # fmt: skip
    return best(run.more["slept"], run.more["longest"], workers * threads), run.whole


def measure(
    items: int, seconds: float, rounds: int, workers: Sequence[int], threads: Sequence[int], transport: str
) -> list[Row]:
    """All rounds; in each the long items stand somewhere else."""
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    shapes = list(itertools.product(workers, threads))
    for seed, shape in itertools.product(range(rounds), shapes):
        slots = shape[0] * shape[1]
        found.setdefault(shape, []).append(measure_round(items * slots, seconds, *shape, transport, seed))
    return [
        row(
            f"{named(shape[0], 'worker')} x {named(shape[1], 'thread')}",
            "s",
            [raw for raw, _ in found[shape]],
            [ours for _, ours in found[shape]],
            TARGET,
        )
        for shape in shapes
    ]


@click.command("mixed")
@click.option("--items", type=click.IntRange(1), default=1000, show_default=True, help="So many for each thread.")
@click.option("--seconds", type=click.FloatRange(0.0001), default=0.002, show_default=True, help="A short one.")
@click.option("--workers", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--threads", type=click.IntRange(1), multiple=True, default=(1, 4), show_default=True)
@click.option("--transport", type=click.Choice(TRANSPORTS), default="ipc", show_default=True)
@standard
def command(
    items: int,
    seconds: float,
    workers: Sequence[int],
    threads: Sequence[int],
    transport: str,
    rounds: int,
    as_json: bool,
) -> None:
    """Long items among short ones, beside the best possible schedule."""
    rows = measure(items, seconds, rounds, workers, threads, transport)
    show("mixed", rows, as_json=as_json, sides=("best possible", "zmqpipeline"))
