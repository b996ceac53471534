"""Trivial items a second beside other ways to spread work over processes of one machine, each with its defaults.

With ``--naps`` the items are naps of 10 ms instead, and it is percent beyond the naps that count, as in `overhead`.

`multiprocessing.Pool` and `ProcessPoolExecutor` are always there; what else is installed is measured, too, and what is
not is named. Their workers are up and have executed something before the clock starts; it stops with the last result.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import click

from examples.benchmarks import work
from examples.benchmarks.figures import Row, named, processes, row, show, standard
from examples.benchmarks.sides import run_ours
from examples.benchmarks.work import NAP, percent

# those that may be installed -----------------------------------------------------------------------------------------

Map = Callable[[Iterable[dict[str, Any]], str], Iterable[dict[str, Any]]]
"""Gives out items of one kind to the workers of a peer, and yields the results as they come, or in order."""

PATIENCE = 60
"""Seconds that a server may take to start."""


def program(*names: str) -> str | None:
    """The path of the first of these programs that is installed."""
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def dask(workers: int) -> Iterator[Map]:
    """A local cluster of processes with one thread each."""
    distributed: Any = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=40
    )
    with cluster, distributed.Client(cluster) as client:
        yield lambda items, kind: (
            result
            for _, result in distributed.as_completed(
                client.map(work.WORK[kind], list(items), pure=False), with_results=True
            )
        )


@contextmanager
def ray(workers: int) -> Iterator[Map]:
    """Tasks on as many processors as there are to be workers."""
    package: Any = importlib.import_module("ray")
    package.init(num_cpus=workers, include_dashboard=False, logging_level="error")
    try:
        remote = {kind: package.remote(function) for kind, function in work.WORK.items()}
        yield lambda items, kind: package.get([remote[kind].remote(item) for item in items])
    finally:
        package.shutdown()


@contextmanager
def celery(workers: int) -> Iterator[Map]:
    """A worker with so many processes, and a Redis of its own."""
    with redis() as socket:
        app = celery_app(socket, work.WORK)
        celery_worker = ["-m", "examples.benchmarks.peers", socket, str(workers)]
        with processes(celery_worker, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            app.tasks["trivial"].delay({"n": 0}).get(timeout=PATIENCE)
            yield lambda items, kind: [one.get() for one in [app.tasks[kind].delay(item) for item in items]]


@contextmanager
def redis() -> Iterator[str]:
    """A server on a socket in a folder that is removed; its path."""
    server = program("redis-server", "valkey-server")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        socket = f"{folder}/redis"
        command = [str(server), "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as started:
            try:
                yield socket
            finally:
                started.terminate()


def celery_app(socket: str, functions: Mapping[str, Callable[..., Any]], **options: Any) -> Any:
    """The app of both sides, with Redis at this socket as broker and store of results; `options` are for each task."""
    package: Any = importlib.import_module("celery")
    made = package.Celery("peers", broker=f"redis+socket://{socket}", backend=f"redis+socket://{socket}")
    made.conf.broker_connection_retry_on_startup = True
    for name, function in functions.items():
        made.task(name=name, **options)(function)
    made.finalize()
    return made


# all -----------------------------------------------------------------------------------------------------------------


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
    Peer("Dask", dask, share=0.005, needs=("distributed",)),
    Peer("Celery on Redis", celery, share=0.005, needs=("celery", "redis", "redis-server/valkey-server")),
    Peer("Ray", ray, share=0.005, needs=("ray",)),
)


def missing(needs: Iterable[str]) -> list[str]:
    """What is not installed of that which a peer needs."""
    return [one for one in needs if not _is_there(one)]


def _is_there(name: str) -> bool:
    if "/" in name:
        return program(*name.split("/")) is not None
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
        rates[number, ""].append(run_ours("examples.benchmarks.apps:trivial", workers=number, items=items).rate)
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
        run = run_ours("examples.benchmarks.apps:nap", workers=number, items=count, seconds=NAP)
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
def peers(
    items: int, workers: Sequence[int], only: Sequence[str], naps: int | None, rounds: int, as_json: bool
) -> None:
    """Trivial items a second, beside multiprocessing, concurrent.futures, and what else is installed."""
    chosen = [peer for peer in PEERS if not only or peer.name.lower().startswith(tuple(one.lower() for one in only))]
    if not chosen:
        known = ", ".join(peer.name for peer in PEERS)
        raise click.UsageError(f"No peer's name begins with {' or '.join(only)}. Known: {known}.")
    for peer in chosen:
        if lacks := missing(peer.needs):
            click.echo(f"Skipped: {peer.name}. Not installed: {', '.join(lacks)}.", err=True)
    present = [peer for peer in chosen if not missing(peer.needs)]
    sides = ("the peer", "zmqpipeline")
    if present and naps is None:
        show("peers", measure(present, items, rounds, workers), as_json=as_json, sides=sides)
    elif present and naps is not None:
        rows = measure_naps([one for one in present if not one.chunked], naps, rounds, workers)
        show("peers", rows, as_json=as_json, sides=sides, compared="difference")


if __name__ == "__main__":
    celery_app(sys.argv[1], work.WORK).worker_main(["worker", "--concurrency", sys.argv[2], "--loglevel", "ERROR"])
