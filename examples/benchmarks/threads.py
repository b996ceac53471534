"""What more threads in one worker do, for work that holds the interpreter and for work that lets go of it.

Threads share one interpreter. Work in pure Python holds it, so more threads cannot be faster; they should not be
slower, either. For hashing and compressing Python lets go of it, so two threads should do as much as two cores can.
Everything is compared with one thread of the same run.

The benchmark `turns` is about what short turns cost threads that do nothing but compute: the same work with turns as a
role sets them, and without.

While a role runs, the threads of its process take shorter turns (`zmqpipeline.runtime.tuning`): its loop must not wait
5 ms for the interpreter. This is the price where nobody gains by it.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import click

from examples.benchmarks import metg, work
from examples.benchmarks.bare_loops import loop, loops_of
from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.granularity import parse_lengths
from examples.benchmarks.sides import run_ours
from zmqpipeline.runtime.tuning import short_turns

# more threads in a worker --------------------------------------------------------------------------------------------

HOLDS, LETS_GO = "at least 0.95", "at least 1.8"

LETTING_GO = {"hash": "SHA-256 of 256 KiB", "compress": "zlib of 256 KiB"}
"""Kinds of work that let go of the interpreter, and what they are called."""


@dataclass(frozen=True)
class Job:
    """One kind of work: what it is called, how many loops it has, and how many items one thread takes a second."""

    kind: str
    name: str
    loops: int
    rate: float
    aim: str


def jobs(lengths: Sequence[float]) -> list[Job]:
    """Loops of these lengths, in microseconds, and what lets go of the interpreter."""
    computing = [
        Job("loops", f"loops of {metg.length_named(length)}", loops_of(length / 1e6), 1e6 / length, HOLDS)
        for length in lengths
    ]
    return [*computing, *(Job(kind, name, 0, 1 / _seconds(kind), LETS_GO) for kind, name in LETTING_GO.items())]


def _seconds(kind: str) -> float:
    """What an item of this kind takes; the first one, which makes the lump, does not count."""
    loop(kind, work.items(kind, 1))
    found = []
    for _ in range(10):
        began = time.perf_counter()
        loop(kind, work.items(kind, 1))
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def measure_threads(chosen: Sequence[Job], threads: Sequence[int], seconds: float, rounds: int) -> list[Row]:
    """All rounds, everything in turn; one thread is always among them."""
    rates: dict[tuple[str, int], list[float]] = defaultdict(list)
    for _, job, number in itertools.product(range(rounds), chosen, dict.fromkeys((1, *threads))):
        count = max(2 * number, int(min(job.rate, 1e6) * seconds))
        run = run_ours(
            "examples.benchmarks.loops_app:app", threads=number, kind=job.kind, items=count, loops=job.loops
        )  # fmt: skip
        rates[job.name, number].append(count / run.whole)
    return [
        row(f"{named(number, 'thread')}, {job.name}", "items/s", rates[job.name, 1], rates[job.name, number], job.aim)
        for job, number in itertools.product(chosen, threads)
    ]


@click.command("threads")
@click.option("--lengths", default="20us,100us,1ms", show_default=True, callback=parse_lengths, help="Of the loops.")
@click.option("--threads", type=click.IntRange(2), multiple=True, default=(2, 10), show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="About so long a run."
)
@standard
def threads(lengths: list[float], threads: Sequence[int], seconds: float, rounds: int, as_json: bool) -> None:
    """Several threads in one worker beside one, for work that holds the interpreter and work that lets go of it."""
    rows = measure_threads(jobs(lengths), threads, seconds, rounds)
    show("threads", rows, as_json=as_json, sides=("one thread", "so many"))


# short turns ---------------------------------------------------------------------------------------------------------

THREADS = (1, 2, 4, 10)


def _compute(steps: int, sums: list[int]) -> None:
    total = 0
    for n in range(steps):
        total += n * n
    sums.append(total)


def seconds(threads: int, steps: int) -> float:
    """How long so many threads take for so many steps each; all must come to the same sum."""
    sums: list[int] = []
    started = [threading.Thread(target=_compute, args=(steps, sums)) for _ in range(threads)]
    began = time.perf_counter()
    for one in started:
        one.start()
    for one in started:
        one.join()
    ended = time.perf_counter()
    if sums != [(steps - 1) * steps * (2 * steps - 1) // 6] * threads:
        raise SystemExit("The threads came to different sums.")
    return ended - began


def measure_turns(rounds: int, steps: int) -> list[Row]:
    """Milliseconds of all threads together."""
    found: dict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for _, threads in itertools.product(range(rounds), THREADS):
        plain, short = found[threads]
        plain.append(1e3 * seconds(threads, steps))
        with short_turns(threads):
            short.append(1e3 * seconds(threads, steps))
    return [row(named(threads, "thread"), "ms", *found[threads]) for threads in THREADS]


@click.command("turns")
@click.option("--steps", type=click.IntRange(1), default=1_000_000, show_default=True, help="Of each thread.")
@standard
def turns(steps: int, rounds: int, as_json: bool) -> None:
    """Threads that compute, with the turns of a role and with the interpreter's own."""
    show("turns", measure_turns(rounds, steps), as_json=as_json, sides=("5 ms", "as in a role"))
