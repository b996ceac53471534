"""The file of a journal: what is refused, and what a full or foreign one does."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.journals import RUN as BEGUN
from zmqpipeline.runtime.journal import Journal

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop
from tests.support.journalled_apps import APP, RUN, Eventually, rows

pytestmark = pytest.mark.processes


FOREIGN = "CREATE TABLE cats (name TEXT); INSERT INTO cats VALUES ('Tom');"


def complaint(workshop: Workshop, *arguments: str) -> str:
    """Run a command that must end with status 2 and one line, and leave the journal as it was."""
    path = workshop.folder / "run.db"
    before = path.read_bytes() if path.exists() else None
    status, program = workshop.run("-m", "app", *arguments)
    assert status == 2, program.err
    assert len(program.err.splitlines()) == 1, program.err
    assert program.err.startswith("Error: ")
    assert (path.read_bytes() if path.exists() else None) == before
    return program.err


@pytest.mark.parametrize("command", [("run",), ("run", "--fresh"), ("collector",), ("dead", "list")], ids=" ".join)
@pytest.mark.parametrize("what", ["text", "foreign", "other pipeline", "no folder"])
def test_a_file_that_is_no_journal_of_ours_is_refused(what: str, command: tuple[str, ...], workshop: Workshop) -> None:
    """One line with the file's name, status 2, the file untouched, and nobody started."""
    workshop.write("app.py", APP)
    path, name = workshop.folder / "run.db", "run.db"
    if what == "text":
        path.write_text("Dear diary\n" * 100)
    elif what == "foreign":
        with closing(sqlite3.connect(path)) as db:
            db.executescript(FOREIGN)
    elif what == "other pipeline":
        journal = Journal(path, pipeline="other")
        journal.begin(BEGUN)
        journal.close()
    else:
        name = "nowhere/run.db"
    line = complaint(workshop, *command, "--journal", name)
    assert name in line
    if what == "other pipeline":
        assert "'other'" in line
        assert "'lasting'" in line


@pytest.mark.slow
def test_a_journal_in_use_is_refused(workshop: Workshop, eventually: Eventually) -> None:
    """A second run with the same journal: one line that names the first one's process, status 75; that one goes on."""
    workshop.write("app.py", APP)
    workshop.write("most", "100")
    first = workshop.start(*RUN)
    eventually(lambda: len(rows(workshop)) > 10, "more than ten items collected")
    for command in ("run", "collector", "run --fresh"):
        status, second = workshop.run("-m", "app", *command.split(), "--journal", "run.db")
        assert status == 75, second.err
        assert len(second.err.splitlines()) == 1, second.err
        assert f"{first.pid}" in second.err
    mark = len(rows(workshop))
    workshop.write("most", "300")
    eventually(lambda: len(rows(workshop)) > mark, "the first run goes on")
    first.signal(signal.SIGTERM)
    eventually(lambda: "The run drains" in first.err, "the run drains")
    workshop.write("most", "1000000")
    assert first.wait() == 143, first.err


@pytest.mark.slow
def test_a_run_that_cannot_write_its_journal_ends_and_goes_on_later(workshop: Workshop) -> None:
    """Status 75 and one letter, soon; with room again the same command does the rest, and each item is one row."""
    workshop.write("app.py", APP)
    status, program = workshop.run(*RUN, LIMIT="100000")
    assert status == 75, program.err
    assert "Traceback" not in program.err
    told = [line for line in program.err.splitlines() if line.startswith("Error: ")]
    assert len(told) == 1, program.err
    assert "run.db cannot be written" in told[0]
    assert "start again with the same journal" in told[0]
    done = rows(workshop)
    assert 0 < len(done) < 1500
    status, program = workshop.run(*RUN)
    assert status == 0, program.err
    assert rows(workshop) == list(range(1500))


def test_fresh_needs_a_journal(workshop: Workshop) -> None:
    """--fresh without one is a mistake: one line says so."""
    workshop.write("app.py", APP)
    for command in ("run", "collector"):
        assert "--journal FILE" in complaint(workshop, command, "--fresh")


def test_a_function_that_takes_the_journal_needs_one(workshop: Workshop) -> None:
    """Without --journal such an app does not start: one line names the function, status 2."""
    workshop.write("app.py", APP)
    for command in ("run", "collector"):
        line = complaint(workshop, command)
        assert "'collect'" in line or "collect()" in line, line
        assert "--journal FILE" in line
