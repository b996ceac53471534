"""Trivial items with workers that Dask places beside workers of this machine, and beside Dask's own `client.map`."""

from __future__ import annotations

import importlib.util
from collections import defaultdict

import click

from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.peers import PEERS, measure_peer
from examples.benchmarks.sides import run_ours

APP = "examples.benchmarks.apps:trivial"
SHARE = 0.0005
"""So many of the items `client.map` gets, since it takes a thousand times longer."""


def measure(items: int, workers: int, rounds: int) -> list[Row]:
    """All rounds, everything in turn."""
    (peer,) = (one for one in PEERS if one.name == "Dask")
    rates: dict[str, list[float]] = defaultdict(list)
    few = max(20, int(items * SHARE))
    for _ in range(rounds):
        rates["here"].append(run_ours(APP, workers=workers, items=items).rate)
        rates["dask"].append(run_ours(APP, workers=workers, items=items, flags=("--engine", "dask")).rate)
        rates["map"].append(few / measure_peer(peer, "trivial", few, workers))
    by = named(workers, "worker")
    return [
        row(f"{by}, beside those of this machine", "items/s", rates["here"], rates["dask"], "at least 0.95"),
        row(f"{by}, beside client.map", "items/s", rates["map"], rates["dask"], "at least 500"),
    ]


@click.command("dask")
@click.option("--items", type=click.IntRange(10), default=3_000_000, show_default=True)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@standard
def command(items: int, workers: int, rounds: int, as_json: bool) -> None:
    """Workers placed by Dask, beside workers of this machine and beside client.map."""
    if importlib.util.find_spec("distributed") is None:
        raise SystemExit("This needs the package distributed: pip install 'zmqpipeline[dask]'.")
    rows = measure(items, workers, rounds)
    show("dask", rows, as_json=as_json, sides=("the other", "by Dask"))
