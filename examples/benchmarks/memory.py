"""How the processes grow: the resident size of each role early in a run, and the largest from there to its end.

The runs: items of one task; a task that feeds one whose items take ten times as long; one item that gives all those of
the next task.
"""

from __future__ import annotations

import itertools
from collections import defaultdict

import click

from examples.benchmarks import bare_loops
from examples.benchmarks.figures import Row, row, show, standard
from examples.benchmarks.memory_app import CHILDREN, SLOW
from examples.benchmarks.roles import PROC, ROLES
from examples.benchmarks.sides import run_ours

MARK = 100_000
"""The first look is when so many items have been collected."""

MEGABYTE = 1e6

TIMES, ITEM_SECONDS = 10, 5e-6
"""An item of a slow task takes so many times as long as one of the task that feeds it, which takes so long in all."""

KINDS = {
    "": ("", "less than +20"),
    SLOW: (f", a task {TIMES} times slower is fed", "less than +30"),
    CHILDREN: (", one item gives all others", "less than +30"),
}
"""What is said of a role in runs of each kind, and what is promised."""


def measure(items: int, fed: int, mark: int, rounds: int, workers: int) -> list[Row]:
    """All rounds. Of several workers it is the largest."""
    first: dict[tuple[str, str], list[float]] = defaultdict(list)
    most: dict[tuple[str, str], list[float]] = defaultdict(list)
    slow = bare_loops.loops_of(TIMES * ITEM_SECONDS)
    for _, kind in itertools.product(range(rounds), KINDS):
        count = fed if kind else items
        # a single item that gives many others: from the first of these on
        more = {"items": count, "mark": 1 if kind == CHILDREN else mark, "loops": slow if kind == SLOW else 0}
        looks = run_ours("examples.benchmarks.memory_app:app", workers=workers, kind=kind, **more).more["looks"]
        for role in ROLES:
            seen = [look[role] / MEGABYTE for look in looks if role in look]
            if len(seen) < 2 or role not in looks[0]:
                raise SystemExit(f"The {role} was seen {len(seen)} times; it must be there at item {mark:,} and later.")
            first[kind, role].append(seen[0])
            most[kind, role].append(max(seen[1:]))
    return [
        row(f"{role}{said}", "MB resident", first[kind, role], most[kind, role], target)
        for kind, (said, target) in KINDS.items()
        for role in ROLES
    ]


@click.command("memory")
@click.option("--items", type=click.IntRange(2), default=5_000_000, show_default=True, help="So many of one task.")
@click.option("--fed", type=click.IntRange(2), default=1_000_000, show_default=True, help="So many that are fed.")
@click.option(
    "--mark", type=click.IntRange(1), default=MARK, show_default=True, help="Growth counts from this item on."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@standard
def command(items: int, fed: int, mark: int, workers: int, rounds: int, as_json: bool) -> None:
    """The resident size of each role over millions of items."""
    if mark >= min(items, fed):
        raise click.UsageError(
            f"--mark {mark} is no item before the last of --items {min(items, fed)}. Give a smaller one."
        )
    if not PROC.joinpath("self", "statm").exists():
        raise click.ClickException("Sizes are read from /proc, which this system does not have.")
    sides = (f"item {mark:,}", "largest after")
    rows = measure(items, fed, mark, rounds, workers)
    show("memory", rows, as_json=as_json, sides=sides, compared="difference")
