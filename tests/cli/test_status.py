"""What `status` shows of an answer: rates, time left, what runs, and nothing that hurts a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zmqpipeline.cli.status import as_lines, as_object, as_top
from zmqpipeline.cli.tables import duration
from zmqpipeline.protocol.messages import (
    FailureStatus,
    LogLine,
    LostWorker,
    RunningItem,
    Status,
    TaskCounts,
    TaskStatus,
    WorkerStatus,
)

RUNS = [RunningItem(4, 2, 0.5), RunningItem(1, 1, 75.0), RunningItem(2, 1, 9.0), RunningItem(3, 1, 0.1)]
WORKER = WorkerStatus("box/7", "A", "box", 7, 4, "busy", 4, 60, RUNS)


def answer(
    collected: int, seconds: float, *, total: int | None = 100, run: str = "abcdef0123", **given: object
) -> Status:
    """An answer of a pipeline with one task, some of whose items were done by a distributor before."""
    counts = TaskCounts("A", "open", collected + 4, collected)
    task = TaskStatus(counts, total, 1, 2, 4, 1, seconds, 10, "")
    return Status("pipe", run, "running", seconds, "", [replace(task, **given)], [WORKER])  # type: ignore[arg-type]


def test_a_rate_is_that_of_this_distributor() -> None:
    """With one answer: since the task opened, without what was done before it."""
    told = as_object("ipc://x", answer(60, 10.0))["tasks"]["A"]
    assert (told["rate"], told["left_seconds"]) == (5.0, 8.0)


def test_a_rate_is_that_of_the_moment_with_two_answers() -> None:
    """Between them; of two runs, or of no time at all, it is the one since the task opened."""
    now = answer(60, 10.0)
    assert as_object("x", now, answer(20, 8.0))["tasks"]["A"]["rate"] == 20.0
    assert as_object("x", now, answer(20, 8.0, run="other"))["tasks"]["A"]["rate"] == 5.0
    assert as_object("x", now, answer(60, 10.0))["tasks"]["A"]["rate"] == 5.0


def test_without_a_total_nothing_is_said_of_the_end() -> None:
    """The time left needs a number of items, and a rate."""
    assert as_object("x", answer(60, 10.0, total=None))["tasks"]["A"]["left_seconds"] is None
    assert as_object("x", answer(10, 10.0))["tasks"]["A"]["left_seconds"] is None


def test_workers_are_shown_beside_those_that_are_desired() -> None:
    """Where `run` scales them."""
    given = answer(60, 10.0, desired=8)
    assert as_object("x", given)["tasks"]["A"]["desired_workers"] == 8
    assert as_lines("x", given)[3].split()[-1] == "1/8"
    assert as_object("x", answer(60, 10.0))["tasks"]["A"]["desired_workers"] is None


def test_the_tables() -> None:
    """Numbers on the right; waiting counts what waits for a retry; the longest running items come first."""
    lines = as_lines("ipc://x", answer(60, 10.0, why="hold \x1b[2J"))
    assert lines == [
        "pipe at ipc://x, run abcdef01, running for 10 s",
        "",
        "task  state  waiting  leased  collected  failed   of   rate   left  workers",
        "A     open         3       4         60       0  100  5.0/s  8.0 s        1  hold \\x1b[2J",
        "",
        "worker  task  state  threads  holds  results  done  runs now",
        "box/7   A     busy         4      4        0    60  "
        "1 for 75 s, 2 for 9.0 s, 4 for 0.5 s (attempt 2), and 1 more",
    ]


def test_bytes_of_results_are_shown_where_they_wait() -> None:
    """What a worker keeps is in its line, what waits for the collector's function in one of its own; both are JSON."""
    keeps = replace(WORKER, kept_bytes=3 * 1024 * 1024 + 400_000)
    status = replace(answer(60, 10.0), workers=[keeps], queued_bytes=20 * 1024)
    lines = as_lines("ipc://x", status)
    assert "20 KiB of results wait for the collector's function" in lines
    assert lines[-1].split()[:6] == ["box/7", "A", "busy", "4", "4", "3.4"]
    told = as_object("ipc://x", status)
    assert (told["queued_bytes"], told["workers"][0]["kept_bytes"]) == (20 * 1024, keeps.kept_bytes)


def test_workers_that_were_not_told_of_are_counted() -> None:
    """An answer names four thousand at most; the tasks know how many there are."""
    assert as_lines("x", answer(1, 1.0, workers=12_000))[-1] == "and 11999 more workers"


def test_a_live_screen_has_bars() -> None:
    """Of what each task announces; without that there is none."""
    lines = as_lines("ipc://x", answer(39, 10.0), bars=True)
    assert lines[3].split()[6:9] == ["100", "[#######-------------]", "39%"]
    assert "[" not in as_lines("ipc://x", answer(39, 10.0, total=None), bars=True)[3]
    assert "100%" in as_lines("ipc://x", answer(200, 10.0), bars=True)[3], "more than it has announced"


def test_the_workers_are_on_top() -> None:
    """Those whose items have run longest first, with what each has done a second since the answer before."""
    quick = replace(WORKER, address="box/1", executed=80, running=[])
    now = replace(answer(60, 10.0), workers=[quick, WORKER])
    before = replace(answer(50, 8.0), workers=[replace(quick, executed=50)])
    lines = as_top("ipc://x", now, before)
    assert [line.split()[0] if line else "" for line in lines] == [
        "pipe",
        "",
        "worker",
        "box/7",
        "box/1",
        "",
        "task",
        "A",
    ]
    assert lines[4].split()[6:] == ["80", "15/s"]
    assert "/s" not in lines[3], "it was not there before"
    assert as_top("ipc://x", replace(now, workers=[]), before)[1:] == ["", *lines[6:]]


@pytest.mark.parametrize(("rows", "shown"), [(None, 50), (100, 50), (20, 13), (5, 3)])
def test_workers_are_left_out_where_the_tasks_would_be(rows: int | None, shown: int) -> None:
    """As many as there is no room for, but three."""
    workers = [replace(WORKER, address=f"box/{number}") for number in range(50)]
    lines = as_top("x", replace(answer(1, 1.0, workers=50), workers=workers), rows=rows)
    assert sum(line.startswith("box/") for line in lines) == shown
    assert (f"and {50 - shown} more workers" in lines) == (shown < 50)
    assert lines[-1].startswith("A ")
    if rows is not None and rows > 10:
        assert len(lines) <= rows
    unnamed = as_top("x", answer(1, 1.0, workers=12_000))
    assert "and 11999 more workers" in unnamed


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (99.4, "99 s"), (185.0, "3:05"), (7209.0, "2:00:09")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    """Two figures or so, in the unit that fits."""
    assert duration(seconds) == text


def test_why_items_failed_is_below_the_tasks() -> None:
    """The most frequent kinds, as the summary has them; JSON has all, and lost workers and warnings besides."""
    kinds = [
        FailureStatus("A", "worker", "OSError", "no\x1b[2J", f"app.py:{number}", "Traceback", 9 - number, 3, 1, "{}")
        for number in range(5)
    ]
    lost, line = LostWorker("box/8", "A", "killed by SIGKILL", 2.0), LogLine("warning", "late", 1.0)
    status = replace(answer(60, 10.0), failures=kinds, lost=[lost], lost_workers=4, log=[line])
    for lines in (as_lines("x", status), as_top("x", status)):
        at = lines.index("A: OSError: no?[2J... in app.py:0: 9 items; first: {}")
        assert lines[at + 3] == "and 2 more kinds of failure"
    told = as_object("x", status)
    assert (len(told["failures"]), told["failures"][0]["traceback"]) == (5, "Traceback")
    assert (told["lost_workers"], told["lost"][0]["why"], told["log"][0]["message"]) == (4, "killed by SIGKILL", "late")
