"""Items of very different lengths that compute: how close a run comes to the best possible schedule.

Two mixes: lengths drawn log-normally between 10 us and 100 ms, and items of 20 us of which 1 in 1,000 takes 50 ms; in
each round they are others. The best possible schedule is computed from what a bare loop takes for the same items, while
as many loops run as there are workers: all of them shared out evenly over the workers, or the longest alone, whichever
is more. The work holds the interpreter, so more threads of a worker cannot be faster. Beside it stands
`multiprocessing.Pool` with chunks of 1.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence

import click

from examples.benchmarks import peers, work
from examples.benchmarks.bare_loops import loops_of, run_bare
from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.mixed import TARGET, best
from examples.benchmarks.sides import run_ours

MIXES = {work.LOG_NORMAL: ("10 us to 100 ms, log-normal", 600), work.RARE: ("20 us, 1 in 1,000 of 50 ms", 40_000)}
"""By kind: what it is called, and how many items of it take two workers a second or two."""


def schedule(kind: str, count: int, workers: int, loops: int, seed: int) -> float:
    """The seconds of the best possible schedule of these items, for so many workers with one core each."""
    alone = count / (run_bare(kind, count, workers, loops=loops, seed=seed).rate / workers)
    lengths = list(work.lengths(kind, count, seed))
    return best(alone, alone * max(lengths) / sum(lengths), workers)


def pool(kind: str, count: int, workers: int, loops: int, seed: int) -> float:
    """The seconds of a Pool with chunks of 1 for the same items."""
    with peers.pool(workers, 1) as spread:
        peers.warm(spread, workers)
        return peers.seconds(spread, work.items(kind, count, loops=loops, seed=seed), kind, count)


def measure(share: float, rounds: int, workers: int, threads: Sequence[int]) -> list[Row]:
    """All rounds, everything in turn, with this share of the items."""
    bests: dict[str, list[float]] = defaultdict(list)
    pools: dict[str, list[float]] = defaultdict(list)
    ours: dict[tuple[str, int], list[float]] = defaultdict(list)
    loops = loops_of(0.001)
    for seed, (kind, (_, items)) in itertools.product(range(rounds), MIXES.items()):
        count = max(2 * workers, int(share * items))
        bests[kind].append(schedule(kind, count, workers, loops, seed))
        pools[kind].append(pool(kind, count, workers, loops, seed))
        for number in threads:
            run = run_ours(
                "examples.benchmarks.loops_app",
                workers=workers, threads=number, kind=kind, items=count, loops=loops, seed=seed,
            )  # fmt: skip
            ours[kind, number].append(run.whole)
    return [
        row(
            f"{name}, {named(workers, 'worker')} x {named(number, 'thread')}",
            "s",
            bests[kind],
            ours[kind, number],
            TARGET,
            pools[kind],
        )
        for (kind, (name, _)), number in itertools.product(MIXES.items(), threads)
    ]


@click.command("uneven")
@click.option(
    "--share", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="Of the items: 1 is all."
)
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True)
@click.option("--threads", type=click.IntRange(1), multiple=True, default=(1, 4), show_default=True)
@standard
def command(share: float, workers: int, threads: Sequence[int], rounds: int, as_json: bool) -> None:
    """Items of very different lengths that compute, beside the best possible schedule."""
    rows = measure(share, rounds, workers, threads)
    show("uneven", rows, as_json=as_json, sides=("best possible", "zmqpipeline"), beside="Pool")
