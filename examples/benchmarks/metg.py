"""From which length of item on a share of the limit is reached: METG, the minimum effective task granularity.

The word is of Task Bench (Slaughter and others, SC 2020), whose trivial pattern, items that do not depend on each
other, is what is measured here. A length is that of the work alone, as a plain loop takes it. What is measured is kept
as flat lines, one a side, number of workers, and length; the tables of it are made here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from examples.benchmarks.figures import named, short
from examples.benchmarks.lines import Line

OURS = "zmqpipeline"

RATES, METG, COSTS = "items/s", "us", "us of a core an item"
"""The units of the three kinds of lines."""

LEVELS = (0.5, 0.9)


@dataclass(frozen=True)
class Grid:
    """A table: its head, whose first cell is that of the names, and its rows."""

    head: list[str]
    rows: list[list[str]]


def metg(points: Sequence[tuple[float, float]], level: float) -> tuple[str, float]:
    """The length from which on every measured one reaches this level.

    Between the last length that does not reach it and the next one, the share is taken to be a straight line over the
    logarithm of the length.

    Args:
        points: lengths, and what share of the limit was reached with each; one at least.
        level: a share, above 0.

    Returns:
        What is to be said before it, and the length: "" if it lies between two, "at most " if the shortest and all
        others reach it, "more than " if the longest does not.
    """
    ordered = sorted(points)
    below = [index for index, (_, share) in enumerate(ordered) if share < level]
    if not below:
        return "at most ", ordered[0][0]
    if below[-1] == len(ordered) - 1:
        return "more than ", ordered[-1][0]
    (length, share), (longer, more) = ordered[below[-1] : below[-1] + 2]
    part = (level - share) / (more - share)
    return "", math.exp(math.log(length) + part * (math.log(longer) - math.log(length)))


def length_named(microseconds: float) -> str:
    """A length as people say it: "20 us", "5 ms"."""
    return f"{microseconds:,.4g} us" if microseconds < 1000 else f"{microseconds / 1000:,.4g} ms"


def shape_named(workers: int, microseconds: float) -> str:
    """A shape as people say it: "2 workers, 20 us"."""
    return f"{named(workers, 'worker')}, {length_named(microseconds)}"


def sides(lines: Sequence[Line]) -> list[str]:
    """All sides, in their order, ours as the last."""
    found = dict.fromkeys(line["side"] for line in lines)
    return [*(side for side in found if side != OURS), *(side for side in found if side == OURS)]


def curve(lines: Sequence[Line], side: str, workers: int) -> list[tuple[float, float]]:
    """Lengths (us) and shares of the limit of one side."""
    return [(line["length"], line["ratio"]) for line in lines if (line["side"], line["workers"]) == (side, workers)]


def summed_up(rates: Sequence[Line]) -> Iterator[Line]:
    """The lines of METG that follow from those of the rates."""
    for workers in dict.fromkeys(line["workers"] for line in rates):
        for side in sides(rates):
            for level in LEVELS:
                bound, length = metg(curve(rates, side, workers), level)
                target = "at most 4" if (side, workers, level) == (OURS, 2, 0.5) else ""
                yield {
                    "benchmark": "granularity",
                    "what": f"{side}, {named(workers, 'worker')}, METG({level:.0%})".replace("%", " %"),
                    "unit": METG,
                    "raw": 0.0,
                    "ours": length,
                    "target": target,
                    "bound": bound,
                    "side": side,
                    "workers": workers,
                    "level": level,
                }


def grid(lines: Sequence[Line]) -> Grid:
    """The table of lines of one unit."""
    return {RATES: _shares, METG: _metgs, COSTS: _costs}[lines[0]["unit"]](lines)


def _shares(lines: Sequence[Line]) -> Grid:
    """By length, what share of the limit each side reaches."""
    names = sides(lines)
    shapes = dict.fromkeys((line["workers"], line["nominal"]) for line in lines)
    found = {(line["side"], line["workers"], line["nominal"]): line for line in lines}
    rows = []
    for shape in shapes:
        there = [found.get((side, *shape)) for side in names]
        limit = next(line["raw"] for line in there if line)
        aim = next((line["target"] for line in there if line and line["side"] == OURS), "")
        cells = [f"{line['ratio']:.2f}" if line else "" for line in there]
        rows.append([shape_named(*shape), short(limit), *cells, aim])
    return Grid(["share of the limit", "bare loops, items/s", *names, "aim"], rows)


def _metgs(lines: Sequence[Line]) -> Grid:
    """From which length on half, and nine tenths, are reached."""
    names = sides(lines)
    found = {(line["side"], line["workers"], line["level"]): line for line in lines}
    rows = []
    for workers, level in dict.fromkeys((line["workers"], line["level"]) for line in lines):
        there = [found.get((side, workers, level)) for side in names]
        cells = [f"{line['bound']}{short(line['ours'])}" if line else "" for line in there]
        aim = next((line["target"] for line in there if line and line["side"] == OURS), "")
        rows.append([f"{named(workers, 'worker')}, METG({100 * level:.0f} %)", *cells, aim])
    return Grid(["us", *names, "aim"], rows)


def _costs(lines: Sequence[Line]) -> Grid:
    """What an item costs each role: time of a processor, and context switches, voluntary and forced."""
    names = list(dict.fromkeys(line["role"] for line in lines))
    found = {(line["role"], line["workers"], line["nominal"]): line for line in lines}
    rows = []
    for shape in dict.fromkeys((line["workers"], line["nominal"]) for line in lines):
        there = [found[(role, *shape)] for role in names]
        times = [short(line["ours"]) for line in there]
        switches = [f"{line['voluntary']:.3f} + {line['forced']:.3f}" for line in there]
        aim = there[0]["target"]
        clock = short(there[0]["clock"])
        rows.append([shape_named(*shape), clock, short(there[0]["raw"]), *times, *switches, aim])
    head = [
        "us of a core, and switches",
        "on the clock",
        "bare loops",
        *names,
        *(f"{name}, switches" for name in names),
    ]
    return Grid([*head, "aim"], rows)
