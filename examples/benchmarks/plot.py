"""Draw the plots of the pages from kept results, and write the tables of a page."""

from __future__ import annotations

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import click

from examples.benchmarks import lines, metg
from examples.benchmarks.figures import named, short

# the drawing ---------------------------------------------------------------------------------------------------------

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


# the tables of a page ------------------------------------------------------------------------------------------------

MARK = re.compile(r"^(<!-- figures: (\w+)(?: ([^\n]+?))? -->\n).*?^(<!-- figures: end -->)$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Heads:
    """The heads of a benchmark's columns. `third` is the key of what stands beside the two, if it has that."""

    other: str
    ours: str = "zmqpipeline"
    third: str = ""
    first: str = ""
    """The head of the names."""


HEADS = {
    "chain": Heads("one task", "three stages"),
    "checksums": Heads("the other"),
    "curve": Heads("without keys", "with keys"),
    "floor": Heads("one a message", "x 100", third="packed_whole"),
    "journal": Heads("without a journal", "with a journal"),
    "latency": Heads("plain pyzmq"),
    "memory": Heads("at item 100,000", "largest after", first="role"),
    "mixed": Heads("best possible"),
    "overhead": Heads("plain pyzmq", third="plain_loop"),
    "payload": Heads("plain pyzmq"),
    "peers": Heads("the peer"),
    "scale": Heads("the base", "so many", third="on_the_clock"),
    "service": Heads("plain pyzmq"),
    "stages": Heads("plain Python and msgpack", first="stage"),
    "startup": Heads("pyzmq, msgpack, click"),
    "threads": Heads("one thread", "so many"),
    "turns": Heads("turns of 5 ms", "as in a role"),
    "uneven": Heads("best possible", third="Pool"),
    "waiting": Heads("the plain side"),
    "throughput": Heads("batches of 100 by hand in plain pyzmq", third="packed_whole"),
}

OTHER = Heads("the other side")


def fill(page: str, kept: Sequence[lines.Line]) -> str:
    """The page with each of its tables written anew. A mark whose benchmark has no results says so."""
    return MARK.sub(lambda found: f"{found[1]}{_between(kept, found[2], found[3] or '')}{found[4]}", page)


def _between(kept: Sequence[lines.Line], benchmark: str, unit: str) -> str:
    rows = lines.of(kept, benchmark) if benchmark == lines.MACHINE else lines.of(kept, benchmark, unit)
    if not rows:
        return "Not measured yet.\n"
    if benchmark == lines.MACHINE:
        return f"{lines.told(rows[0])}\n"
    said = dict.fromkeys((one.get("command", benchmark), one.get("date", ""), one.get("machine", "")) for one in rows)
    captions = [
        f"`python -m examples.benchmarks {command}`{f', {date}' * bool(date)}{f', {machine}' * bool(machine)}"
        for command, date, machine in said
    ]
    made = grid(metg.grid(rows)) if benchmark == "granularity" else table(rows, HEADS.get(benchmark, OTHER))
    return "\n".join(["; ".join(captions) + ":", "", *made, ""])


def grid(made: metg.Grid) -> list[str]:
    """The lines of a table whose cells are texts already; a last column for aims is left out if there are none."""
    aims = any(row[-1] for row in made.rows)
    width = len(made.head) - (not aims)
    rule = ["---", *["---:"] * (width - 1 - aims), *["---"] * aims]
    return [_row(cells[:width]) for cells in (made.head, rule, *made.rows)]


def table(rows: Sequence[lines.Line], heads: Heads) -> list[str]:
    """The lines of the table. A unit that all rows share stands in its corner, else in each row."""
    units = {one["unit"] for one in rows}
    shared = units.pop() if len(units) == 1 else ""
    third = heads.third if all(heads.third in one for one in rows) else ""
    compared = "ratio" if "ratio" in rows[0] else "difference"
    aims = any(one["target"] for one in rows)
    corner = ", ".join(part for part in (heads.first, shared) if part)
    head = [corner, *[third.replace("_", " ")] * bool(third), heads.other, heads.ours, compared, *["aim"] * aims]
    found = [_row(head), _row(["---", *["---:"] * (len(head) - 1 - aims), *["---"] * aims])]
    for one in rows:
        name = one["what"] if shared else f"{one['what']}, {one['unit']}"
        figures = [_cell(one[key]) for key in (third, "raw", "ours") if key]
        by = _by(one["ratio"]) if compared == "ratio" else f"{one['difference']:+.2f}" * bool(one["raw"])
        found.append(_row([name, *figures, by, *[one["target"]] * aims]))
    return found


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: float) -> str:
    """Nothing where that side has nothing of the kind."""
    return short(value) if value else ""


def _by(ratio: float) -> str:
    return f"{ratio:,.{2 if ratio < 100 else 0}f}"


# what is drawn -------------------------------------------------------------------------------------------------------

OURS = metg.OURS


def overhead(kept: Sequence[lines.Line]) -> str:
    """What naps of 10 ms cost beyond themselves, beside the plain loop, plain pyzmq, and the peers."""
    groups = []
    for line in lines.of(kept, "overhead"):
        group = [
            Bar("plain loop", line["plain_loop"]),
            Bar("PUSH and PULL in plain pyzmq", line["raw"]),
            Bar(OURS, line["ours"], ours=True),
        ]
        groups.append((line["what"].partition(", ")[2], group))
    beside: dict[str, list[Bar]] = defaultdict(list)
    for line in lines.of(kept, "peers", "%"):
        peer, _, workers = line["what"].rpartition(", ")
        if not beside[workers]:
            beside[workers].append(Bar(OURS, line["ours"], ours=True))
        beside[workers].append(Bar(peer, line["raw"]))
    groups += [(f"beside others, {workers}", sorted(group, key=_value)) for workers, group in beside.items()]
    about = "Percent beyond the naps themselves; less is better. The bars under one heading come from one run."
    return bars("What work of 10 ms costs beyond the work", about, " %", groups, _foot(kept))


def cost(kept: Sequence[lines.Line]) -> str:
    """Microseconds a trivial item, beside the peers and plain pyzmq."""
    found: dict[str, list[Pair]] = defaultdict(list)
    for line in lines.of(kept, "peers", "items/s"):
        peer, _, workers = line["what"].rpartition(", ")
        found[workers].append(_pair(peer, line))
    for line in lines.of(kept, "throughput"):
        _, _, workers = line["what"].rpartition(", ")
        found[workers].append(_pair("batches of 100 in plain pyzmq", line))
    groups = [(workers, sorted(group, key=_other, reverse=True)) for workers, group in found.items()]
    about = "Microseconds on a logarithmic scale; less is better. The two dots of a row come from one run."
    return pairs("What a trivial item costs", about, "us", groups, _foot(kept), ("the other one", OURS))


def granularity(kept: Sequence[lines.Line]) -> str:
    """What share of the limit is reached by items of every length, in a panel for each number of workers."""
    rates = lines.of(kept, "granularity", metg.RATES)
    panels = [
        (
            named(workers, "worker"),
            [
                Curve(side, points, ours=side == metg.OURS)
                for side in metg.sides(rates)
                if (points := metg.curve(rates, side, workers))
            ],
        )
        for workers in dict.fromkeys(line["workers"] for line in rates)
    ]
    about = "By how long an item computes: items a second, as a share of those of bare loops in as many processes."
    foot = _foot(kept) if panels else "Not measured yet."
    return curves("From which length of item on it is worth it", about, panels, foot, metg.length_named)


def _pair(name: str, line: lines.Line) -> Pair:
    return Pair(name, 1e6 / line["raw"], 1e6 / line["ours"])


def _value(bar: Bar) -> float:
    return bar.value


def _other(pair: Pair) -> float:
    return pair.other


def _foot(kept: Sequence[lines.Line]) -> str:
    """When, and on what."""
    dates = sorted({line["date"] for line in kept if "date" in line})
    when = " to ".join(dict.fromkeys([dates[0], dates[-1]])) if dates else "no date"
    parts = [
        f"{line['cores']} cores, {line['system']}, Python {line['python']}" for line in lines.of(kept, lines.MACHINE)
    ]
    return ", ".join([f"Measured {when}", *parts])


def drawn(kept: Sequence[lines.Line]) -> dict[str, str]:
    """The text of each plot, by the name of its file."""
    return {"cost.svg": cost(kept), "granularity.svg": granularity(kept), "overhead.svg": overhead(kept)}


@click.command("plot")
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Write the tables of this page anew, too.",
)
def command(results: Path, out: Path, page: Path | None) -> None:
    """Draw OUT/cost.svg, OUT/granularity.svg and OUT/overhead.svg from the lines of RESULTS, which `record` keeps."""
    kept = lines.read(results)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in drawn(kept).items():
        (out / name).write_text(text, encoding="utf-8")
    if page is not None:
        page.write_text(fill(page.read_text(encoding="utf-8"), kept), encoding="utf-8")
