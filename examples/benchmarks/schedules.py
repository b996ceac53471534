"""How close a run comes to the best possible schedule: naps of one length, naps of two lengths, items that compute.

`overhead`: seconds beyond naps of 10 ms, in percent of them. Beside it, in the same run: a plain loop that takes the
same naps (time.sleep is always a little late), and PUSH and PULL in plain pyzmq with as many processes and threads. The
clock runs from the moment when all workers and threads are ready to the moment when the last result is collected.

`mixed`: one item in a hundred takes a hundred times longer. The best possible schedule keeps every thread busy to the
end. It is computed from how long the items of the same run really took: all of them shared out evenly, or the longest
alone, whichever is more. The long ones stand anywhere, and nobody knows which.

`uneven`: lengths drawn log-normally between 10 us and 100 ms, and items of 20 us of which 1 in 1,000 takes 50 ms; in
each round they are others. The best possible schedule is computed from what a bare loop takes for the same items, while
as many loops run as there are workers. The work holds the interpreter, so more threads of a worker cannot be faster.
Beside it stands `multiprocessing.Pool` with chunks of 1.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Sequence

import click

from examples.benchmarks import peers, work
from examples.benchmarks.bare_loops import loops_of, run_bare
from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.sides import TRANSPORTS, run_ours, run_raw
from examples.benchmarks.work import NAP, percent

# naps of one length --------------------------------------------------------------------------------------------------

MORE_FROM = 20
"""With so many slots there are five times as many items, so that a run takes long enough to measure."""

Shape = tuple[str, int, int]
"""Transport, workers, and threads of each."""


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


def measure_overhead(items: int, rounds: int, shapes: Sequence[Shape]) -> list[Row]:
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
                "examples.benchmarks.apps:nap",
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
def overhead(
    items: int,
    workers: Sequence[int],
    threads: Sequence[int],
    transport: Sequence[str],
    rounds: int,
    as_json: bool,
) -> None:
    """What naps of 10 ms cost beyond the naps, in percent, beside a plain loop and plain PUSH and PULL."""
    shapes = list(itertools.product(transport, workers, threads))
    rows = measure_overhead(items, rounds, shapes)
    show("overhead", rows, as_json=as_json, compared="difference", beside="plain loop")


# naps, one in a hundred of them long ---------------------------------------------------------------------------------

LONG_SHARE = 100
"""One item in so many is a long one."""

TARGET = "at most 1.1"


def best(slept: float, longest: float, slots: int) -> float:
    """The seconds of the best possible schedule."""
    return max(slept / slots, longest)


def mixed_round(
    items: int, seconds: float, workers: int, threads: int, transport: str, seed: int
) -> tuple[float, float]:
    """The best possible schedule and ours, in seconds."""
    long = max(1, items // LONG_SHARE)
    run = run_ours(
        "examples.benchmarks.apps:nap", workers=workers, threads=threads, transport=transport,
        items=items, seconds=seconds, long=long, seed=seed,
    )  # fmt: skip
    return best(run.more["slept"], run.more["longest"], workers * threads), run.whole


def measure_mixed(
    items: int, seconds: float, rounds: int, workers: Sequence[int], threads: Sequence[int], transport: str
) -> list[Row]:
    """All rounds; in each the long items stand somewhere else."""
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    shapes = list(itertools.product(workers, threads))
    for seed, shape in itertools.product(range(rounds), shapes):
        slots = shape[0] * shape[1]
        found.setdefault(shape, []).append(mixed_round(items * slots, seconds, *shape, transport, seed))
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
def mixed(
    items: int,
    seconds: float,
    workers: Sequence[int],
    threads: Sequence[int],
    transport: str,
    rounds: int,
    as_json: bool,
) -> None:
    """Long items among short ones, beside the best possible schedule."""
    rows = measure_mixed(items, seconds, rounds, workers, threads, transport)
    show("mixed", rows, as_json=as_json, sides=("best possible", "zmqpipeline"))


# items that compute --------------------------------------------------------------------------------------------------

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


def measure_uneven(share: float, rounds: int, workers: int, threads: Sequence[int]) -> list[Row]:
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
                "examples.benchmarks.loops_app:app",
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
def uneven(share: float, workers: int, threads: Sequence[int], rounds: int, as_json: bool) -> None:
    """Items of very different lengths that compute, beside the best possible schedule."""
    rows = measure_uneven(share, rounds, workers, threads)
    show("uneven", rows, as_json=as_json, sides=("best possible", "zmqpipeline"), beside="Pool")
