"""The drawings of a report, as SVG that stands in the page: throughput, and a timeline of workers.

What is drawn is bounded: at most MAX_LINES tasks, MAX_ROWS rows of workers, and in a row one bar for neighbouring
slices that look alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from typing import NamedTuple

from zmqpipeline.cli.tables import duration
from zmqpipeline.processes.run_record import MAX_SLICES, Row, RunRecord, Slices
from zmqpipeline.runtime.error_text import printable

WIDTH = 960
LEFT = 170
"""Of the drawings, where their time begins."""

MAX_LINES = 6
"""So many tasks have a line of their own; the others are one together."""

MAX_ROWS = 60
"""So many rows a timeline has; more workers than that share rows."""

ROW_HEIGHT = 13
LEVELS = 4
"""So many shades tell how busy somebody was."""

HEIGHT = 200


def shortened(text: str, most: int) -> str:
    """Text of users for a page, in one line of at most so many characters; not yet escaped."""
    text = printable(text[: most + 1])
    return text if len(text) <= most else f"{text[: most - 3]}..."


def safe(text: str, most: int = 300) -> str:
    """The same, escaped."""
    return escape(shortened(text, most))


def count(number: float) -> str:
    """A number for people: ``12,345``."""
    return f"{number:,.0f}"


class Axis(NamedTuple):
    """From seconds since the beginning to places in a drawing."""

    seconds: float
    """At the right end."""

    def at(self, seconds: float) -> float:
        """Where this time is."""
        return LEFT + (WIDTH - LEFT - 10) * min(1.0, max(0.0, seconds / self.seconds))

    def ticks(self, bottom: float) -> Iterator[str]:
        """Lines with their times, at most seven."""
        step = 10.0 ** math.floor(math.log10(self.seconds))
        step = next(one for one in (step / 5, step / 2, step, 2 * step) if self.seconds / one < 7)
        for index in range(int(self.seconds / step) + 1):
            x = self.at(index * step)
            yield f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{bottom:.0f}"/>'
            text = duration(index * step) if step >= 0.1 else f"{index * step:.2g} s"
            yield f'<text class="small" x="{x:.1f}" y="{bottom + 14:.0f}" text-anchor="middle">{text}</text>'


def axis_of(record: RunRecord) -> Axis:
    """That of a record which is closed."""
    return Axis(max(record.seconds, 0.01))


def throughput(record: RunRecord) -> str:
    """How many items of each task were done a second; empty if none was."""
    lines = _lines(record)
    if not lines:
        return ""
    axis = axis_of(record)
    used = _used(record)
    seconds = [min(record.width, max(0.001, axis.seconds - index * record.width)) for index in range(used)]
    rates = [(name, [values[index] / seconds[index] for index in range(used)]) for name, values in lines]
    top = max(max(values) for _, values in rates) or 1.0
    parts = [*axis.ticks(HEIGHT)]
    for number, (name, values) in enumerate(rates):
        points = []
        for index, value in enumerate(values):
            y = HEIGHT - (HEIGHT - 8) * value / top
            points += [
                f"{axis.at(index * record.width):.1f},{y:.1f}",
                f"{axis.at((index + 1) * record.width):.1f},{y:.1f}",
            ]
        parts.append(f'<polyline class="line c{number}" points="{" ".join(points)}"><title>{name}</title></polyline>')
        parts.append(
            f'<rect class="c{number}" x="4" y="{6 + 18 * number}" width="10" height="10"/>'
            f'<text x="20" y="{15 + 18 * number}">{name}</text>'
        )
    parts.append(f'<text class="small" x="{LEFT - 6}" y="{HEIGHT}" text-anchor="end">0</text>')
    parts.append(f'<text class="small" x="{LEFT - 6}" y="14" text-anchor="end">{_rate(top)}</text>')
    done = sum(sum(values) for _, values in lines)
    return _drawing(parts, HEIGHT + 20, f"Throughput: {count(done)} items done in {duration(record.seconds)}")


def _lines(record: RunRecord) -> list[tuple[str, Sequence[float]]]:
    """Names, escaped, and values: the tasks that did most, then the others, then failures."""
    ordered = sorted(record.done.items(), key=lambda one: -sum(one[1].values))
    lines = [(safe(task, 20), values.values) for task, values in ordered[:MAX_LINES]]
    if others := ordered[MAX_LINES:]:
        sums = [sum(values.values[index] for _, values in others) for index in range(MAX_SLICES)]
        lines.append((f"{len(others)} other tasks", sums))  # type: ignore[arg-type]
    return lines  # type: ignore[return-value]


def _rate(value: float) -> str:
    return f"{count(value)}/s" if value >= 10 else f"{value:.2g}/s"


def _used(record: RunRecord) -> int:
    """How many slices the run has."""
    return min(MAX_SLICES, max(1, math.ceil(record.seconds / record.width)))


class _Bar(NamedTuple):
    """A row of the timeline: one place, or several of one task."""

    label: str
    about: str
    alive: Sequence[float]
    busy: Sequence[float]
    """The parts of each slice, from 0 to 1."""
    deaths: Sequence[float]


def timeline(record: RunRecord) -> str:
    """Which processes were there when, and how busy they were; empty if there was none."""
    bars = [_bar(rows, record) for rows in _shared(record.rows)]
    if not bars:
        return ""
    axis, bottom = axis_of(record), len(bars) * ROW_HEIGHT + 4
    parts = [*axis.ticks(bottom)]
    for index, bar in enumerate(bars):
        y = index * ROW_HEIGHT + 3
        parts.append(f"<g><title>{bar.about}</title>")
        parts.append(f'<text class="small" x="0" y="{y + 9}">{bar.label}</text>')
        parts += _pieces(bar, axis, record.width, y)
        parts += [f'<path class="death" d="M{axis.at(at) - 3:.1f} {y + 2}l6 6m0 -6l-6 6"/>' for at in bar.deaths]
        parts.append("</g>")
    about = (
        f"Timeline of {len(record.rows)} processes' places in {duration(record.seconds)}; the table below says the same"
    )
    return _drawing(parts, bottom + 20, about)


def _shared(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows one by one, or, if there are many, several of one task together."""
    tasks = {row.task for row in rows}
    each = max(1, math.ceil(len(rows) / max(1, MAX_ROWS - len(tasks)))) if len(rows) > MAX_ROWS else 1
    if len(tasks) > MAX_ROWS // 2:
        # more tasks than can be told apart
        each = max(each, math.ceil(len(rows) / MAX_ROWS))
        for start in range(0, len(rows), each):
            yield list(rows[start : start + each])
        return
    for task in dict.fromkeys(row.task for row in rows):
        alike = [row for row in rows if row.task == task]
        for start in range(0, len(alike), each):
            yield alike[start : start + each]


def _bar(rows: list[Row], record: RunRecord) -> _Bar:
    used = _used(record)
    alive = _mean([row.alive for row in rows], used, [record.width] * used)
    busy = _mean([row.busy for row in rows], used, [record.width] * used)
    if len(rows) == 1:
        label = about = rows[0].label
    else:
        label = f"{len(rows)} of {rows[0].task!r}"
        about = f"{len(rows)} places, from {rows[0].label} to {rows[-1].label}"
    processes, items = sum(row.processes for row in rows), sum(row.executed for row in rows)
    facts = f"processes: {count(processes)}, items: {count(items)}"
    deaths = sorted(at for row in rows for at in row.deaths)[:20]
    return _Bar(safe(label, 27), f"{safe(about, 100)}: {facts}", alive, busy, deaths)


def _mean(slices: list[Slices], used: int, seconds: list[float]) -> list[float]:
    return [min(1.0, sum(one.values[index] for one in slices) / len(slices) / seconds[index]) for index in range(used)]


def _pieces(bar: _Bar, axis: Axis, width: float, y: float) -> Iterator[str]:
    """One rectangle for neighbouring slices that look alike."""
    looks = [_look(alive, busy) for alive, busy in zip(bar.alive, bar.busy, strict=True)]
    at = 0
    for look, some in groupby(looks):
        size = len(list(some))
        if look >= 0:
            x, end = axis.at(at * width), axis.at((at + size) * width)
            place = f'x="{x:.1f}" y="{y}" width="{max(0.5, end - x):.1f}" height="{ROW_HEIGHT - 3}"'
            yield f'<rect class="b{look}" {place}/>'
        at += size


def _look(alive: float, busy: float) -> int:
    """The shade of a slice: -1 if nobody was there, 0 if nobody was busy."""
    if alive <= 0:
        return -1
    return min(LEVELS, math.ceil(LEVELS * min(1.0, busy / alive) - 0.02))


def _drawing(parts: list[str], height: float, about: str) -> str:
    inner = "\n".join(parts)
    return f'<svg role="img" aria-label="{about}" viewBox="0 0 {WIDTH} {height:.0f}">\n{inner}\n</svg>'
