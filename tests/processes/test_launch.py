"""How many workers a run gets, what -A means, and what the numbers and log lines look like."""

from __future__ import annotations

import io
import json
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError, ImportFailed, JournalError
from zmqpipeline.processes.import_app import refuse_while_importing, split_target, target_of
from zmqpipeline.processes.launch import held_by
from zmqpipeline.processes.worker_numbers import Bounds, read_workers, worker_bounds
from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.protocol.messages import TaskCounts
from zmqpipeline.roles.sources import refuse_other_metadata
from zmqpipeline.runtime.journal import Journal
from zmqpipeline.runtime.log import CLEAR, JsonLines, TextLines, log_to_stderr
from zmqpipeline.runtime.progress import Progress, read_progress


@pytest.fixture
def app() -> Pipeline:
    """A pipeline of two tasks with a worker each."""
    app = Pipeline("two")
    for name in ("A", "B"):
        app.add_task(name, lambda: None)
        app.add_worker(name, lambda data: data)
    return app


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        (None, {"A": 7, "B": 7}),
        ("auto", {"A": 7, "B": 7}),
        (3, {"A": 3, "B": 3}),
        ({"B": 4}, {"A": 7, "B": 4}),
        ({"": 2, "B": 4}, {"A": 2, "B": 4}),
        ({"": 2, "B": "auto"}, {"A": 2, "B": 7}),
        ({"A": 0}, {"A": 0, "B": 7}),
    ],
)
def test_workers_are_given_for_all_or_some(app: Pipeline, given: Any, numbers: dict[str, int]) -> None:
    """A number is for every task, a dict for those that it names; the others get one for each core."""
    found = worker_bounds(app, given, cores=lambda: 7)
    assert found == {task: Bounds(number, number) for task, number in numbers.items()}


@pytest.mark.parametrize(
    ("given", "bounds"),
    [
        ("1:8", {"A": Bounds(1, 8), "B": Bounds(1, 8)}),
        ("1:auto", {"A": Bounds(1, 7), "B": Bounds(1, 7)}),
        ({"": 2, "B": "0:4"}, {"A": Bounds(2, 2), "B": Bounds(0, 4)}),
        ("3:3", {"A": Bounds(3, 3), "B": Bounds(3, 3)}),
    ],
)
def test_a_range_is_from_the_fewest_to_the_most(app: Pipeline, given: Any, bounds: dict[str, Bounds]) -> None:
    """For all or some; auto is the cores, and a range of one number is that number."""
    assert worker_bounds(app, given, cores=lambda: 7) == bounds
    assert [one.is_scaled for one in bounds.values()] == [one.least < one.most for one in bounds.values()]


def test_flags_are_read_as_numbers_and_ranges(app: Pipeline) -> None:
    """Several in one flag, or in several."""
    assert read_workers(app, ["1:8", "A=2,B=0:auto"]) == {"": "1:8", "A": 2, "B": "0:auto"}
    for wrong in ("1:", ":8", "auto:8", "1:2:3", "A=1:b", "-1:4", "9" * 5000 + ":1"):
        with pytest.raises(ConfigurationError, match=f"MIN:MAX.*'{wrong}' is none of these"):
            read_workers(app, [wrong])


@pytest.mark.parametrize(
    ("given", "said"),
    [({"C": 1}, "'C'"), (-1, "-1"), ({"A": -2}, "-2"), ("four", "'four'"), ({"A": 1.5}, "1.5"), (True, "True"),
     ("3:1", "at least 3 and at most 1"), ({"B": "9:auto"}, "auto is 7 here"),
     ("1:4001", "A range ends at 4000"), ("1:x", "'1:x'"), (":", "':'"),
     (4001, "at most 4000 of one task"), ({"B": 99999999}, "99999999 processes of task 'B'"),
     ("5000:5000", "threads=")],
)  # fmt: skip
def test_bad_numbers_of_workers_are_refused(app: Pipeline, given: Any, said: str) -> None:
    """An unknown task, a negative number or none at all is a configuration error that names it."""
    with pytest.raises(ConfigurationError, match=said):
        worker_bounds(app, given, cores=lambda: 7)


HELD = {"path": "/usr", "depth": 3, "none": None, "pair": (1, 2), "nan": math.nan, "deep": {"a": [1], "b": 2}}


@pytest.mark.parametrize("given", [{}, HELD, *({key: value} for key, value in HELD.items())])
def test_metadata_that_a_run_has_already_may_be_given_again(given: dict[str, Any]) -> None:
    """All of it, some, or none: the run goes on."""
    refuse_other_metadata(given, HELD, JournalError)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": "/tmp"}, "has the metadata path='/usr', but path='/tmp' was given"),
        ({"path": "/usr", "depth": 3.0}, "has the metadata depth=3, but depth=3.0 was given"),
        ({"depth": "3"}, "has the metadata depth=3, but depth='3' was given"),
        ({"pair": [1, 2]}, r"pair=\(1, 2\), but pair=\[1, 2\]"),
        ({"deep": {"a": [2], "b": 2}}, "deep="),
        ({"path": "x" * 9999}, f"but path='{'x' * 199}[.][.][.] was given"),
        ({"new": 1}, "has the metadata no 'new', but new=1 was given"),
    ],
)
def test_other_metadata_are_refused_by_name(given: dict[str, Any], words: str) -> None:
    """The key, what the run has, what was given, and what to do."""
    with pytest.raises(JournalError, match=f"^This run .*{words}.*--meta.*--fresh"):
        refuse_other_metadata(given, HELD, JournalError, "This run")


def test_a_journal_is_asked_for_the_run_of_this_pipeline(tmp_path: Path) -> None:
    """Nothing for a file that is not there; the run for the pipeline's own one; an error with both names for others."""
    path = str(tmp_path / "run.db")
    assert held_by(Pipeline("two"), path) is None
    journal = Journal(path, pipeline="two")
    journal.begin(SetRun("r1", b""))
    journal.close()
    held = held_by(Pipeline("two"), path)
    assert held is not None
    assert held.run == "r1"
    with pytest.raises(JournalError, match="'two', not to 'three'"):
        held_by(Pipeline("three"), path)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("pkg.jobs", ("pkg.jobs", "")),
        ("pkg.jobs:app", ("pkg.jobs", "app")),
        ("./jobs.py:app", ("./jobs.py", "app")),
        ("/a:b/jobs.py", ("/a:b/jobs.py", "")),
    ],
)
def test_a_target_is_a_place_and_a_name(target: str, parts: tuple[str, str]) -> None:
    """The name after the last colon counts only if it can be a name."""
    assert split_target(target) == parts


def test_an_empty_target_is_refused() -> None:
    """Nothing before the colon: said so."""
    with pytest.raises(ImportFailed, match="names no module"):
        split_target(":app")


def test_an_app_of_a_module_is_found_by_name(monkeypatch: pytest.MonkeyPatch, app: Pipeline) -> None:
    """An app that a module holds is named by it, although it was made elsewhere."""
    monkeypatch.setattr(sys.modules[__name__], "held", app, raising=False)
    assert target_of(app) == f"{__name__}:held"


def test_an_app_that_no_module_holds_is_refused(app: Pipeline) -> None:
    """An app made in a function has no name that another process could import."""
    with pytest.raises(ImportFailed, match="'two' cannot be imported"):
        target_of(app)


def test_nothing_is_refused_when_nothing_is_imported() -> None:
    """Outside an import by -A, running is allowed."""
    refuse_while_importing("app.run()")


def test_progress_adds_up() -> None:
    """Done is collected and failed; the total is known only if every task says its own."""
    machine = SimpleNamespace(
        inherited=0, inherited_failed=0, snapshot=lambda: SimpleNamespace(tasks={"A": (5, 1), "B": (2, 0)})
    )
    progress = read_progress(machine, {"A": 10, "B": 2}, 4.0)
    assert (progress.done, progress.failed, progress.total, progress.rate) == (8, 1, 12, 2.0)
    assert str(progress) == "8 of 12 items done, 1 failed, 2 a second"
    machine.inherited = 6
    assert read_progress(machine, {"A": 10, "B": 2}, 4.0).rate == 0.5, (
        "what was done before took no time of this process"
    )
    assert read_progress(machine, {"A": 10, "B": None}, 4.0).total is None
    assert read_progress(None, {}, 0.0).rate == 0.0
    assert str(Progress([TaskCounts("A", "open", collected=3)], None, 1.0)) == "3 items done, 3 a second"


def test_a_json_log_line_is_one_object() -> None:
    """Newlines and tracebacks stay within the one line."""
    try:
        raise ValueError("a\nb")
    except ValueError:
        record = logging.getLogger("zmqpipeline.x").makeRecord(
            "zmqpipeline.x", logging.WARNING, "file", 1, "it\n%s", ("broke",), sys.exc_info()
        )
    line = JsonLines().format(record)
    assert "\n" not in line
    fields = json.loads(line)
    assert (fields["level"], fields["logger"], fields["message"]) == ("warning", "zmqpipeline.x", "it\nbroke")
    assert "ValueError" in fields["traceback"]


@pytest.fixture
def top() -> Iterator[logging.Logger]:
    """The library's logger without handlers, as a fresh process has it; everything is put back."""
    logger = logging.getLogger("zmqpipeline")
    before = (logger.handlers[:], logger.level, logger.propagate)
    logger.handlers[:] = []
    yield logger
    logger.handlers[:], _, logger.propagate = before
    logger.setLevel(before[1])


def test_log_lines_are_written_from_a_level_on(top: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines below the level are not written; those from it on are, once, however often it is set up."""
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])
        patch.setattr(sys, "stderr", stream)
        log_to_stderr("warning")
        log_to_stderr("warning")
        top.getChild("run").info("quiet")
        top.getChild("run").warning("loud")
    assert stream.getvalue().count("loud") == 1
    assert "quiet" not in stream.getvalue()


def test_logging_that_the_program_configured_is_left_alone(
    top: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program with handlers of its own keeps exactly these."""
    own = logging.StreamHandler()
    top.addHandler(own)
    with monkeypatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])
        log_to_stderr("debug")
    assert top.handlers == [own]


def test_a_log_line_as_text_changes_no_terminal() -> None:
    """What users raise is written out, in the traceback as well; lines stay lines, and what clears the line is ours."""
    try:
        raise ValueError("bad \x1b[31m\u202e\x00\r, naïve\ttext\nnext")
    except ValueError:
        record = logging.LogRecord("zmqpipeline", logging.WARNING, "app.py", 1, "It \x9bis", (), sys.exc_info())
    text = TextLines(f"\r{CLEAR}").format(record)
    assert text.startswith(f"\r{CLEAR}")
    first, *_, last, end = text.removeprefix(f"\r{CLEAR}").split("\n")
    assert first.endswith(": It \\x9bis")
    assert (last, end) == ("ValueError: bad \\x1b[31m\\u202e\\x00\\r, naïve\ttext", "next")
