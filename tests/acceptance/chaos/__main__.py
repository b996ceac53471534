"""Runs of chaos by seed: ``python -m tests.acceptance.chaos --runs 100``.

The seeds go through the faults in turn; ``--fault`` takes one of them only, ``--stages`` those of runs with stages. A
seed draws the items, the transport, what is done and when; what follows is up to the machine, so that two runs of a
seed are alike, but not the same. Exit status 1 if anything was lost, collected twice, hung, or not as promised.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tests.acceptance.chaos.faults import FAULTS
from tests.acceptance.chaos.report import BEGIN, END, STAGES, described, table, write_into
from tests.acceptance.chaos.runner import Result, run


@click.command()
@click.option("--runs", default=len(FAULTS), show_default=True, help="How many seeds to run.")
@click.option("--seed", default=0, show_default=True, help="The first of them.")
@click.option("--fault", type=click.Choice(list(FAULTS)), help="With this fault only.")
@click.option("--stages", is_flag=True, help="With those faults only in whose runs results become items.")
@click.option("--report", type=click.Path(path_type=Path, exists=True), help="Put the table into this document.")
@click.option("--keep", is_flag=True, help="Leave the folders of bad runs.")
def main(runs: int, seed: int, fault: str | None, stages: bool, report: Path | None, keep: bool) -> None:
    """Run, say what each run came to, and print the table."""
    names = [fault] if fault else [name for name, one in FAULTS.items() if one.staged or not stages]
    results = []
    for one in range(seed, seed + runs):
        results.append(run(one, names[one % len(names)], keep=keep))
        _tell(results[-1])
    click.echo()
    for line in table(results):
        click.echo(line)
    if report is not None:
        chosen = f" --fault {fault}" if fault else " --stages" if stages else ""
        lines = described(results, f"python -m tests.acceptance.chaos --runs {runs} --seed {seed}{chosen}")
        write_into(report, lines, STAGES if stages else (BEGIN, END))
    sys.exit(1 if any(one.problems for one in results) else 0)


def _tell(result: Result) -> None:
    click.echo(result.line)
    for problem in result.problems:
        click.echo(f"  {problem}")
    if result.problems:
        click.echo(f"  done to it: {'; '.join(result.hits) or 'nothing'}")
        click.echo(result.last_words)
    if result.folder is not None:
        click.echo(f"  left in {result.folder}")


if __name__ == "__main__":
    main()
