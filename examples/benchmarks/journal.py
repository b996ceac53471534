"""What a journal costs: trivial items a second with ``--journal`` beside the same without, in one run.

The journal is on the disk of the temporary folder (`TMPDIR`), where a commit means an fsync.
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

SIDES = ("plain", "journal")


def measure_round(side: str, items: int, folder: Path) -> float:
    """Items a second of one run, start-up not counted; every one of them was checked."""
    out = folder / "figures.json"
    command = [sys.executable, "-m", "examples.benchmarks.trivial_app", "run", "--no-progress"]
    command += ["--meta", f"items={items}", "--meta", f"out={out}"]
    if side == "journal":
        command += ["--journal", str(folder / "run.journal")]
    subprocess.run(command, check=True, timeout=600, stderr=subprocess.DEVNULL)
    figures = json.loads(out.read_text())
    return float((figures["items"] - 1) / max(figures["last"] - figures["first"], 1e-9))


def measure(items: int, rounds: int) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes both."""
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for _, side in itertools.product(range(rounds), SIDES):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            rates[side].append(measure_round(side, items, Path(folder)))
    return [row("trivial items, 1 worker", "items/s", rates["plain"], rates["journal"], "at least 0.5")]


@click.command("journal")
@click.option("--items", type=click.IntRange(2), default=200_000, show_default=True, help="So many in each run.")
@standard
def command(items: int, rounds: int, as_json: bool) -> None:
    """Items a second with a journal, beside the same run without."""
    show("journal", measure(items, rounds), as_json=as_json, sides=("without", "with"))
