"""`--run-id`: the same command line, started again, goes on with its run, and begins anew in the place of others."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.apps import NOTES_NUMBERS
from zmqpipeline.runtime.journal import peek

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Eventually = Callable[..., None]

APP = (
    """
import os
from zmqpipeline import Pipeline

app = Pipeline("named")

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

@app.task("C")
def numbers():
    for n in range(40):
        yield {"n": n}

@app.worker("C")
def work(data):
    if data["n"] == 20 and os.path.exists("gate"):
        # until somebody writes to the pipe
        open("gate").read()
    return data
"""
    + NOTES_NUMBERS
)
RUN = ("-m", "app", "run", "--journal", "run.db")


def collected(workshop: Workshop) -> list[int]:
    """What was collected since the last look."""
    numbers = workshop.numbers("collected")
    (workshop.folder / "collected").unlink(missing_ok=True)
    return sorted(numbers)


def test_a_run_of_the_same_id_goes_on_and_another_begins(workshop: Workshop) -> None:
    """Finished, it is already finished; under another id all is done anew; one without an id is another run, too."""
    workshop.write("app.py", APP)
    assert workshop.run(*RUN)[0] == 0
    assert collected(workshop) == list(range(40))
    for name in ("monday", "tuesday"):
        status, program = workshop.run(*RUN, ZMQPIPELINE_RUN_ID=name)
        assert status == 0, program.err
        assert collected(workshop) == list(range(40)), program.err
        status, program = workshop.run(*RUN, "--run-id", name)
        assert (status, collected(workshop)) == (0, []), program.err
        assert "already finished" in program.err
    status, program = workshop.run(*RUN)
    assert (status, collected(workshop)) == (0, []), "without an id, whatever the journal holds goes on"


def done(workshop: Workshop) -> int:
    """How many items the journal has."""
    held = peek(workshop.folder / "run.db") if (workshop.folder / "run.db").exists() else None
    if held is None:
        return 0
    with closing(sqlite3.connect(workshop.folder / "run.db")) as db:
        return int(db.execute("SELECT ifnull(sum(stop - start), 0) FROM zmqpipeline_done").fetchone()[0])


@pytest.mark.parametrize(("name", "twice"), [("first", 0), ("second", 20)], ids=["the same id", "another id"])
def test_an_unfinished_run_of_the_same_id_goes_on(
    name: str, twice: int, workshop: Workshop, eventually: Eventually
) -> None:
    """kill -9 in the middle: under its id it does what is left; under another it says what it forgets, and does all."""
    workshop.write("app.py", APP)
    gate = workshop.folder / "gate"
    os.mkfifo(gate)
    # another worker would do what waits behind the item that blocks
    program = workshop.start(*RUN, "--workers", "1", "--run-id", "first")
    eventually(lambda: done(workshop) == 20, "twenty items in the journal")
    program.signal(signal.SIGKILL, group=True)
    program.wait()
    gate.unlink()
    status, program = workshop.run(*RUN, "--run-id", name)
    assert status == 0, program.err
    assert collected(workshop) == sorted([*range(40), *range(twice)])
    assert ("holds the run 'first', which is unfinished; it is forgotten" in program.err) == bool(twice)


def test_a_lone_collector_has_an_id_too(workshop: Workshop, eventually: Eventually) -> None:
    """The distributor need not know it; a pod that is started again goes on, with the command line as it is."""
    workshop.write("app.py", APP)
    os.mkfifo(workshop.folder / "gate")
    roles = ("collector --journal run.db --run-id first", "distributor", "worker")
    programs = [workshop.start("-m", "app", *role.split()) for role in roles]
    eventually(lambda: done(workshop) == 20, "twenty items in the journal")
    for program in programs:
        program.signal(signal.SIGKILL)
        program.wait()
    (workshop.folder / "gate").unlink()
    programs = [workshop.start("-m", "app", *role.split()) for role in roles]
    assert [one.wait() for one in programs] == [0, 0, 0], [one.err for one in programs]
    assert collected(workshop) == list(range(40))
    held = peek(workshop.folder / "run.db")
    assert held is not None
    assert (held.run_id, held.finished) == ("first", True)


def test_what_makes_no_sense_is_refused(workshop: Workshop) -> None:
    """Without a journal, with --fresh, empty, unprintable or too long: one line, status 2, and nothing was done."""
    workshop.write("app.py", APP)
    for flags, said in (
        (("--run-id", "one"), "--journal FILE"),
        (("--journal", "run.db", "--run-id", "one", "--fresh"), "Leave out one of them"),
        (("--journal", "run.db", "--run-id", ""), "run_id"),
        (("--journal", "run.db", "--run-id", "a\nb"), "run_id"),
        (("--journal", "run.db", "--run-id", "x" * 201), "run_id"),
    ):
        for command in ("run", "collector"):
            status, program = workshop.run("-m", "app", command, *flags)
            assert (status, len(program.err.splitlines())) == (2, 1), program.err
            assert said in program.err
    assert not (workshop.folder / "run.db").exists()
