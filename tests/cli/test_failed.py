"""`dead`: what its commands print, and what they refuse, on journals written for the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.main import run_command
from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem, TaskCounts
from zmqpipeline.runtime.journal import Journal, dead_items, peek
from zmqpipeline.serialization.pack import pack

Say = Callable[..., tuple[int, str, str]]

ODD = {"when": {1, 2}, "text": "\udcff\x1b[31m"}
TRACE = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: no\x07\n'


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journal of a finished run with three failed items, which the variable names."""
    path = tmp_path / "run.db"
    journal = Journal(path, pipeline="p")
    journal.begin(SetRun("r1", b""))
    journal.failed(
        [
            FailedItem("C", 3, 2, "worker", ErrorInfo("ValueError", "no\x07\nsecond line", TRACE), pack({"n": 3})),
            FailedItem("C", 17, 1, "crash", ErrorInfo("WorkerLost", "x" * 100), pack(ODD)),
            FailedItem("D d", 0, 1, "distributor", ErrorInfo("SerializeError", ""), b""),
        ]
    )
    journal.over(False, [TaskCounts("C", "complete", 20, 18, 2), TaskCounts("D d", "complete", 1, 0, 1)])
    journal.finish()
    journal.commit()
    journal.close()
    monkeypatch.setenv("ZMQPIPELINE_JOURNAL", str(path))
    return path


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Carry out a command of an app of the name that the journal knows; status, stdout and stderr."""

    def say(*arguments: str, name: str = "p") -> tuple[int, str, str]:
        app = Pipeline(name)
        app.add_task("E", lambda: None)
        status = run_command(app, ["dead", *arguments])
        told = capsys.readouterr()
        return status, told.out, told.err

    return say


def test_list_is_a_table(path: Path, say: Say) -> None:
    """A line an item, aligned; the message's first line, cut, and nothing that changes the terminal."""
    status, out, err = say("list")
    assert (status, err) == (0, "")
    head, first, second, third = out.splitlines()
    assert head.split() == ["task", "number", "attempts", "stage", "error", "message", "when"]
    assert first.split()[:6] == ["C", "3", "2", "worker", "ValueError", "no\\x07"]
    assert "x" * 57 + "..." in second
    assert "x" * 58 not in second
    assert third.startswith("D d   0 ")
    assert len({line.index(word) for line, word in ((head, "when"), (first, "20"), (third, "20"))}) == 1


def test_list_of_one_task(path: Path, say: Say) -> None:
    """--task leaves the others out; of a task without failed items it says that there are none, of no task the name."""
    assert len(say("list", "--task", "C")[1].splitlines()) == 3
    status, out, err = say("list", "--task", "E")
    assert (status, out) == (0, "")
    assert "no failed items of task 'E'" in err
    status, out, err = say("list", "--task", "c")
    assert (status, out) == (2, "")
    assert "no task 'c'. Did you mean 'C'? Known: 'E', 'C', 'D d'." in err


def test_list_as_json(path: Path, say: Say) -> None:
    """An array with an object an item; an empty one where there is nothing."""
    items = json.loads(say("list", "--json")[1])
    assert [(one["task"], one["number"], one["attempts"], one["stage"]) for one in items] == [
        ("C", 3, 2, "worker"),
        ("C", 17, 1, "crash"),
        ("D d", 0, 1, "distributor"),
    ]
    assert items[0]["message"] == "no\x07\nsecond line"
    assert items[0]["when"].endswith("+00:00")
    assert set(items[0]) == {"task", "number", "attempts", "stage", "error", "message", "when", "retrying"}
    assert json.loads(say("list", "--json", "--task", "E")[1]) == []


def test_show_tells_all_of_an_item(path: Path, say: Say) -> None:
    """Data as JSON, the error with all lines of its message, the traceback."""
    status, out, _ = say("show", "C", "3")
    assert status == 0
    assert out.startswith("Item 3 of task C failed (worker, 2 attempts) on 20")
    assert '\ndata: {\n  "n": 3\n}\n' in out
    assert "\nValueError: no\\x07\nsecond line\n" in out
    assert 'File "x.py", line 1\nValueError: no\\x07\n' in out


def test_show_has_a_form_for_what_json_has_none_for(path: Path, say: Say) -> None:
    """A set and a lone surrogate as Python shows them; an item that was not kept is said to be."""
    out = say("show", "C", "17")[1]
    assert "data: {'when': {1, 2}, 'text': '\\udcff\\x1b[31m'}" in out
    assert "(crash, 1 attempt)" in out
    assert "Traceback" not in out
    assert "data: not kept" in say("show", "D d", "0")[1]


def test_retry_marks_some(path: Path, say: Say) -> None:
    """By task and numbers, of several tasks; the run is open again, and the list says what will be retried."""
    status, out, _ = say("retry", "C", "17", "D d", "0")
    assert status == 0
    assert out.splitlines()[0] == "Marked 2 failed items to be tried again."
    assert out.splitlines()[1].endswith(f" run --journal {path}")
    assert [one.retrying for one in dead_items(path)] == [False, True, True]
    assert say("list")[1].count("to be retried") == 2
    assert ", to be retried." in say("show", "C", "17")[1]
    held = peek(path)
    assert held is not None
    assert not held.finished


def test_retry_marks_all(path: Path, say: Say) -> None:
    """--all marks what is not marked yet, and says how many were."""
    say("retry", "C", "3")
    assert say("retry", "--all")[1].splitlines()[0] == "Marked 2 failed items to be tried again. 1 was marked before."
    assert say("retry", "--all")[1].splitlines()[0] == "Marked 0 failed items to be tried again. 3 were marked before."
    assert all(one.retrying for one in dead_items(path))


def test_retry_of_nothing(tmp_path: Path, say: Say) -> None:
    """A journal without failed items: said so, status 0."""
    path = tmp_path / "good.db"
    journal = Journal(path, pipeline="p")
    journal.begin(SetRun("r1", b""))
    journal.close()
    status, out, _ = say("retry", "--all", "--journal", str(path))
    assert (status, out) == (0, f"There are no failed items in {path}.\n")
    assert "no failed items" in say("list", "--journal", str(path))[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["retry"], "TASK NUMBER..., or --all"),
        (["retry", "C", "3", "--all"], "TASK NUMBER..., or --all"),
        (["retry", "C"], "retry C 3 17"),
        (["retry", "C", "D", "3"], "After the task 'C'"),
        (["retry", "C", "3", "D"], "After the task 'D'"),
        (["retry", "C", "3", "4"], "no failed item 4 of task 'C'"),
        (["show", "C", "4"], "no failed item 4 of task 'C'"),
        (["show", "C", "four"], "'four'"),
        (["list", "--journal", "nowhere.db"], "nowhere.db"),
        (["retry", "--all", "--journal", "nowhere.db"], "nowhere.db"),
        (["lst"], "Did you mean 'list'"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], said: str, path: Path, say: Say) -> None:
    """Status 2, one line that says what, and nothing marked."""
    status, out, err = say(*arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not any(one.retrying for one in dead_items(path))


def test_the_journal_of_another_pipeline_is_refused(path: Path, say: Say) -> None:
    """Both names are said, and nothing is marked."""
    for command in (("list",), ("show", "C", "3"), ("retry", "--all")):
        status, _, err = say(*command, name="q")
        assert status == 2
        assert "'p'" in err
        assert "'q'" in err
    assert not any(one.retrying for one in dead_items(path))


def test_a_journal_must_be_named(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the flag, the variable, or the app's own options."""
    monkeypatch.delenv("ZMQPIPELINE_JOURNAL", raising=False)
    status, _, err = say("list")
    assert status == 2
    assert "--journal FILE" in err
    assert "ZMQPIPELINE_JOURNAL" in err


def test_a_journal_in_use_is_read_and_not_marked(path: Path, say: Say) -> None:
    """Beside a collector that writes it, list and show work; retry says who has it."""
    journal = Journal(path, pipeline="p")
    try:
        assert say("list")[0] == say("show", "C", "3")[0] == 0
        status, _, err = say("retry", "--all")
        assert status == 75
        assert "in use" in err
    finally:
        journal.close()
    assert not any(one.retrying for one in dead_items(path))
