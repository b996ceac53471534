"""What all benchmarks share: medians, processes that are ended, a table with ratios, and the same as JSON."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import click


@dataclass(frozen=True)
class Row:
    """One thing that was measured in the same way for both sides, the yardstick and ours: medians of the rounds."""

    what: str
    unit: str
    raw: float
    ours: float
    target: str = ""
    """What the ratio should be, for people; empty if nothing is promised."""

    @property
    def ratio(self) -> float:
        """Ours by the raw one."""
        return self.ours / self.raw


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(what: str, unit: str, raw: Sequence[float], ours: Sequence[float], target: str = "") -> Row:
    """A row of the medians of several rounds."""
    return Row(what, unit, statistics.median(raw), statistics.median(ours), target)


def show(title: str, rows: Sequence[Row], *, as_json: bool, sides: tuple[str, str] = ("pyzmq", "zmqpipeline")) -> None:
    """Print the rows as a table, with a column for each of the two sides, or as one JSON object."""
    if as_json:
        click.echo(json.dumps({"benchmark": title, "rows": [{**asdict(one), "ratio": one.ratio} for one in rows]}))
        return
    click.echo(title)
    click.echo(f"{'':44}{sides[0]:>12}{sides[1]:>14}{'ratio':>9}  target")
    for one in rows:
        name = f"{one.what}, {one.unit}"
        click.echo(f"{name:44}{one.raw:12,.0f}{one.ours:14,.0f}{one.ratio:9.2f}  {one.target}")


@contextmanager
def processes(*commands: Sequence[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run ``python ARGUMENTS`` for each of the commands, for as long as the block does."""
    started = [subprocess.Popen([sys.executable, *arguments]) for arguments in commands]
    try:
        yield started
    finally:
        for one in started:
            one.terminate()
        for one in started:
            try:
                one.wait(10)
            except subprocess.TimeoutExpired:
                one.kill()
                one.wait()
