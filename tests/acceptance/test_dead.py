"""`dead`: the way of a failed item from its failure to being collected after all, with real processes."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from zmqpipeline.runtime.journal import peek

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

APP = """
import time
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("mending")

@app.task("C")
def numbers():
    for n in range(30):
        yield {"n": n}

KEYED
@app.worker("C")
def work(data):
    with open("executed", "a") as file:
        file.write(f"{data['n']}\\n")
    if data["n"] in (3, 10, 17) and not Path(f"good{data['n']}").exists():
        raise ValueError(f"no {data['n']} today")
    return data

@app.collector
def collect(data, journal):
    journal.execute("CREATE TABLE IF NOT EXISTS seen (n INTEGER)")
    journal.execute("INSERT INTO seen VALUES (?)", (data["n"],))
    if data["n"] == 20 and not Path("good20").exists():
        raise LookupError("the collector does not like 20")

if __name__ == "__main__":
    app.main()
"""
KEYS = """
@app.task("D", key="name")
def names():
    for name in ("a", "b", "a", "c"):
        yield {"name": name}

@app.worker("D")
def on_names(data):
    if data["name"] != "a" and not Path("names").exists():
        raise ValueError("not this name")
    return {"n": -ord(data["name"])}
"""


def rows(workshop: Workshop) -> list[int]:
    """What is collected."""
    with closing(sqlite3.connect(workshop.folder / "run.db")) as db:
        return [n for (n,) in db.execute("SELECT n FROM seen ORDER BY n")]


def say(workshop: Workshop, *arguments: str, status: int = 0) -> str:
    """What a command of the app prints; the journal is named by the variable."""
    seen, program = workshop.run("-m", "app", *arguments, ZMQPIPELINE_JOURNAL="run.db")
    assert seen == status, program.err
    return program.out


def test_failed_items_are_listed_shown_retried_and_collected(workshop: Workshop) -> None:
    """They fail until a file exists; marked, a new run executes these alone; then the journal is finished and empty."""
    workshop.write("app.py", APP.replace("KEYED", ""))
    say(workshop, "run", status=1)
    assert rows(workshop) == [n for n in range(30) if n not in (3, 10, 17, 20)]
    # in the order in which they failed: two workers and the collector had them
    listed = sorted(json.loads(say(workshop, "dead", "list", "--json")), key=lambda one: one["number"])
    assert [(one["task"], one["number"], one["stage"], one["retrying"]) for one in listed] == [
        ("C", 3, "worker", False),
        ("C", 10, "worker", False),
        ("C", 17, "worker", False),
        ("C", 20, "collector", False),
    ]
    shown = say(workshop, "dead", "show", "C", "10")
    assert all(text in shown for text in ('"n": 10', "ValueError: no 10 today", 'File "', "in work"))

    # three are marked, of which two can be mended
    told = say(workshop, "dead", "retry", "C", "3", "10", "20")
    assert "Marked 3 failed items" in told
    assert "python -m app run --journal run.db" in told
    for name in ("good3", "good20"):
        workshop.write(name, "")
    (workshop.folder / "executed").unlink()
    say(workshop, "run", status=1)
    assert sorted(workshop.numbers("executed")) == [3, 10, 20]
    assert rows(workshop) == [n for n in range(30) if n not in (10, 17)]
    listed = json.loads(say(workshop, "dead", "list", "--json"))
    assert [(one["number"], one["retrying"]) for one in listed] == [(17, False), (10, False)]

    # the others
    assert "Marked 2 failed items" in say(workshop, "dead", "retry", "--all")
    for name in ("good10", "good17"):
        workshop.write(name, "")
    say(workshop, "run")
    assert rows(workshop) == list(range(30))
    assert json.loads(say(workshop, "dead", "list", "--json")) == []
    held = peek(workshop.folder / "run.db")
    assert held is not None
    assert (held.finished, held.ok) == (True, True)
    assert [(one.task, one.collected, one.failed) for one in held.counts] == [("C", 30, 0)]


def test_failed_items_with_keys_are_retried(workshop: Workshop) -> None:
    """A task whose items are known by a key: the retried ones may get other numbers, each key is collected once."""
    workshop.write("app.py", APP.replace("KEYED", KEYS))
    for name in ("good3", "good10", "good17", "good20"):
        workshop.write(name, "")
    say(workshop, "run", status=1)
    expected = [-97, *range(30)]
    assert rows(workshop) == expected
    listed = json.loads(say(workshop, "dead", "list", "--json", "--task", "D"))
    assert len(listed) == 2
    say(workshop, "dead", "retry", "D", *(str(one["number"]) for one in listed))
    workshop.write("names", "")
    say(workshop, "run")
    assert rows(workshop) == [-99, -98, *expected]
    assert json.loads(say(workshop, "dead", "list", "--json")) == []


def test_dead_works_for_an_app_that_is_named(workshop: Workshop) -> None:
    """`zmqpipeline -A app dead ...`: the same, and the command that it names works when it is typed."""
    workshop.write("app.py", APP.replace("KEYED", ""))
    say(workshop, "run", status=1)
    dead = ("-m", "zmqpipeline", "-A", "app", "dead")
    status, program = workshop.run(*dead, "retry", "--all", "--journal", "run.db")
    assert status == 0, program.err
    command = program.out.splitlines()[-1].partition(": ")[2]
    python, *arguments = command.split()
    assert python == "python"
    for number in (3, 10, 17, 20):
        workshop.write(f"good{number}", "")
    assert workshop.run(*arguments)[0] == 0
    assert rows(workshop) == list(range(30))
