"""What the page of `dashboard` is sent of answers: is it well, in words; tasks; workers, as many as a page can show."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from zmqpipeline.cli.shown import MAX_WORKERS, shown
from zmqpipeline.protocol.messages import RunningItem, Status, TaskCounts, TaskStatus, WorkerStatus

WORKER = WorkerStatus("box/7", "A", "box", 7, 4, "busy", 4, 60, [RunningItem(4, 1, 0.5)])
TASK = TaskStatus(TaskCounts("A", "open", 64, 60), 100, 1, 2, 4, 1, 10.0, 10, "")
RUN = Status("pipe", "abcdef0123", "running", 12.5, "", [TASK], [WORKER])


def bad(failed: int = 3, state: str = "open") -> TaskStatus:
    """The task, with failed items."""
    return replace(TASK, counts=replace(TASK.counts, failed=failed, state=state))


@pytest.mark.parametrize(
    ("answers", "said", "is_bad"),
    [
        ([], "Nobody answers: no run is up, or it cannot be reached.", True),
        ([RUN], "All is well: 60 items are collected.", False),
        ([replace(RUN, tasks=[bad()])], "'A' is open, with 3 failed.", True),
        ([replace(RUN, tasks=[bad(0, "aborted")])], "'A' is aborted, with 0 failed.", True),
        ([replace(RUN, why="no collector is connected")], "It waits: no collector is connected.", True),
        (
            [replace(RUN, tasks=[replace(TASK, workers=0, why="no worker for 'A'")])],
            "'A': no worker for 'A'.",
            True,
        ),
        ([replace(RUN, tasks=[replace(TASK, why="its gate says no")])], "'A': its gate says no.", False),
    ],
)
def test_it_is_said_in_words_whether_it_is_well(answers: list[Status], said: str, is_bad: bool) -> None:
    """Failures first, then what it waits for."""
    told = shown("pipe", answers)
    assert (told["well"], told["is_bad"]) == (said, is_bad)


def test_tasks_and_their_rates() -> None:
    """The rate is that since the answer before, if it is of the same run."""
    (task,) = shown("pipe", [RUN])["tasks"]
    assert (task["name"], task["percent"], task["waiting"], task["rate"], task["left"]) == (
        "A",
        60,
        3,
        "5.0/s",
        "8.0 s",
    )
    before = replace(RUN, seconds=10.5, tasks=[replace(TASK, counts=replace(TASK.counts, collected=20))])
    assert shown("pipe", [RUN], [before])["tasks"][0]["rate"] == "20/s"
    assert shown("pipe", [RUN], [replace(before, run="other")])["tasks"][0]["rate"] == "5.0/s"
    assert shown("pipe", [replace(RUN, tasks=[replace(TASK, total=None)])])["tasks"][0]["percent"] is None


def test_of_thousands_of_workers_those_are_shown_whose_items_have_run_longest() -> None:
    """The page stays small; all are counted, also those that the answer does not name."""
    workers = [
        replace(WORKER, address=f"box/{number}", running=[RunningItem(number, 1, float(number))])
        for number in range(4000)
    ]
    told = shown("pipe", [replace(RUN, workers=workers, tasks=[replace(TASK, workers=9000)])])
    assert [one["name"] for one in told["workers"][:2]] == ["box/3999", "box/3998"]
    assert len(told["workers"]) == MAX_WORKERS
    assert told["more"] == 9000 - MAX_WORKERS
    assert len(json.dumps(told)) < 60_000


def test_what_would_change_how_text_is_read_is_written_out() -> None:
    """Names are the user's: directions of writing, control characters, and what has no UTF-8."""
    name = "<script>\u202e\x1b[2J\ud800"
    hostile = replace(RUN, tasks=[replace(TASK, counts=replace(TASK.counts, task=name), why=name)])
    told = json.dumps(shown(name, [hostile]), ensure_ascii=False)
    assert "<script>\\\\u202e\\\\x1b[2J\\\\ud800" in told
    told.encode()
