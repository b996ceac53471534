"""`run --report` by real processes: one file at the end of each run that began, however it ended."""

from __future__ import annotations

import html
import re
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.cli.test_report import checked

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

# Every tenth item fails for good, others once; item 7 kills its worker once; item 33 is slow, after many short ones.
APP = r"""
import os, pathlib, signal, time
from zmqpipeline import Pipeline

app = Pipeline("told")
HERE = pathlib.Path(__file__).parent
EVIL = "<script>alert(1)</script>\u202e\x1b[31m"

@app.task("A", times=int(os.environ.get("ITEMS", "200")), retries=1, backoff=0.01)
def first():
    return {"evil": EVIL, "long": "y" * 1_000_000} if os.environ.get("LONG") else {"evil": EVIL}

@app.task("B", for_each="A")
def second(result):
    yield {}

@app.worker("A", threads=2)
def on_first(data, number, attempt):
    if number % 10 == 0 or (number % 10 == 1 and attempt == 1):
        raise OSError(EVIL)
    if number == 7 and not (HERE / "killed").exists():
        (HERE / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 33:
        (HERE / "attempt").write_text(str(attempt))
    time.sleep(0.5 if number == 33 else 0.005)
    (HERE / "begun").touch()
    while os.environ.get("WAITS") and not (HERE / "go").exists():
        time.sleep(0.01)
    return {}

@app.worker("B")
def on_second(data):
    return data

@app.service("upper")
def upper(data):
    return data

@app.collector
def collect(data):
    pass

if __name__ == "__main__":
    app.main()
"""


def text_of(page: str) -> str:
    """What a reader sees, with a bar between cells."""
    body = page.split("<body>")[1]
    return html.unescape(re.sub(r"<[^>]*>", "|", body))


def cells(page: str, first: str) -> list[str]:
    """The row of a table that begins with this cell."""
    found = re.search(rf"<tr><td[^>]*>{re.escape(html.escape(first))}</td>(.*?)</tr>", page)
    assert found, page
    return [re.sub(r"<[^>]*>", "", one) for one in re.findall(r"<td[^>]*>(.*?)</td>", found[1])]


def numbers(page: str, task: str) -> list[int]:
    """The counts of a task on the page, in the order of the summary."""
    return [int(one.replace(",", "")) for one in cells(page, task)[:7]]


def test_the_numbers_are_those_of_the_summary(workshop: Workshop) -> None:
    """With failures, retries, stages, a killed worker and hostile items; nothing of these is HTML."""
    workshop.write("app.py", APP)
    status, run = workshop.run(
        *("-m", "app", "run", "--workers", "2", "--json", "--report", "r.html", "--meta", "path=secret")
    )
    assert status == 1, run.err
    page = (workshop.folder / "r.html").read_text()
    checked(page)
    tasks = run.json["tasks"]
    for task in ("A", "B"):
        assert numbers(page, task) == list(tasks[task].values())
    assert tasks["A"]["failed"] == 20
    said = text_of(page)
    assert "20 items; the first: |{'evil': '<script>alert(1)</script>" in said
    assert "raise OSError(EVIL)" in said, "the traceback"
    assert "killed by SIGKILL" in said
    # it may have been with the worker that was killed
    attempt = (workshop.folder / "attempt").read_text()
    slowest = re.search(rf"\|([\d.]+) s\|\|A\|\|33\|\|{attempt}\|", said.replace("\n", ""))
    assert slowest, "the slowest item, its number and attempt"
    assert float(slowest[1]) >= 0.5
    assert "secret" not in page
    # all workers but the one that was killed tell how long their items took
    told = sum(int(one.replace(",", "")) for one in re.findall(r"<strong>A</strong>: ([\d,]+) items", page))
    assert 200 <= told <= 200 + tasks["A"]["redelivered"]
    assert "exit status 1" in said
    assert run.err.count("WARNING zmqpipeline.run") <= 1, run.err
    assert not list(workshop.folder.glob(".zmqpipeline-report*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_has_one(
    workshop: Workshop, eventually: Callable[..., None], number: signal.Signals, status: int
) -> None:
    """By Ctrl-C or SIGTERM: with what was collected until then."""
    workshop.write("app.py", APP)
    (workshop.folder / "killed").touch()
    run = workshop.start("-m", "app", "run", "--workers", "2", "--report", "r.html", ITEMS="100000")
    eventually(lambda: (workshop.folder / "begun").exists(), "the first item")
    run.signal(number)
    assert run.wait() == status
    page = (workshop.folder / "r.html").read_text()
    checked(page)
    assert f"exit status {status}" in page
    sent, collected, *_ = numbers(page, "A")
    assert sent >= collected > 0
    assert "report: r.html\n" in run.err


def test_a_second_signal_does_not_cost_the_report(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """The run ends at once; who was killed by it is told as that."""
    workshop.write("app.py", APP)
    (workshop.folder / "killed").touch()
    run = workshop.start("-m", "app", "run", "--workers", "1", "--report", "r.html", WAITS="1")
    eventually(lambda: (workshop.folder / "begun").exists(), "the first item")
    run.signal(signal.SIGINT)
    eventually(lambda: "The run drains" in run.err, "the first signal")
    run.signal(signal.SIGINT)
    assert run.wait() == 130
    page = (workshop.folder / "r.html").read_text()
    checked(page)
    assert "by the run, which did not wait any longer" in page


def test_a_run_that_fails_has_one(workshop: Workshop) -> None:
    """No worker can begin: the reason is there, with its traceback."""
    workshop.write("app.py", APP.replace("if __name__", f"{INIT}\nif __name__"))
    status, run = workshop.run("-m", "app", "run", "--workers", "1", "--report", "r.html")
    assert status == 1, run.err
    page = (workshop.folder / "r.html").read_text()
    checked(page)
    said = text_of(page)
    assert "no database" in said
    assert "RuntimeError" in said
    assert "No item was done." in said


INIT = """
@app.worker_init("A")
def connect():
    raise RuntimeError("no database")
"""


PHASED = """
import time
from zmqpipeline import Pipeline

app = Pipeline("phased")

def work(data):
    time.sleep(0.05)
    return data

app.add_task("A", lambda: ({} for _ in range(40)))
app.add_task("B", lambda: ({} for _ in range(40)), depends_on=["A"])
app.add_worker("A", work)
app.add_worker("B", work)
app.add_collector(lambda data: None)
"""


def test_the_timeline_tells_who_was_busy_when(workshop: Workshop) -> None:
    """Of two tasks of which one waits for the other: the first worker is idle at the end, the second one before."""
    workshop.write("app.py", PHASED)
    status, run = workshop.run("-m", "zmqpipeline", "-A", "app", "run", "--workers", "1", "--report", "report.html")
    assert status == 0, run.err
    report = (workshop.folder / "report.html").read_text()
    rows = {
        task: [int(one) for one in re.findall(r'<rect class="b(\d)"', bars)]
        for task, bars in re.findall(r"<g><title>worker of &#x27;(\w)&#x27;.*?</title>(.*?)</g>", report, re.DOTALL)
    }
    assert rows.keys() == {"A", "B"}
    assert rows["A"][-1] < max(rows["A"]), rows
    assert rows["B"][0] < max(rows["B"]), rows


def test_a_run_of_no_items_has_one(workshop: Workshop) -> None:
    """Status 0, and a page that says so."""
    workshop.write("app.py", APP)
    status, run = workshop.run("-m", "app", "run", "--workers", "1", "--report", "r.html", ITEMS="0")
    assert status == 0, run.err
    page = (workshop.folder / "r.html").read_text()
    checked(page)
    assert numbers(page, "A") == [0] * 7
    assert "No item was done." in page


def test_a_run_that_goes_on_tells_of_its_part(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """With a journal: the counts are of the whole run, the drawings of this part; a finished one has no new report."""
    workshop.write("app.py", APP)
    (workshop.folder / "killed").touch()
    command = ("-m", "app", "run", "--workers", "2", "--journal", "run.db", "--report", "r.html")
    run = workshop.start(*command, ITEMS="2000", WAITS="1")
    eventually(lambda: (workshop.folder / "begun").exists(), "the first item")
    run.signal(signal.SIGINT)
    eventually(lambda: "The run drains" in run.err, "the run drains")
    workshop.write("go", "")
    assert run.wait() == 130
    before = numbers((workshop.folder / "r.html").read_text(), "A")[1]
    assert before < 1800
    status, run = workshop.run(*command, "--json", ITEMS="2000", timeout=60)
    assert status == 1, run.err
    page = (workshop.folder / "r.html").read_text()
    checked(page)
    assert numbers(page, "A") == list(run.json["tasks"]["A"].values())
    done = re.search(r'aria-label="Throughput: ([\d,]+) items done', page)
    assert done
    in_all = sum(one["collected"] + one["failed"] for one in run.json["tasks"].values())
    assert int(done[1].replace(",", "")) < in_all
    status, run = workshop.run(*command, ITEMS="2000")
    assert status == 1
    assert "no report was written: nothing has run. r.html is as it was" in run.err
    assert (workshop.folder / "r.html").read_text() == page


def test_where_it_cannot_be_written_nothing_is_started(workshop: Workshop) -> None:
    """One line, status 2, before the first process."""
    workshop.write("app.py", APP)
    status, run = workshop.run("-m", "app", "run", "--report", "none/r.html")
    assert (status, run.err.count("\n")) == (2, 1), run.err
    assert "The report cannot be written to 'none/r.html': No such file or directory." in run.err
    assert not (workshop.folder / "begun").exists()


def test_a_report_that_fails_changes_no_status(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """Its folder is gone at the end: a warning."""
    workshop.write("app.py", APP)
    (workshop.folder / "killed").touch()
    (workshop.folder / "there").mkdir()
    run = workshop.start("-m", "app", "run", "--workers", "1", "--report", "there/r.html", ITEMS="3", WAITS="1")
    eventually(lambda: (workshop.folder / "begun").exists(), "the first item")
    (workshop.folder / "there").rmdir()
    workshop.write("go", "")
    assert run.wait() == 1, "item 0 fails"
    assert "The report was not written to there/r.html: " in run.err
    assert "report: there" not in run.err


def test_large_items_are_shown_in_part(workshop: Workshop) -> None:
    """Of a megabyte: the page stays small."""
    workshop.write("app.py", APP)
    (workshop.folder / "killed").touch()
    status, run = workshop.run("-m", "app", "run", "--workers", "1", "--report", "r.html", ITEMS="12", LONG="1")
    assert status == 1, run.err
    page = (workshop.folder / "r.html").read_text()
    checked(page)
    assert len(page) < 100_000


def test_workers_behind_a_command_are_told_of(workshop: Workshop) -> None:
    """They tell by their standard error what they have executed, and are in their places."""
    workshop.write("app.py", APP)
    (workshop.folder / "killed").touch()
    command = ("-m", "app", "run", "--workers", "1", "--launch", "nice -n 1", "--report", "r.html")
    status, run = workshop.run(*command, ITEMS="20")
    assert status == 1, run.err
    page = (workshop.folder / "r.html").read_text()
    checked(page)
    assert cells(page, "worker of 'A'")[3] == "24", "16, and four that were tried twice"
    assert "work-done" not in run.err
