"""Runs whole pipelines of the pure machines through trouble, by seed: ``python -m tests.simulation --runs 1000``.

One seed is one run, the same each time: ``python -m tests.simulation --seed 17 --verbose`` shows it step by step.
"""

from __future__ import annotations

import sys
import time
from collections import Counter

import click

from tests.support.harness import SimulationError, World
from tests.support.mutations import MUTATIONS, mutated
from tests.support.staged import StagedWorld
from tests.support.staged_mutations import STAGED_MUTATIONS

DEFECTS = {**MUTATIONS, **STAGED_MUTATIONS}


@click.command()
@click.option("--seed", type=int, help="Run this one seed.")
@click.option("--runs", default=1000, show_default=True, help="How many seeds to run.")
@click.option("--first", default=0, show_default=True, help="The first of them.")
@click.option("--verbose", is_flag=True, help="Print what happens.")
@click.option("--mutate", type=click.Choice(sorted(DEFECTS)), help="With this deliberate defect in the machines.")
@click.option("--stages", is_flag=True, help="Pipelines in which results of a task become items of others.")
def main(seed: int | None, runs: int, first: int, verbose: bool, mutate: str | None, stages: bool) -> None:
    """Simulate; exit status 1 if an invariant does not hold."""
    seeds = [seed] if seed is not None else range(first, first + runs)
    notes: Counter[str] = Counter()
    bad = 0
    began = time.perf_counter()
    with mutated(mutate, DEFECTS):
        for one in seeds:
            world = (StagedWorld if stages else World)(one, verbose=verbose)
            try:
                world.run()
            except (AssertionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                bad += 1
                kind = "" if isinstance(error, SimulationError) else f"{type(error).__name__}: "
                click.echo(f"seed {one}: {kind}{error}")
            notes.update(world.notes)
            notes["items collected"] += sum(world.collected.values())
            notes["items failed"] += sum(world.failed.values())
            notes["simulated seconds"] += int(world.now)
    click.echo(f"{len(seeds)} runs, {bad} bad, {time.perf_counter() - began:.1f} s: {dict(notes)}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
