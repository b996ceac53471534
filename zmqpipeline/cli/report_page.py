"""The page of `run --report`: one HTML file that asks nobody for anything. Pure: it reads and writes nothing.

Nothing of an item or of an app is HTML: each text goes through `safe` or `block`, which write out what is not printable
and escape the rest. A policy in the page forbids scripts, and everything that would come from elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape

from zmqpipeline.cli.report_drawings import count, safe, throughput, timeline
from zmqpipeline.cli.tables import duration
from zmqpipeline.processes.run_record import RunRecord
from zmqpipeline.processes.supervisor import Outcome
from zmqpipeline.protocol.messages import ItemTimes
from zmqpipeline.protocol.status_records import ITEM_SECONDS
from zmqpipeline.runtime.error_text import printable

MAX_TASKS, MAX_REASONS, MAX_PLACES = 200, 50, 200
"""So many rows the tables of tasks, failures and workers have; of the others their number is told."""

MAX_TRACEBACK = 8192
"""So many characters of a traceback are shown, its end."""

STYLE = """
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--dim:#57606a;--line:#d0d7de;--bad:#b3261e;--good:#1a7f37;
--b0:#dde3ea;--b1:#b6d3f5;--b2:#7fb2ee;--b3:#3f86d9;--b4:#0b57b0}
@media(prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--dim:#9198a1;--line:#3d444d;--bad:#ff8b81;
--good:#4ac26b;--b0:#2b323b;--b1:#1f3f66;--b2:#2a5f9e;--b3:#4a90e2;--b4:#9cc8ff}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);margin:0 auto;max-width:1000px;
padding:1rem}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.1rem;margin:1.8rem 0 .4rem}p{margin:.3rem 0}
.good{color:var(--good)}.bad{color:var(--bad)}.dim{color:var(--dim)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.2rem .7rem .2rem 0;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}th{font-weight:600}.n{text-align:right}
pre{overflow-x:auto;background:var(--b0);padding:.6rem;border-radius:4px;font-size:.85rem}
svg{width:100%;min-width:600px;height:auto;font:12px system-ui,sans-serif;fill:var(--fg)}.small{font-size:10px}
.tick{stroke:var(--line)}.line{fill:none;stroke-width:1.5}.death{stroke:var(--bad);stroke-width:2;fill:none}
.b0{fill:var(--b0)}.b1{fill:var(--b1)}.b2{fill:var(--b2)}.b3{fill:var(--b3)}.b4{fill:var(--b4)}
.c0{fill:#2f81f7;stroke:#2f81f7}.c1{fill:#d29922;stroke:#d29922}.c2{fill:#3fb950;stroke:#3fb950}
.c3{fill:#a371f7;stroke:#a371f7}.c4{fill:#db61a2;stroke:#db61a2}.c5{fill:#2aa198;stroke:#2aa198}
.c6{fill:#8b949e;stroke:#8b949e}.line{fill:none}
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Report:
    """What a report is made of."""

    name: str
    headline: str
    """How the run went, in one line."""
    outcome: Outcome
    record: RunRecord
    totals: Mapping[str, int | None] = field(default_factory=dict)
    settings: Sequence[tuple[str, str, bool]] = ()
    """Name, value, and whether it is the default."""
    versions: Sequence[tuple[str, str]] = ()


def page(report: Report) -> str:
    """The page, as text in UTF-8."""
    body = "\n".join(_body(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{safe(report.name)}: report of a run</title><style>{STYLE}</style></head>\n<body><main>\n"
        f"{body}\n</main></body></html>\n"
    )


def _body(report: Report) -> Iterator[str]:
    outcome, record = report.outcome, report.record
    good = "good" if outcome.status == 0 else "bad"
    yield f"<h1>{safe(report.name)}</h1>"
    yield f'<p class="{good}"><strong>{safe(report.headline, 1000)}</strong></p>'
    if outcome.error is not None:
        yield f'<p class="bad">{safe(str(outcome.error), 2000)}</p>'
    began = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(record.began_at))
    yield f'<p class="dim">Began {began}, took {duration(record.seconds)}, exit status {outcome.status}.</p>'
    yield "<h2>Tasks</h2>"
    yield from _tasks(report)
    yield "<h2>Failures</h2>"
    yield from _failures(outcome)
    yield "<h2>Throughput</h2>"
    yield _drawn(throughput(record), "No item was done.")
    yield "<h2>Workers</h2>"
    yield from _workers(record)
    yield "<h2>Processes that died</h2>"
    yield from _deaths(record)
    yield "<h2>Slowest items</h2>"
    yield from _slowest(record)
    yield "<h2>How long items took</h2>"
    yield from _times(record)
    yield "<h2>Settings</h2>"
    yield '<p class="dim">Those that are not the default are in bold.</p>'
    rows = [
        [_strong(safe(name), is_default), _strong(safe(value), is_default)]
        for name, value, is_default in report.settings
    ]
    yield _table(("setting", "value"), rows)
    yield "<h2>Versions</h2>"
    yield _table(("what", "version"), [[safe(name), safe(value)] for name, value in report.versions])


def _strong(cell: str, is_default: bool) -> str:
    return cell if is_default else f"<strong>{cell}</strong>"


def _drawn(drawing: str, instead: str) -> str:
    return f'<div class="wide">{drawing}</div>' if drawing else f"<p>{instead}</p>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()) -> str:
    """Of cells that are HTML already; the columns named in `numbers` are on the right."""
    classes = [' class="n"' if name in numbers else "" for name in head]
    first = "".join(f'<th scope="col"{one}>{name}</th>' for name, one in zip(head, classes, strict=True))
    lines = ["".join(f"<td{one}>{cell}</td>" for cell, one in zip(row, classes, strict=True)) for row in rows]
    inner = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f'<div class="wide"><table><thead><tr>{first}</tr></thead><tbody>\n{inner}</tbody></table></div>'


def _more(number: int, what: str) -> Iterator[str]:
    if number > 0:
        yield f"<p>And {count(number)} more {what}.</p>"


def _tasks(report: Report) -> Iterator[str]:
    summary = report.outcome.summary
    if not summary.tasks:
        yield "<p>No item was sent.</p>"
        return
    names = ("sent", "collected", "failed", "aborted", "skipped", "redelivered", "duplicates")
    rows = []
    for task, counts in list(summary.tasks.items())[:MAX_TASKS]:
        total, workers = report.totals.get(task), report.outcome.workers.get(task)
        told = asdict(counts)
        cells = [count(told[name]) for name in names]
        if told["failed"]:
            cells[2] = f'<strong class="bad">{cells[2]}</strong>'
        rows.append([safe(task), *cells, _or_none(total), _or_none(workers)])
    yield _table(("task", *names, "announced", "workers"), rows, (*names, "announced", "workers"))
    yield from _more(len(summary.tasks) - MAX_TASKS, "tasks")


def _or_none(number: int | None) -> str:
    return "" if number is None else count(number)


def _failures(outcome: Outcome) -> Iterator[str]:
    reasons = outcome.summary.reasons
    if not reasons:
        failed = sum(one.failed for one in outcome.summary.tasks.values())
        # of a run that goes on, an earlier process may have seen them
        yield f"<p>{count(failed)} items failed in an earlier process.</p>" if failed else "<p>None.</p>"
        return
    for index, reason in enumerate(reasons[:MAX_REASONS]):
        what = f"{safe(reason.error)}: {safe(reason.message)}"
        where = f" in {safe(reason.place)}" if reason.place else ""
        yield f"<p><strong>{safe(reason.task)}</strong> ({safe(reason.stage)}): {what}{where}"
        if reason.items:
            items = f"{count(reason.items)} item{'' if reason.items == 1 else 's'}"
            first = f"; the first: <code>{safe(reason.first)}</code>" if reason.first else ""
            yield f"<br>{items}{first}"
        yield "</p>"
        traceback = outcome.tracebacks[index] if index < len(outcome.tracebacks) else ""
        if "Traceback" in traceback:
            yield f"<details><summary>Traceback of the first</summary><pre>{block(traceback)}</pre></details>"
    yield from _more(len(reasons) - MAX_REASONS, "kinds of failure")


def block(text: str) -> str:
    """Text of several lines, its end."""
    return escape(printable(text[-MAX_TRACEBACK:], lines=True))


def _workers(record: RunRecord) -> Iterator[str]:
    yield _drawn(timeline(record), "No process was started.")
    if not record.rows:
        return
    yield (
        '<p class="dim">Each row is a place that processes had one after the other. Five shades tell how busy they '
        "were: not at all, up to a quarter, a half, three quarters, and more of the time. A cross is a death. When "
        "within two seconds they were busy is not known.</p>"
    )
    if record.unasked:
        yield f"<p>How busy they were before their end is not known: {safe(record.unasked)}</p>"
    rows = []
    for row in record.rows[:MAX_PLACES]:
        alive, busy = sum(row.alive.values), sum(row.busy.values)
        is_worker = bool(row.task)
        part = f"{100 * min(1.0, busy / alive):.0f} %" if alive and is_worker else ""
        died = len(row.deaths)
        rows.append(
            [
                safe(row.label),
                safe(row.where),
                count(row.processes),
                f"{died} or more" if died == 20 else count(died),
                count(row.executed) if is_worker else "",
                duration(alive),
                part,
            ]
        )
    names = ("processes", "died", "items executed", "there for", "busy")
    yield _table(("place", "last one", *names), rows, names)
    yield from _more(len(record.rows) - MAX_PLACES + record.left_out, "workers")


def _deaths(record: RunRecord) -> Iterator[str]:
    if not record.deaths:
        yield "<p>None.</p>"
        return
    rows = [
        [duration(one.at), safe(one.label), safe(one.where), safe(one.how), duration(one.lived)]
        for one in record.deaths
    ]
    yield _table(("at", "place", "process", "how", "after"), rows, ("at", "after"))
    yield from _more(record.deaths_in_all - len(record.deaths), "deaths")


def _slowest(record: RunRecord) -> Iterator[str]:
    if not record.slowest:
        yield "<p>Not known: no worker has told at its end how long its items took.</p>"
        return
    rows = [
        [
            _seconds(one.seconds) + ("" if one.is_done else " or more"),
            safe(one.task),
            str(one.number),
            str(one.attempt),
            safe(one.where),
            duration(one.ended) if one.is_done else f"{duration(one.ended)}, when its process died",
        ]
        for one in sorted(record.slowest, reverse=True)
    ]
    head = ("took", "task", "item", "attempt", "worker", "ended at")
    yield _table(head, rows, ("took", "item", "attempt"))


def _times(record: RunRecord) -> Iterator[str]:
    for task, times in sorted(record.times.items())[:MAX_TASKS]:
        number = sum(times.counts)
        if not number:
            continue
        average = _seconds(times.seconds / number)
        yield f"<p><strong>{safe(task)}</strong>: {count(number)} items, {average} on average</p>"
        yield _table(("up to", "items", "part"), list(_classes(times)), ("up to", "items", "part"))
    if record.silent:
        processes = f"{count(record.silent)} process{'' if record.silent == 1 else 'es'}"
        yield f"<p>Without what was executed by {processes} of workers that did not end in good order.</p>"
    if not any(sum(one.counts) for one in record.times.values()):
        yield "<p>No worker has told.</p>"


def _classes(times: ItemTimes) -> Iterator[list[str]]:
    number = sum(times.counts)
    bounds = [*map(_seconds, ITEM_SECONDS), "more"]
    for bound, calls in zip(bounds, times.counts, strict=True):
        if calls:
            yield [bound, count(calls), f"{100 * calls / number:.1f} %"]


def _seconds(seconds: float) -> str:
    """A time of any size: ``12 µs``, ``3.4 ms``, ``0.5 s``."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.1 else duration(seconds)
