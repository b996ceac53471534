"""The page of a report: one file, of which nothing comes from elsewhere and nothing of an item is HTML."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from zmqpipeline import Pipeline
from zmqpipeline.cli import report_drawings
from zmqpipeline.cli.report import Reporter
from zmqpipeline.cli.report_page import MAX_PLACES, MAX_REASONS, MAX_TRACEBACK, Report, page
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options
from zmqpipeline.processes.run_record import Row, RunRecord, Slices, Slow
from zmqpipeline.processes.supervisor import Outcome
from zmqpipeline.protocol.messages import ItemTimes
from zmqpipeline.protocol.status_records import ITEM_SECONDS
from zmqpipeline.roles.results import Reason, Summary, TaskSummary

EVIL = "<script>alert(1)</script>\u202e\x1b[31m\ud800\x00'\"&"
"""What an item, a task or an error may hold."""


class Tags(HTMLParser):
    """The tags of a page, with their attributes; all are closed, in order."""

    EMPTY = frozenset(("meta", "line", "rect", "path", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One more."""
        self.seen.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """One more, closed at once."""
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """It is the last one that was opened."""
        assert self.open.pop() == tag


def checked(text: str) -> Tags:
    """The tags, of a page that keeps the rules for all."""
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    names = {name for name, _ in tags.seen}
    assert not names & {"script", "link", "iframe", "img", "object", "embed", "base", "form", "a", "foreignobject"}
    for name, attributes in tags.seen:
        loads = {"src", "href", "xlink:href", "srcset", "action", "style", "data", "formaction", "poster"}
        assert not loads & attributes.keys(), name
        assert not any(one.startswith("on") for one in attributes), name
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"https?://", text.split("</style>")[1]), "an address"
    policy = next(value["content"] for name, value in tags.seen if "http-equiv" in value)
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert all(one.isprintable() or one == "\n" for one in text)
    return tags


def report(**changes: Any) -> Report:
    """One with everything in it, all of whose texts are hostile."""
    record = RunRecord()
    record.seconds, record.width = 6.0, 0.05
    row = Row(EVIL, EVIL, processes=2, executed=7, where=EVIL, deaths=[3.0])
    row.alive.values[0], row.busy.values[0] = 0.05, 0.04
    record.rows = [row]
    record.done = {EVIL: Slices()}
    record.done[EVIL].add(3, 7)
    record.slowest = [Slow(1.5, EVIL, 3, 1, EVIL, 4.0), Slow(2.5, EVIL, 4, 1, EVIL, 5.0, is_done=False)]
    record.times = {EVIL: ItemTimes([0, 7, *[0] * (len(ITEM_SECONDS) - 1)], 0.001)}
    record.unasked = EVIL
    reason = Reason(EVIL, EVIL, EVIL, EVIL, EVIL, 3, EVIL)
    summary = Summary(False, 6.0, {EVIL: TaskSummary(10, 7, 3)}, [reason], EVIL)
    outcome = Outcome(summary, 1, RuntimeError(EVIL), workers={EVIL: 1}, tracebacks=[f"Traceback {EVIL}"])
    fields: dict[str, Any] = {
        "name": EVIL,
        "headline": EVIL,
        "outcome": outcome,
        "record": record,
        "settings": [(EVIL, EVIL, False)],
        "versions": [(EVIL, EVIL)],
    }
    return Report(**{**fields, **changes})


def test_nothing_of_a_user_is_html() -> None:
    """Tags are text, and what would turn the text around, or the terminal's colours, is written out."""
    text = page(report())
    checked(text)
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;\\u202e\\x1b[31m\\ud800\\x00") > 15
    assert text.encode()


def test_what_it_says() -> None:
    """The counts of the summary, the first failure with its traceback, who died, and which items took longest."""
    text = page(report())
    for said in ("10</td>", "3 items; the first:", "Traceback of the first", "1.5 s", "2.5 s or more", "exit status 1"):
        assert said in text, said


def test_a_run_of_nothing_has_a_page() -> None:
    """No item, no worker, no time."""
    record = RunRecord()
    record.close()
    text = page(report(outcome=Outcome(Summary(True, 0.0), 0), record=record))
    checked(text)
    for said in ("No item was sent.", "No item was done.", "No process was started.", "No worker has told."):
        assert said in text, said


def test_its_size_is_bounded() -> None:
    """With thousands of workers, tasks and kinds of failure, and texts of a megabyte."""
    record = RunRecord()
    record.seconds, record.width = 10_000.0, 100.0
    for index in range(4000):
        row = Row(f"worker {index}", f"task {index % 900}", deaths=[float(one) for one in range(20)])
        for at in range(100):
            row.alive.values[at], row.busy.values[at] = 100.0, (at * index) % 100
        record.rows.append(row)
    record.done = {f"task {index}": Slices() for index in range(3000)}
    for slices in record.done.values():
        slices.add(5, 1.0)
    long = "x" * 1_000_000
    reasons = [Reason(long, "worker", long, long, long, 1, long)] * 300
    summary = Summary(False, 1.0, {f"task {index}": TaskSummary(1, 1) for index in range(3000)}, reasons)
    outcome = Outcome(summary, 1, tracebacks=[f"Traceback {long}"] * 300)
    text = page(report(record=record, outcome=outcome))
    checked(text)
    assert len(text) < 3_000_000
    assert text.count("<pre>") == MAX_REASONS
    assert "And 250 more kinds of failure." in text
    assert f"And {4000 - MAX_PLACES:,} more workers." in text
    assert max(len(one) for one in re.findall(r"<pre>(x+)</pre>", text)) == MAX_TRACEBACK
    assert text.count('class="death"') <= 20 * (report_drawings.MAX_ROWS + 1)


def test_many_workers_share_rows_of_their_task() -> None:
    """Sixty rows for two thousand workers of three tasks; none is of two."""
    rows = [Row(f"worker {index}", "ABC"[index % 3]) for index in range(2000)]
    shared = list(report_drawings._shared(rows))
    assert len(shared) <= report_drawings.MAX_ROWS
    assert all(len({row.task for row in some}) == 1 for some in shared)
    assert sum(map(len, shared)) == 2000


def test_slices_that_look_alike_are_one_bar() -> None:
    """Of four thousand seconds of the same work."""
    record = RunRecord()
    record.seconds, record.width = 240.0, 1.0
    row = Row("w", "A")
    for at in range(240):
        row.alive.values[at], row.busy.values[at] = 1.0, 0.9 if at < 200 else 0.0
    record.rows = [row]
    bars = re.findall(r'<rect class="(b\d)" x="([\d.]+)".*?width="([\d.]+)"', report_drawings.timeline(record))
    assert [name for name, _, _ in bars] == ["b4", "b0"]


@pytest.mark.parametrize("seconds", [0.0, 0.013, 1.0, 59.0, 3600.0, 86400.0 * 300])
def test_the_axis_has_few_ticks(seconds: float) -> None:
    """Whatever the time is."""
    record = RunRecord()
    record.seconds = seconds
    ticks = list(report_drawings.axis_of(record).ticks(100))
    assert 2 <= len(ticks) // 2 <= 8


@pytest.mark.parametrize("name", ["no/such/folder/r.html", ".", "", "pipe", "x" * 300, "a\x00b"])
def test_where_it_cannot_be_written_is_said_first(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence that names the place; nothing is left there."""
    import os

    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with pytest.raises(ConfigurationError, match=r"The report cannot be written to .*: .*\. Name a file"):
        Reporter(Path(name))
    assert [one.name for one in tmp_path.iterdir()] == ["pipe"]


def written(reporter: Reporter) -> bool:
    """Whether it could be written, after a run of nothing."""
    given = {"workers": "", "launch": "ssh -i secret host", "metadata": "path"}
    return reporter.write(Pipeline("p"), Outcome(Summary(True, 0.0), 0), "all is well", Options(linger=7.0), given)


def test_it_takes_the_place_of_an_older_one_in_one_step(tmp_path: Path) -> None:
    """Behind a link, too; with the rights of a new file; nothing else is left, and no secret is in it."""
    real, link = tmp_path / "real.html", tmp_path / "link.html"
    real.write_text("old")
    link.symlink_to(real)
    reporter = Reporter(link)
    assert real.read_text() == "old"
    assert written(reporter)
    text = real.read_text()
    checked(text)
    assert "<strong>linger</strong></td><td><strong>7.0" in text
    assert "secret" not in text
    assert link.is_symlink()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link.html", "real.html"]
    (tmp_path / "new").touch()
    assert real.stat().st_mode == (tmp_path / "new").stat().st_mode


def test_what_goes_wrong_at_the_end_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The folder is gone: it is said, and nothing is raised."""
    folder = tmp_path / "folder"
    folder.mkdir()
    reporter = Reporter(folder / "r.html")
    folder.rmdir()
    assert not written(reporter)
    assert "The report was not written to" in caplog.text
