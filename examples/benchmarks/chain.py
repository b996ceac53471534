"""What stages cost: trivial items a second through three tasks that feed each other, beside those of one task.

Each task has one worker. The items of all three count, and one task has as many of them.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from examples.benchmarks.figures import Row, row, show, standard

STAGES = 3

SIDES = {"one": ("trivial_app", 1), "chain": ("chain_app", STAGES), "journal": ("chain_app", STAGES)}
"""By side: its app, and how many items each of its first items becomes."""


def measure_round(side: str, items: int, folder: Path) -> float:
    """Items a second of one run, start-up not counted; every one of them was checked."""
    module, stages = SIDES[side]
    out = folder / "figures.json"
    command = [sys.executable, "-m", f"examples.benchmarks.{module}", "run", "--no-progress", "--workers", "1"]
    command += ["--meta", f"items={items}", "--meta", f"out={out}"]
    if side == "journal":
        command += ["--journal", str(folder / "run.journal")]
    subprocess.run(command, check=True, timeout=600, stderr=subprocess.DEVNULL)
    figures = json.loads(out.read_text())
    return float((stages * figures["items"] - 1) / max(figures["last"] - figures["first"], 1e-9))


def measure(items: int, rounds: int) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes each."""
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for _, side in itertools.product(range(rounds), SIDES):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            rates[side].append(measure_round(side, items, Path(folder)))
    return [
        row("A > B > C", "items/s", rates["one"], rates["chain"], "at least 0.4"),
        row("A > B > C, with a journal", "items/s", rates["one"], rates["journal"], "at least 0.25"),
    ]


@click.command("chain")
@click.option("--items", type=click.IntRange(2), default=200_000, show_default=True, help="So many of each task.")
@standard
def command(items: int, rounds: int, as_json: bool) -> None:
    """Items a second through three stages, beside one task."""
    show("chain", measure(items, rounds), as_json=as_json, sides=("one task", "three stages"))
