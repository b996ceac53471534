"""Tables in Markdown of kept results, for the pages: a mark says which, and what is below it is written anew.

``<!-- figures: scale -->`` has the table of the benchmark `scale` up to ``<!-- figures: end -->``;
``<!-- figures: peers % -->`` takes only its results of that unit, and ``<!-- figures: machine -->`` tells the machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from examples.benchmarks import lines, metg
from examples.benchmarks.figures import short

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
