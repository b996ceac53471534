"""What short turns cost threads that do nothing but compute: the same work with turns as a role sets them, and without.

While a role runs, the threads of its process take shorter turns (`zmqpipeline.runtime.tuning`): its loop must not wait
5 ms for the interpreter. This is the price where nobody gains by it.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict

import click

from examples.benchmarks.figures import Row, named, row, show, standard
from zmqpipeline.runtime.tuning import short_turns

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


def measure(rounds: int, steps: int) -> list[Row]:
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
def command(steps: int, rounds: int, as_json: bool) -> None:
    """Threads that compute, with the turns of a role and with the interpreter's own."""
    show("turns", measure(rounds, steps), as_json=as_json, sides=("5 ms", "as in a role"))
