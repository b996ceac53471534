"""Results that are gathered by what they came of, in real processes, any of which is killed; with a journal, all."""

from __future__ import annotations

import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_stages import kill
from tests.support.apps import GOES_NO_FURTHER

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Eventually = Callable[..., None]

BOOKS = 60
"""The book n has n % 5 chapters, and each of these two pages; the first one of every third book is torn, and fails."""

APP = f"""
import os, time
from zmqpipeline import Pipeline

app = Pipeline("library")


def note(name, value):
    with open(name, "a") as file:
        file.write(f"{{value}}\\n")

{GOES_NO_FURTHER}

@app.task("book")
def books():
    for n in range({BOOKS}):
        yield {{"n": n}}


@app.worker("book")
def open_book(data):
    return data


@app.task("chapter", for_each="book")
def chapters(book):
    for place in range(book["n"] % 5):
        yield {{"n": book["n"], "place": place}}


@app.worker("chapter")
def open_chapter(data):
    if data["n"] % 3 == 0 and data["place"] == 0 and not os.path.exists("mended"):
        raise ValueError("torn")
    return data


@app.task("page", for_each="chapter")
def pages(chapter):
    return [{{**chapter, "page": page}} for page in range(2)]


@app.worker("page")
def read(data):
    time.sleep(0.002)
    note("read", data["n"])
    go_no_further("read")
    return data


@app.task("total", for_each="page", gather="book")
def total(book, pages, failures):
    if book["n"] in (6, 7) and os.path.exists("broken"):
        raise LookupError("six or seven")
    assert all(page["n"] == book["n"] for page in pages)
    return {{"n": book["n"], "pages": len(pages), "failed": len(failures)}}


@app.worker("total")
def store(data):
    return data


COLLECTOR


if __name__ == "__main__":
    app.main()
"""

PLAIN = """
@app.collector
def keep(data):
    note("totals", f"{data['n']} {data['pages']} {data['failed']}")
"""

JOURNALLED = """
@app.collector
def keep(data, journal):
    journal.execute("CREATE TABLE IF NOT EXISTS totals (n, pages, failed)")
    journal.execute("INSERT INTO totals VALUES (:n, :pages, :failed)", data)


@app.collector("page")
def keep_page(data, journal):
    journal.execute("CREATE TABLE IF NOT EXISTS pages (n, place, page)")
    journal.execute("INSERT INTO pages VALUES (:n, :place, :page)", data)
"""

RUN = ("-m", "app", "run", "--journal", "run.db", "--workers", "page=2,chapter=1,book=1,total=1", "--json")


def expected() -> list[tuple[int, int, int]]:
    """Of each book, the pages of the chapters that did not fail, and how many failed."""
    torn = {n: int(n % 3 == 0 and n % 5 > 0) for n in range(BOOKS)}
    return [(n, 2 * (n % 5 - torn[n]), torn[n]) for n in range(BOOKS)]


def tables(workshop: Workshop) -> tuple[list[tuple[int, ...]], int, list[int]]:
    """The totals in the journal, how many pages there are, and what is left of groups."""
    with closing(sqlite3.connect(workshop.folder / "run.db")) as db:
        totals = sorted(db.execute("SELECT n, pages, failed FROM totals"))
        (pages,) = db.execute("SELECT count(*) FROM pages").fetchone()
        ours = ("groups", "parents", "members", "gathered")
        left = [db.execute(f"SELECT count(*) FROM zmqpipeline_{one}").fetchone()[0] for one in ours]
    return totals, pages, left


@pytest.mark.parametrize("victim", ["distributor", "collector", "worker"])
def test_any_one_process_may_die(victim: str, workshop: Workshop, eventually: Eventually) -> None:
    """Without a journal: each group is given once, with all that came of its parent."""
    workshop.write("app.py", APP.replace("COLLECTOR", PLAIN))
    workshop.write("most", str(BOOKS * 5 // 2))
    started = {
        "collector": workshop.start("-m", "app", "collector"),
        "distributor": workshop.start("-m", "app", "distributor"),
        "worker": workshop.start("-m", "app", "worker", "page"),
    }
    others = [workshop.start("-m", "app", "worker", name) for name in ("book", "chapter", "total")]
    for part in (1, 2):
        eventually(lambda part=part: len(workshop.lines("read")) > part * BOOKS, "a part of the pages")
        started[victim].signal(signal.SIGKILL)
        started[victim].wait()
        role = ("worker", "page") if victim == "worker" else (victim,)
        started[victim] = workshop.start("-m", "app", *role)
    workshop.write("most", "1000000")
    # torn chapters are failed items
    statuses = {name: one.wait(60) for name, one in started.items()}
    assert statuses == {"collector": 1, "distributor": 1, "worker": 0}, started["collector"].err
    assert {one.wait(60) for one in others} == {0}
    totals = Counter(workshop.lines("totals"))
    assert set(totals) == {f"{n} {pages} {failed}" for n, pages, failed in expected()}
    if victim != "collector":
        assert set(totals.values()) == {1}
    assert not list(Path(workshop.folder).rglob("*.outbox*"))


@pytest.mark.parametrize("seed", [1, 2])
def test_with_a_journal_all_of_them_may_die(seed: int, workshop: Workshop, eventually: Eventually) -> None:
    """kill -9 of everything at random moments, and the same command again: each total is one row, and is right."""
    workshop.write("app.py", APP.replace("COLLECTOR", JOURNALLED))
    rng = random.Random(seed)
    many = sum(pages for _, pages, _ in expected())
    for mark in sorted(rng.sample(range(1, many), 5)):
        goal = max(mark, len(workshop.lines("read")) + 1)
        workshop.write("most", f"{goal}")
        program = workshop.start(*RUN)
        eventually(lambda goal=goal: len(workshop.lines("read")) >= goal, f"{goal} pages")
        kill(program)
    workshop.write("most", "1000000")
    status, program = workshop.run(*RUN)
    assert status == 1, program.err
    assert tables(workshop) == (expected(), many, [0, 0, 0, 0])
    # the run is over: nothing is called again
    before = len(workshop.lines("read"))
    assert workshop.run(*RUN)[0] == 1
    assert len(workshop.lines("read")) == before
    assert tables(workshop) == (expected(), many, [0, 0, 0, 0])


def test_dead_letters_of_groups_are_tried_again(workshop: Workshop) -> None:
    """The groups whose function raised are given then, and wait for their torn chapters, if these are tried again.

    Of one of them the last item had failed by itself. A chapter that was torn when its group was given is read, and
    no group is given twice.
    """
    workshop.write("app.py", APP.replace("COLLECTOR", JOURNALLED).replace('["n"] % 3 == 0', '["n"] in (6, 7, 9)'))
    workshop.write("broken", "")
    status, program = workshop.run(*RUN)
    assert status == 1
    assert program.json["failures"] == 4
    assert "The gather= function raised LookupError: six or seven" in program.err
    totals, pages, left = tables(workshop)
    assert {n for n, _, _ in totals} == set(range(BOOKS)) - {6, 7}
    assert (9, 6, 1) in totals
    assert left[0] == 2
    dead = workshop.run("-m", "app", "dead", "list", "--journal", "run.db")[1].out
    assert "gather" in dead
    assert "six or seven" in dead
    workshop.write("mended", "")
    (workshop.folder / "broken").unlink()
    assert workshop.run("-m", "app", "dead", "retry", "--journal", "run.db", "--all")[0] == 0
    status, program = workshop.run(*RUN)
    assert status == 0, program.err
    after, pages, left = tables(workshop)
    assert pages == sum(2 * (n % 5) for n in range(BOOKS))
    assert after == sorted([*totals, (6, 2, 0), (7, 4, 0)])
    assert left == [0, 0, 0, 0]


DYING = """
import os, signal
from zmqpipeline import Pipeline

app = Pipeline("dying")


def die_once(where):
    if not os.path.exists(where):
        open(where, "w").close()
        os.kill(0, signal.SIGKILL)


app.add_task("A", lambda: [{"n": n} for n in range(3)])
app.add_task("B", lambda parent: [{"n": parent["n"], "m": m} for m in range(parent["n"])], for_each="A")


@app.task("C", for_each="B", gather="A")
def together(parent, results):
    yield {"n": parent["n"], "many": len(results)}
    if parent["n"] == WHICH:
        die_once("in the function")
    yield {"n": parent["n"], "many": len(results)}


for name in "ABC":
    app.add_worker(name, dict)


@app.collector("B")
def between(data, journal):
    if data["n"] == WHICH:
        die_once("in the collector")


@app.collector
def keep(data, journal):
    journal.execute("CREATE TABLE IF NOT EXISTS given (n, many)")
    journal.execute("INSERT INTO given VALUES (:n, :many)", data)


if __name__ == "__main__":
    app.main()
"""


@pytest.mark.parametrize("which", [0, 1], ids=["without children", "with a child"])
def test_a_death_while_a_group_is_given(which: int, workshop: Workshop) -> None:
    """kill -9 of everything in the function, and in the collector's one that is called after it: given once."""
    workshop.write("app.py", DYING.replace("WHICH", str(which)))
    command = ("-m", "app", "run", "--journal", "run.db", "--json")
    for _ in range(1 + which):
        program = workshop.start(*command)
        assert program.wait(60) == -signal.SIGKILL, program.err
    status, program = workshop.run(*command)
    assert status == 0, program.err
    with closing(sqlite3.connect(workshop.folder / "run.db")) as db:
        assert sorted(db.execute("SELECT n, many FROM given")) == [(n, n) for n in range(3) for _ in range(2)]
