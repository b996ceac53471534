"""How the processes grow: the resident size of each role early in a run, and the largest from there to its end."""

from __future__ import annotations

from collections import defaultdict

import click

from examples.benchmarks.figures import Row, row, show, standard
from examples.benchmarks.roles import PROC, ROLES
from examples.benchmarks.sides import run_ours

MARK = 100_000
"""The first look is when so many items have been collected."""

MEGABYTE = 1e6


def measure(items: int, mark: int, rounds: int, workers: int) -> list[Row]:
    """All rounds. Of several workers it is the largest."""
    first: dict[str, list[float]] = defaultdict(list)
    most: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        looks = run_ours("examples.benchmarks.memory_app", workers=workers, items=items, mark=mark).more["looks"]
        for role in ROLES:
            seen = [look[role] / MEGABYTE for look in looks if role in look]
            if len(seen) < 2 or role not in looks[0]:
                raise SystemExit(f"The {role} was seen {len(seen)} times; it must be there at item {mark:,} and later.")
            first[role].append(seen[0])
            most[role].append(max(seen[1:]))
    return [row(role, "MB resident", first[role], most[role], "less than +20") for role in ROLES]


@click.command("memory")
@click.option("--items", type=click.IntRange(2), default=5_000_000, show_default=True, help="So many in each run.")
@click.option(
    "--mark", type=click.IntRange(1), default=MARK, show_default=True, help="Growth counts from this item on."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@standard
def command(items: int, mark: int, workers: int, rounds: int, as_json: bool) -> None:
    """The resident size of each role over millions of items."""
    if mark >= items:
        raise click.UsageError(f"--mark {mark} is no item before the last of --items {items}. Give a smaller one.")
    if not PROC.joinpath("self", "statm").exists():
        raise click.ClickException("Sizes are read from /proc, which this system does not have.")
    sides = (f"item {mark:,}", "largest after")
    show("memory", measure(items, mark, rounds, workers), as_json=as_json, sides=sides, compared="difference")
