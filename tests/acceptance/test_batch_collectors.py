"""Collectors that take lists, as real processes that are killed."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import RUN, start

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

COLLECTS = """
app.task("C")(lambda: items(5000))
app.worker("C")(lambda data: data)

@app.collector("C", batch=1000)
def gather(many, numbers, journal, task_type):
    if not Path("sizes").exists():
        # so that there is much at hand for the next call
        time.sleep(1)
    note("sizes", len(many))
    assert [one["n"] for one in many] == list(numbers)
    journal.execute("CREATE TABLE IF NOT EXISTS rows (n)")
    if not Path("killed").exists() and many[-1]["n"] > 2000:
        Path("killed").touch()
        journal.executemany("INSERT INTO rows VALUES (?)", [(one["n"],) for one in many])
        os.kill(os.getpid(), signal.SIGKILL)
    journal.executemany("INSERT INTO rows VALUES (?)", [(one["n"],) for one in many])
    if any(one["n"] % 1000 == 77 for one in many):
        raise ValueError("a row that the table does not take")

@app.failed
def failed(failure):
    note("failed", f"{failure.data['n']} {failure.stage} {failure.error}")
"""


def test_a_collector_takes_lists_in_one_transaction(workshop: Workshop) -> None:
    """Killed in the middle of a list and started again: each row is there once, but for those that are refused."""
    workshop.write("killed", "")
    (workshop.folder / "killed").unlink()
    first = start(workshop, COLLECTS, *RUN, "--workers", "1", "--journal", "run.db")
    assert first.wait() == -9, first.err
    program = workshop.start(*RUN, "--workers", "1", "--journal", "run.db")
    assert program.wait() == 1, program.err
    bad = [n for n in range(5000) if n % 1000 == 77]
    assert sorted(set(workshop.lines("failed"))) == sorted(f"{n} collector ValueError" for n in bad)
    with sqlite3.connect(workshop.folder / "run.db") as rows:
        found = [n for (n,) in rows.execute("SELECT n FROM rows")]
    assert sorted(found) == [n for n in range(5000) if n not in bad]
    sizes = workshop.numbers("sizes")
    assert 50 < max(sizes) <= 1000, sizes


def test_lists_of_a_collector_in_a_test_run(workshop: Workshop) -> None:
    """For all tasks, with types, in a test run and in a simulation; what does not fit or raises fails alone."""
    workshop.write(
        "test_lists.py",
        """
from dataclasses import dataclass
import pytest
from zmqpipeline import Pipeline
from zmqpipeline.testing import SimulatedPipeline

@dataclass
class Row:
    n: int

def lists(seen, bad=()):
    app = Pipeline("lists")
    app.add_task("C", lambda: ({"n": n if n != 5 or not bad else "five"} for n in range(50)))
    app.add_worker("C", lambda data: data)

    @app.collector(batch=8)
    def gather(rows: list[Row]):
        if any(row.n in bad for row in rows):
            raise KeyError("bad")
        seen.extend(row.n for row in rows)

    return app

def test_all():
    seen = []
    run = lists(seen).test_run()
    assert sorted(seen) == list(range(50)) == sorted(data["n"] for _, data in run.results)

def test_bad():
    seen = []
    run = lists(seen, bad=[3]).test_run(raise_failures=False)
    assert sorted(seen) == [n for n in range(50) if n not in (3, 5)]
    assert sorted(one.error for one in run.failures) == ["KeyError", "zmqpipeline.errors.FieldError"]
    with pytest.raises(Exception):
        lists(seen, bad=[3]).test_run()

@pytest.mark.parametrize("seed", range(3))
def test_simulated(seed):
    seen = []
    SimulatedPipeline(lists(seen), seed=seed).run()
    assert set(seen) == set(range(50))

def test_what_it_may_not_take():
    with pytest.raises(TypeError, match="'number', which nobody provides.*numbers"):
        Pipeline("x").collector(batch=3)(lambda rows, number: None)
    with pytest.raises(TypeError, match="batch must be a whole number"):
        Pipeline("x").add_collector(print, batch=0)
    with pytest.raises(TypeError, match="Did you mean 'batch'"):
        Pipeline("x").collector("C", bach=3)
""",
    )
    status, program = workshop.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_lists.py")
    assert status == 0, program.out
