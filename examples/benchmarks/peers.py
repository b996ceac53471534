"""Trivial items a second beside other ways to spread work over processes of one machine, each with its defaults.

With ``--naps`` the items are naps of 10 ms instead, and it is percent beyond the naps that count, as in `overhead`.

`multiprocessing.Pool` and `ProcessPoolExecutor` are always there; what else is installed is measured, too, and what is
not is named. Their workers are up and have executed something before the clock starts; it stops with the last result.
"""

from __future__ import annotations

import importlib.util
import itertools
import multiprocessing
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import click

from examples.benchmarks import peers_installed, work
from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.overhead import NAP, percent
from examples.benchmarks.sides import run_ours

Map = peers_installed.Map


@dataclass(frozen=True)
class Peer:
    """A way to measure: `start(workers)` gives its map for as long as it is entered."""

    name: str
    start: Callable[[int], AbstractContextManager[Map]]
    target: str = ""
    share: float = 1.0
    """How many of the items it gets, since some take a thousand times longer."""
    chunked: bool = False
    """Whether it gets several items at once, made by hand: no way to spread naps."""
    needs: tuple[str, ...] = ()
    """The modules, and the programs (with a slash: any one of them), without which it is skipped."""


@contextmanager
def pool(workers: int, chunk: int) -> Iterator[Map]:
    """multiprocessing.Pool, with spawned processes, as ours are."""
    with multiprocessing.get_context("spawn").Pool(workers) as made:
        yield lambda items, kind: made.imap_unordered(work.WORK[kind], items, chunk)


@contextmanager
def executor(workers: int, chunk: int) -> Iterator[Map]:
    """concurrent.futures.ProcessPoolExecutor, with spawned processes."""
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as made:
        yield lambda items, kind: made.map(work.WORK[kind], items, chunksize=chunk)


PEERS = (
    Peer("Pool, chunks of 1", lambda workers: pool(workers, 1), "at least 8", 0.1),
    Peer("Pool, chunks of 100", lambda workers: pool(workers, 100), "at least 0.6", chunked=True),
    Peer("ProcessPoolExecutor, chunks of 1", lambda workers: executor(workers, 1), "", 0.02),
    Peer("ProcessPoolExecutor, chunks of 100", lambda workers: executor(workers, 100), chunked=True),
    Peer("Dask", peers_installed.dask, share=0.005, needs=("distributed",)),
    Peer(
        "Celery on Redis", peers_installed.celery, share=0.005, needs=("celery", "redis", "redis-server/valkey-server")
    ),
    Peer("Ray", peers_installed.ray, share=0.005, needs=("ray",)),
)


def missing(peer: Peer) -> list[str]:
    """What is not installed of that which a peer needs."""
    return [one for one in peer.needs if not _is_there(one)]


def _is_there(name: str) -> bool:
    if "/" in name:
        return peers_installed.program(*name.split("/")) is not None
    return importlib.util.find_spec(name) is not None


def check(results: Iterable[dict[str, Any]], items: int) -> None:
    """Every item must have come back once, doubled.

    Raises:
        SystemExit: one did not.
    """
    count, total = 0, 0
    for one in results:
        count += 1
        total += one["double"]
    if (count, total) != (items, items * (items - 1)):
        raise SystemExit(f"{count} of {items} items came back, with the sum {total}.")


def measure_peer(peer: Peer, kind: str, count: int, workers: int) -> float:
    """Seconds from the first of so many items of this kind to the last result, when all workers are warm."""
    with peer.start(workers) as spread:
        warm(spread, workers)
        return seconds(spread, work.items(kind, count, seconds=NAP), kind, count)


def warm(spread: Map, workers: int) -> None:
    """Let every worker execute something."""
    check(spread(work.items("trivial", 20 * workers), "trivial"), 20 * workers)


def seconds(spread: Map, items: Iterable[dict[str, Any]], kind: str, count: int) -> float:
    """Seconds from the first of these items, `count` of one kind, to the last result."""
    began = time.perf_counter()
    check(spread(items, kind), count)
    return time.perf_counter() - began


def measure(peers: Sequence[Peer], items: int, rounds: int, workers: Sequence[int]) -> list[Row]:
    """All rounds, everything in turn, so that what else the machine does strikes all."""
    rates: dict[tuple[int, str], list[float]] = defaultdict(list)
    for _, number in itertools.product(range(rounds), workers):
        rates[number, ""].append(run_ours("examples.benchmarks.trivial_app", workers=number, items=items).rate)
        for peer in peers:
            count = max(2, int(items * peer.share))
            rates[number, peer.name].append(count / measure_peer(peer, "trivial", count, number))
    return [
        row(_named(peer, number), "items/s", rates[number, peer.name], rates[number, ""], peer.target)
        for number, peer in itertools.product(workers, peers)
    ]


def measure_naps(peers: Sequence[Peer], naps: int, rounds: int, workers: Sequence[int]) -> list[Row]:
    """The same with so many naps for each worker: percent beyond them."""
    found: dict[tuple[int, str], list[float]] = defaultdict(list)
    for _, number in itertools.product(range(rounds), workers):
        count = naps * number
        run = run_ours("examples.benchmarks.nap_app", workers=number, items=count, seconds=NAP)
        found[number, ""].append(percent(run.whole, count, number))
        for peer in peers:
            found[number, peer.name].append(percent(measure_peer(peer, "nap", count, number), count, number))
    return [
        row(_named(peer, number), "%", found[number, peer.name], found[number, ""])
        for number, peer in itertools.product(workers, peers)
    ]


def _named(peer: Peer, workers: int) -> str:
    return f"{peer.name}, {named(workers, 'worker')}"


@click.command("peers")
@click.option("--items", type=click.IntRange(200), default=200_000, show_default=True, help="So many in a run of ours.")
@click.option("--workers", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--only", multiple=True, metavar="NAME", help="Those whose names begin so; repeatable.")
@click.option("--naps", type=click.IntRange(2), help="So many naps of 10 ms for each worker, in the place of items.")
@standard
def command(
    items: int, workers: Sequence[int], only: Sequence[str], naps: int | None, rounds: int, as_json: bool
) -> None:
    """Trivial items a second, beside multiprocessing, concurrent.futures, and what else is installed."""
    chosen = [peer for peer in PEERS if not only or peer.name.lower().startswith(tuple(one.lower() for one in only))]
    if not chosen:
        known = ", ".join(peer.name for peer in PEERS)
        raise click.UsageError(f"No peer's name begins with {' or '.join(only)}. Known: {known}.")
    for peer in chosen:
        if lacks := missing(peer):
            click.echo(f"Skipped: {peer.name}. Not installed: {', '.join(lacks)}.", err=True)
    present = [peer for peer in chosen if not missing(peer)]
    sides = ("the peer", "zmqpipeline")
    if present and naps is None:
        show("peers", measure(present, items, rounds, workers), as_json=as_json, sides=sides)
    elif present and naps is not None:
        rows = measure_naps([one for one in present if not one.chunked], naps, rounds, workers)
        show("peers", rows, as_json=as_json, sides=sides, compared="difference")
