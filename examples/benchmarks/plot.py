"""Draw the plots of the pages from kept results, and write the tables of a page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click

from examples.benchmarks import charts, lines, metg, tables
from examples.benchmarks.charts import Bar, Curve, Pair
from examples.benchmarks.figures import named

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
    return charts.bars("What work of 10 ms costs beyond the work", about, " %", groups, _foot(kept))


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
    return charts.pairs("What a trivial item costs", about, "us", groups, _foot(kept), ("the other one", OURS))


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
    return charts.curves("From which length of item on it is worth it", about, panels, foot, metg.length_named)


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
        page.write_text(tables.fill(page.read_text(encoding="utf-8"), kept), encoding="utf-8")
