"""The table of many runs, and its place in the documentation."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import zmq

from tests.acceptance.chaos.faults import FAULTS
from tests.acceptance.chaos.runner import Result

BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
"""The generated part of a document stands between these two lines."""

STAGES = ("<!-- chaos with stages: begin -->", "<!-- chaos with stages: end -->")
"""That of runs with stages alone."""

HEAD = (
    "fault",
    "runs",
    "items",
    "lost",
    "duplicated",
    "hung",
    "other",
    "repeated",
    "again",
    "notice: median",
    "worst",
    "recover: median",
    "worst",
)


def table(results: Sequence[Result]) -> list[str]:
    """A Markdown table, a row a fault in the order of the suite, and the sums."""
    rows = []
    for name in FAULTS:
        its = [one for one in results if one.plan.fault == name]
        if its:
            rows.append(_row(name, its, with_times=True))
    rows.append(_row("all", results, with_times=False))
    widths = [max(len(row[i]) for row in [HEAD, *rows]) for i in range(len(HEAD))]
    lines = [
        "| " + " | ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)) + " |"
        for row in [HEAD, *rows]
    ]
    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]


def _row(name: str, its: Sequence[Result], *, with_times: bool) -> list[str]:
    verdicts = [one.verdict for one in its]
    numbers = [
        len(its),
        sum(one.items for one in verdicts),
        sum(len(one.lost) for one in verdicts),
        sum(len(one.duplicated) for one in verdicts),
        sum(bool(one.hung) for one in its),
        sum(len(one.unexpected) + len(one.excess) + len(one.early) + len(one.orphaned) for one in verdicts)
        + sum(len(one.wrong_ends) for one in its),
        sum(len(one.repeated) for one in verdicts),
        sum(len(one.again) for one in verdicts),
    ]
    notice = [seconds for one in verdicts for seconds in one.notice] if with_times else []
    recover = [seconds for one in verdicts for seconds in one.recover] if with_times else []
    return [name, *map(str, numbers), *_median_and_worst(notice), *_median_and_worst(recover)]


def _median_and_worst(times: Sequence[float]) -> tuple[str, str]:
    if not times:
        return "", ""
    return f"{statistics.median(times):.2f} s", f"{max(times):.2f} s"


def described(results: Sequence[Result], command: str) -> list[str]:
    """The generated part of the document: where and when, the table, and what each fault is."""
    today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    seconds = sum(one.seconds for one in results)
    names = [name for name in FAULTS if any(one.plan.fault == name for one in results)]
    return [
        f"On {today}, by `{command}`, in {seconds / 60:.0f} minutes, on {os.cpu_count()} cores with "
        f"{platform.system()}, Python {platform.python_version()} and libzmq {zmq.zmq_version()}:",
        "",
        *table(results),
        "",
        "| fault | what is done |",
        "|---|---|",
        *(f"| {name} | {FAULTS[name].says} |" for name in names),
    ]


def write_into(path: Path, lines: Sequence[str], marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put these lines between the markers of a document.

    Raises ValueError if it does not have each marker once, in order; nothing is written then.
    """
    first, last = marks
    text = path.read_text(encoding="utf-8")
    head, begin, rest = text.partition(f"{first}\n")
    _, end, tail = rest.partition(last)
    if not (begin and end) or last in tail or first in rest:
        raise ValueError(f"{path} must have the lines {first} and {last} once each, in this order. Add them.")
    path.write_text(f"{head}{begin}\n" + "\n".join(lines) + f"\n\n{last}{tail}", encoding="utf-8")
