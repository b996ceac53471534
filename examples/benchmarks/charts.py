"""Plots as SVG text, by hand: bars, pairs of dots on a logarithmic axis, and curves over one.

The same numbers always give the same text. Each has a title and a description inside, and a ground of its own with
colours for light and dark, so that it can be read on any page.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
LABELS = 264
"""The axis begins here: names stand left of it."""
RIGHT = WIDTH - 120
"""And it ends here: figures stand right of it."""
ROW = 22
TOP = 66
PANEL = 170
"""How high a panel of curves is, from its line of nothing to that of all."""
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "1 5")
"""The curves of others, one after the other."""

_STYLE = """\
    .ground { fill: #ffffff; stroke: #d1d9e0; }
    text { fill: #1f2328; font: 13px system-ui, -apple-system, 'Segoe UI', sans-serif; }
    .title, .head, .mine { font-weight: 600; }
    .title { font-size: 15px; }
    .small { fill: #59636e; font-size: 12px; }
    .line { stroke: #d1d9e0; stroke-width: 1; }
    .span { stroke: #afb8c1; stroke-width: 2; }
    .other { fill: #818b98; }
    .ours { fill: #0969da; }
    .curve { fill: none; stroke: #818b98; stroke-width: 2; }
    .curve.mine { stroke: #0969da; stroke-width: 3; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #151b23; stroke: #3d444d; }
      text { fill: #f0f6fc; }
      .small { fill: #9198a1; }
      .line { stroke: #3d444d; }
      .span { stroke: #656c76; }
      .other { fill: #9198a1; }
      .ours { fill: #4493f8; }
      .curve { stroke: #9198a1; }
      .curve.mine { stroke: #4493f8; }
    }"""


@dataclass(frozen=True)
class Bar:
    """One bar with its name. `ours` is drawn in the colour of this library."""

    name: str
    value: float
    ours: bool = False


@dataclass(frozen=True)
class Pair:
    """Two values that were measured in one run: another's, and ours."""

    name: str
    other: float
    ours: float


@dataclass(frozen=True)
class Curve:
    """Shares, of which 1 is all, over lengths."""

    name: str
    points: Sequence[tuple[float, float]]
    ours: bool = False


Group = tuple[str, Sequence[Bar]]
Pairs = tuple[str, Sequence[Pair]]
Panel = tuple[str, Sequence[Curve]]


def bars(title: str, about: str, unit: str, groups: Sequence[Group], foot: str) -> str:
    """Bars from zero, in groups with a head each.

    Args:
        title: stands above, and is the alternative text.
        about: a sentence for those who cannot see it, and the line below the title.
        unit: stands behind each figure.
        groups: each with its head.
        foot: the line below all.
    """
    most = max((bar.value for _, group in groups for bar in group), default=0.0)
    step = _step(most)
    end = max(step, math.ceil(most / step) * step)
    body: list[str] = []
    y = TOP
    for head, group in groups:
        body.append(_text(16, y + 15, head, "head"))
        y += ROW
        for bar in group:
            long = (RIGHT - LABELS) * max(0.0, bar.value) / end
            kind = "ours" if bar.ours else "other"
            body.append(_text(LABELS - 10, y + 15, bar.name, "mine" if bar.ours else "", "end"))
            body.append(f'<rect class="{kind}" x="{LABELS}" y="{y + 4}" width="{long:.1f}" height="14"/>')
            body.append(_text(LABELS + long + 6, y + 15, f"{_short(bar.value)}{unit}", "mine" if bar.ours else ""))
            y += ROW
        y += 8
    marks = [
        (LABELS + (RIGHT - LABELS) * n * step / end, f"{_plain(n * step)}{unit}") for n in range(round(end / step) + 1)
    ]
    return _whole(title, about, foot, marks, body, y)


def pairs(title: str, about: str, unit: str, groups: Sequence[Pairs], foot: str, sides: tuple[str, str]) -> str:
    """Two dots a row, joined, on an axis of powers of ten; `sides` name the dots. The rest is as with `bars`."""
    values = [value for _, group in groups for pair in group for value in (pair.other, pair.ours)] or [1.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def place(value: float) -> float:
        return LABELS + (RIGHT - LABELS) * (math.log10(value) - low) / (high - low)

    body = [
        f'<circle class="other" cx="{LABELS + 6}" cy="{TOP + 10}" r="5"/>',
        _text(LABELS + 18, TOP + 15, sides[0]),
        f'<circle class="ours" cx="{LABELS + 186}" cy="{TOP + 10}" r="5"/>',
        _text(LABELS + 198, TOP + 15, sides[1], "mine"),
    ]
    y = TOP
    for head, group in groups:
        body.append(_text(16, y + 15, head, "head"))
        y += ROW
        for pair in group:
            other, ours, middle = place(pair.other), place(pair.ours), y + 11
            body.append(_text(LABELS - 10, y + 15, pair.name, "", "end"))
            body.append(f'<line class="span" x1="{other:.1f}" y1="{middle}" x2="{ours:.1f}" y2="{middle}"/>')
            body.append(f'<circle class="other" cx="{other:.1f}" cy="{middle}" r="5"/>')
            body.append(f'<circle class="ours" cx="{ours:.1f}" cy="{middle}" r="5"/>')
            body.append(_text(RIGHT + 14, y + 15, f"{_short(pair.other)} : {_short(pair.ours)}"))
            y += ROW
        y += 8
    marks = [(place(10.0**power), f"{_plain(10.0**power)} {unit}") for power in range(low, high + 1)]
    return _whole(title, about, foot, marks, body, y)


def curves(title: str, about: str, panels: Sequence[Panel], foot: str, name: Callable[[float], str]) -> str:
    """Curves of shares over a logarithmic axis, in panels below each other that share it.

    Args:
        title: as with `bars`.
        about: as with `bars`.
        panels: each with its head, and at least one curve.
        foot: as with `bars`.
        name: what is written below a power of ten of the axis.
    """
    lengths = [length for _, group in panels for curve in group for length, _ in curve.points] or [1.0]
    low, high = math.log10(min(lengths)), math.log10(max(lengths))
    high = max(high, low + 0.1)

    def place(length: float) -> float:
        return LABELS + (RIGHT - LABELS) * min(1.0, max(0.0, (math.log10(length) - low) / (high - low)))

    body: list[str] = []
    y = TOP
    for head, group in panels:
        body.append(_text(16, y + 15, head, "head"))
        y += ROW
        body.extend(_levels(y))
        dashes = itertools.cycle(DASHES)
        for number, curve in enumerate(group):
            dash = "none" if curve.ours else next(dashes)
            kind, middle = "curve mine" if curve.ours else "curve", y + 14 + ROW * number
            points = " ".join(f"{place(length):.1f},{_height(y, share):.1f}" for length, share in sorted(curve.points))
            body.append(_text(16, middle + 4, curve.name, "mine" if curve.ours else ""))
            for drawn in (f"{LABELS - 46},{middle} {LABELS - 14},{middle}", points):
                body.append(f'<polyline class="{kind}" stroke-dasharray="{dash}" points="{drawn}"/>')
        y += PANEL + ROW
    marks = [(place(10.0**n), name(10.0**n)) for n in range(math.ceil(low - 0.1), math.floor(high + 0.1) + 1)]
    return _whole(title, about, foot, marks, body, y)


MOST = 1.1
"""The share at the upper edge of a panel; what is beyond is drawn there."""


def _height(top: float, share: float) -> float:
    """Where a share lies in the panel that begins at `top`."""
    return top + PANEL * (1 - min(MOST, max(0.0, share)) / MOST)


def _levels(top: float) -> Iterator[str]:
    """The lines of nothing, half, nine tenths and all."""
    for share in (0.0, 0.5, 0.9, 1.0):
        y = f"{_height(top, share):.1f}"
        yield f'<line class="line" x1="{LABELS}" y1="{y}" x2="{RIGHT}" y2="{y}"/>'
        yield _text(RIGHT + 8, round(_height(top, share)) + 4, _plain(share), "small")


def _whole(
    title: str, about: str, foot: str, marks: Sequence[tuple[float, str]], body: Sequence[str], bottom: int
) -> str:
    """The frame around the rows, the axis behind them, and the lines above and below."""
    height = bottom + 52
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' role="img" aria-labelledby="title about">',
        f'  <title id="title">{escape(title)}</title>',
        f'  <desc id="about">{escape(about)}</desc>',
        "  <style>",
        _STYLE,
        "  </style>",
        f'  <rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        f"  {_text(16, 28, title, 'title')}",
        f"  {_text(16, 48, about, 'small')}",
        *(f"  {line}" for line in _axis(marks, bottom)),
        *(f"  {line}" for line in body),
        f"  {_text(16, bottom + 38, foot, 'small')}",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _axis(marks: Sequence[tuple[float, str]], bottom: int) -> Iterator[str]:
    for x, text in marks:
        yield f'<line class="line" x1="{x:.1f}" y1="{TOP + ROW}" x2="{x:.1f}" y2="{bottom}"/>'
        yield _text(x, bottom + 16, text, "small", "middle")


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    kinds = f' class="{kind}"' if kind else ""
    anchors = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.1f}" y="{y}"{kinds}{anchors}>{escape(text)}</text>'


def _step(most: float) -> float:
    """Between the marks of an axis from zero: 1, 2 or 5 times a power of ten, so that there are four to eight."""
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= 8)


def _short(value: float) -> str:
    """With two digits that mean something, or all before the point."""
    size = abs(value)
    return f"{value:,.{0 if size >= 10 else 1 if size >= 1 else 2}f}"


def _plain(value: float) -> str:
    return f"{value:,.10g}"
