"""What the page is sent of answers: is it well, in words; failures, tasks, and workers page by page; how it ended."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from zmqpipeline.cli.page.plan import PagePlan, Scalable
from zmqpipeline.cli.page.shown import MAX_TASKS, PAGE_ROWS, Moment, RunOver, View, short, shown
from zmqpipeline.processes.worker_places import Staff
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

WORKER = WorkerStatus("box/7", "A", "box", 7, 4, "busy", 4, 60, [RunningItem(4, 1, 0.5)], service_time=0.0034)
TASK = TaskStatus(TaskCounts("A", "open", 64, 60), 100, 1, 2, 4, 1, 10.0, 10, "")
RUN = Status("pipe", "abcdef0123", "running", 12.5, "", [TASK], [WORKER])
PLAN = PagePlan("pipe")
JOURNALLED = PagePlan("pipe", dead=["python -m app dead", "my run.db"])
KIND = FailureStatus("A", "worker", "KeyError", "'m'", "app.py:3 work", "Traceback ...", 3, 17, 2, "{'n': 1}")
COUNTS = {"sent": 100, "collected": 97, "failed": 3, "aborted": 0, "skipped": 0, "redelivered": 1, "duplicates": 0}


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
    told = shown(PLAN, Moment(answers))
    assert (told["well"], told["is_bad"]) == (said, is_bad)


def test_a_page_beside_a_run_knows_whether_it_has_begun() -> None:
    """A distributor that is not there yet is no reason to worry; one that is gone is."""
    beside = replace(PLAN, is_beside=True)
    assert shown(beside, Moment())["is_bad"] is False
    told = shown(beside, Moment(was_seen=True))
    assert (told["is_bad"], told["well"].startswith("The distributor does not answer")) == (True, True)


def test_tasks_and_their_rates() -> None:
    """The rate is that since the answer before, if it is of the same run."""
    (task,) = shown(PLAN, Moment([RUN]))["tasks"]
    assert (task["name"], task["percent"], task["waiting"], task["rate"], task["left"]) == (
        "A",
        60,
        3,
        "5.0/s",
        "8.0 s",
    )
    assert (task["running"], task["item_seconds"]) == (4, "3.4 ms")
    before = replace(RUN, seconds=10.5, tasks=[replace(TASK, counts=replace(TASK.counts, collected=20))])
    assert shown(PLAN, Moment([RUN], [before]))["tasks"][0]["rate"] == "20/s"
    assert shown(PLAN, Moment([RUN], [replace(before, run="other")]))["tasks"][0]["rate"] == "5.0/s"
    assert shown(PLAN, Moment([replace(RUN, tasks=[replace(TASK, total=None)])]))["tasks"][0]["percent"] is None
    many = [replace(TASK, counts=replace(TASK.counts, task=f"T{number}")) for number in range(MAX_TASKS + 30)]
    told = shown(PLAN, Moment([replace(RUN, tasks=many)]))
    assert (len(told["tasks"]), told["more_tasks"]) == (MAX_TASKS, 30)


def test_how_many_workers_a_scaled_task_is_given() -> None:
    """Beside those that are there. That it is given none, and waits for nothing, is no trouble; the end has none."""
    given = replace(RUN, tasks=[replace(TASK, desired=8)])
    assert [shown(PLAN, Moment([one]))["tasks"][0]["workers"] for one in (RUN, given)] == ["1", "1 of 8"]
    over = RunOver(0, {"tasks": {"A": COUNTS}, "reasons": []})
    assert shown(PLAN, Moment([given], [], over))["tasks"][0]["workers"] == "0"
    idle = replace(TASK, counts=replace(TASK.counts, task="B"), workers=0, desired=0)
    waits = replace(RUN, tasks=[replace(TASK, why="its gate waits"), idle])
    assert not shown(PLAN, Moment([waits]))["is_bad"]
    assert shown(PLAN, Moment([replace(waits, tasks=[replace(idle, desired=1, why="no worker")])]))["is_bad"]


def test_times_that_are_short() -> None:
    """From microseconds on."""
    assert [short(one) for one in (0.000012, 0.0034, 0.25, 2.0, 200.0)] == [
        "12 us",
        "3.4 ms",
        "250 ms",
        "2.0 s",
        "3:20",
    ]


# failures -------------------------------------------------------------------------------------------------------------


def test_failures_come_with_what_to_type() -> None:
    """With a journal; an item of a task with odd names is quoted as a shell needs it."""
    status = replace(RUN, tasks=[bad(5)], failures=[KIND, replace(KIND, task="a b", items=1, number=0)])
    told = shown(JOURNALLED, Moment([status]))["failures"]
    assert (told["items"], told["kinds"], told["others"]) == (5, 2, 1)
    assert told["list"] == "python -m app dead list --journal 'my run.db'"
    assert told["retry"] == "python -m app dead retry --all --journal 'my run.db'"
    assert told["rows"][0] == {
        "task": "A",
        "stage": "worker",
        "error": "KeyError",
        "message": "'m'",
        "place": "app.py:3 work",
        "traceback": "Traceback ...",
        "items": 3,
        "number": 17,
        "attempts": 2,
        "item": "{'n': 1}",
        "retry": "python -m app dead retry A 17 --journal 'my run.db'",
    }
    assert told["rows"][1]["retry"] == "python -m app dead retry 'a b' 0 --journal 'my run.db'"
    without = shown(PLAN, Moment([status]))["failures"]
    assert (without["list"], without["retry"], without["rows"][0]["retry"]) == ("", "", "")


def test_many_kinds_are_on_pages() -> None:
    """A page that there is not is the last one."""
    kinds = [replace(KIND, place=f"app.py:{number}") for number in range(100)]
    status = replace(RUN, tasks=[bad(300)], failures=kinds)
    first, second = (shown(PLAN, Moment([status]), View(failures=page))["failures"] for page in (1, 7))
    assert (first["page"], first["pages"], len(first["rows"])) == (1, 2, PAGE_ROWS)
    assert (second["page"], second["rows"][-1]["place"]) == (2, "app.py:99")
    assert shown(PLAN, Moment([status]), View(task="B"))["failures"]["kinds"] == 0


# workers --------------------------------------------------------------------------------------------------------------


def test_thousands_of_workers_are_on_pages() -> None:
    """Those whose items have run longest come first; all are counted, also those that the answer does not name."""
    workers = [
        replace(WORKER, address=f"box/{number}", running=[RunningItem(number, 1, float(number))])
        for number in range(4000)
    ]
    moment = Moment([replace(RUN, workers=workers, tasks=[replace(TASK, workers=9000)])])
    told = shown(PLAN, moment)
    assert [one["name"] for one in told["workers"]["rows"][:2]] == ["box/3999", "box/3998"]
    assert (told["workers"]["count"], told["workers"]["unnamed"], told["workers"]["pages"]) == (9000, 5000, 80)
    assert [one["number"] for one in told["slow"][:2]] == [3999, 3998]
    last = shown(PLAN, moment, View(workers=80))["workers"]
    assert last["rows"][-1]["name"] == "box/0"
    assert len(json.dumps(told)) < 60_000


def test_lost_workers_and_warnings() -> None:
    """The newest first, of the distributor and of `run`."""
    lost = [LostWorker("box/8", "A", "killed by SIGKILL", 3.0)]
    status = replace(RUN, lost=lost, lost_workers=4, log=[LogLine("warning", "late", 9.0)])
    told = shown(PLAN, Moment([status], log=[LogLine("error", "newer", 2.0)]))
    assert told["lost"] == {
        "count": 4,
        "rows": [{"name": "box/8", "task": "A", "why": "killed by SIGKILL", "ago": "3.0 s"}],
    }
    assert [(one["role"], one["message"]) for one in told["log"]] == [("run", "newer"), ("distributor", "late")]


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1e9", "9" * 30, "\u0663"])
def test_a_page_that_cannot_be_read_is_the_first(text: str) -> None:
    """Whatever is asked for."""
    assert View.read({"workers": text, "failures": text}) == View()


# the end --------------------------------------------------------------------------------------------------------------


def test_at_the_end_the_numbers_are_those_of_the_summary() -> None:
    """Also of a task that no answer has told of, and of kinds of failure."""
    reason = {"task": "A", "stage": "worker", "error": "KeyError", "message": "'m'", "place": "app.py:3 work"}
    other = {**reason, "place": "app.py:9", "items": 1, "first": "{}"}
    reasons = [{**reason, "items": 12, "first": "{}"}, other]
    over = RunOver(1, {"tasks": {"A": COUNTS, "B": COUNTS}, "reasons": reasons, "stopped": ""})
    told = shown(PLAN, Moment([replace(RUN, failures=[KIND], why="something")], over=over))
    assert told["well"] == "The run is over, with status 1: 194 items are collected, 6 failed."
    assert (told["is_over"], told["is_bad"]) == (True, True)
    for task in told["tasks"]:
        assert {key: task[key] for key in COUNTS} == COUNTS
        assert (task["state"], task["waiting"], task["running"]) == ("complete", 0, 0)
    assert [(one["items"], one["number"], one["traceback"]) for one in told["failures"]["rows"]] == [
        (12, 17, "Traceback ..."),
        (1, None, ""),
    ]
    # one that was over before anybody answered
    assert [one["name"] for one in shown(PLAN, Moment(over=over))["tasks"]] == ["A", "B"]


def test_what_would_change_how_text_is_read_is_written_out() -> None:
    """Names are the user's: directions of writing, control characters, and what has no UTF-8."""
    name = "<script>\u202e\x1b[2J\ud800"
    hostile = replace(
        RUN,
        tasks=[replace(TASK, counts=replace(TASK.counts, task=name), why=name)],
        failures=[replace(KIND, task=name, message=name, item=name, traceback=name, place=name, error=name)],
        lost=[LostWorker(name, name, name, 0.0)],
        log=[LogLine("warning", name, 0.0)],
        workers=[replace(WORKER, address=name, host=name, task=name)],
    )
    told = json.dumps(shown(replace(JOURNALLED, name=name), Moment([hostile])), ensure_ascii=False)
    assert "<script>\\\\u202e\\\\x1b[2J\\\\ud800" in told
    assert not {"\u202e", "\x1b", "\ud800"} & set(told)
    told.encode()


# workers of `run` -----------------------------------------------------------------------------------------------------

SCALED = PagePlan("pipe", scalable=[Scalable("A", 32, "1:8"), Scalable("B\u202e", 8, "2")])


def test_the_workers_of_a_run_that_may_be_scaled() -> None:
    """Each task with its number, and what it may have; of those that `run` has told of."""
    told = shown(SCALED, Moment([RUN], staff={0: Staff(3, 4, True)}))["staff"]
    row = {"which": 0, "task": "A", "there": 3, "wanted": 4, "limit": 32, "own": "1 to 8", "is_ordered": True}
    assert told == [row]
    told = shown(SCALED, Moment([RUN], staff={0: Staff(3, 4, True), 1: Staff(2, 2, False)}))["staff"]
    assert told[1] == {**row, "which": 1, "task": "B\\u202e", "there": 2, "wanted": 2, "limit": 8, "own": "2"} | {
        "is_ordered": False
    }


def test_no_worker_may_be_had_of_a_run_that_is_over() -> None:
    """Nor of one that has none to order, or that `dashboard` shows."""
    staff = {0: Staff(3, 4, True)}
    assert shown(SCALED, Moment([RUN], over=RunOver(0), staff=staff))["staff"] == []
    assert shown(SCALED, Moment([RUN]))["staff"] == []
    assert shown(PLAN, Moment([RUN]))["staff"] == []


def test_a_task_that_was_set_to_0_says_who_can_mend_it() -> None:
    """It is as somebody wants it, so nobody has to come and look."""
    none = replace(TASK, workers=0, desired=0, why="no worker for 'A'")
    told = shown(SCALED, Moment([replace(RUN, tasks=[none])], staff={0: Staff(0, 0, True)}))
    assert told["well"] == "'A': no worker for 'A'. It was set to 0 workers on this page: set another number."
    assert not told["is_bad"]
