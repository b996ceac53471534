"""What all benchmarks share: medians, processes that are ended, a table with ratios, and the same as JSON."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import click

ROUNDS = 5
"""The medians of so many, unless ``--rounds`` says otherwise."""

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Row:
    """One thing that was measured in the same way for both sides, the yardstick and ours: medians of the rounds."""

    what: str
    unit: str
    raw: float
    ours: float
    target: str = ""
    """What the ratio should be, for people; empty if nothing is promised."""
    beside: float | None = None
    """A third side, to be shown beside the two."""
    ratio: float = float("inf")
    """Ours by the raw one: the median of the ratios of the rounds."""

    @property
    def difference(self) -> float:
        """Ours less the raw one."""
        return self.ours - self.raw


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(
    what: str,
    unit: str,
    raw: Sequence[float],
    ours: Sequence[float],
    target: str = "",
    beside: Sequence[float] | None = None,
) -> Row:
    """A row of the medians of several rounds.

    The two sides of a round are compared with each other before the median is taken: a machine that is slower for a
    while is so for both.

    Raises:
        ValueError: the sides have not the same number of rounds.
    """
    third = None if beside is None else statistics.median(beside)
    return Row(what, unit, statistics.median(raw), statistics.median(ours), target, third, _compared(raw, ours))


def _compared(raw: Sequence[float], ours: Sequence[float]) -> float:
    return statistics.median(mine / other if other else float("inf") for other, mine in zip(raw, ours, strict=True))


def named(count: int, what: str) -> str:
    """Number and noun: "1 worker", "2 workers"."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def show(
    title: str,
    rows: Sequence[Row],
    *,
    as_json: bool,
    sides: tuple[str, str] = ("pyzmq", "zmqpipeline"),
    compared: str = "ratio",
    beside: str = "",
) -> None:
    """Print the rows as a table, or each as one line of JSON.

    Args:
        title: the name of the benchmark.
        rows: what was measured.
        as_json: no table.
        sides: the heads of the columns of the yardstick and of ours.
        compared: how the two are: by their "ratio", or by their "difference".
        beside: the head of the third side, if the rows have one.
    """
    if as_json:
        for one in rows:
            third = {beside.replace(" ", "_"): one.beside} if beside else {}
            figures = {name: value for name, value in asdict(one).items() if name not in ("beside", "ratio")}
            click.echo(json.dumps({"benchmark": title, **figures, **third, compared: getattr(one, compared)}))
        return
    width = max([44, *(len(one.what) + len(one.unit) + 4 for one in rows)])
    click.echo(title)
    third_head = f"{beside:>14}" if beside else ""
    click.echo(f"{'':{width}}{third_head}{sides[0]:>15}{sides[1]:>15}{compared:>12}  target")
    for one in rows:
        third_side = f"{short(one.beside):>14}" if one.beside is not None else ""
        last = f"{one.ratio:.2f}" if compared == "ratio" else f"{one.difference:+.2f}"
        name = f"{one.what}, {one.unit}"
        click.echo(
            f"{name:{width}}{third_side}{short(one.raw):>15}{short(one.ours):>15}{last:>12}  {one.target}".rstrip()
        )


def short(value: float) -> str:
    """With as many digits as mean something."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def standard(function: Function) -> Function:
    """Decorator: the options that every benchmark has."""
    rounds = click.option("--rounds", type=click.IntRange(1), default=ROUNDS, show_default=True)
    as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a result, each on a line.")
    return rounds(as_json(function))


@contextmanager
def processes(*commands: Sequence[str], **options: Any) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run ``python ARGUMENTS`` for each of the commands, for as long as the block does; `options` are Popen's."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for arguments in commands:
            started.append(subprocess.Popen([sys.executable, *arguments], **options))
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
