"""Results that become items, in real processes, any of which is killed on the way; with a journal, all of them."""

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

from tests.support.apps import GOES_NO_FURTHER

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Eventually = Callable[..., None]

PAGES = 700

APP = f"""
import os, time
from zmqpipeline import Pipeline

app = Pipeline("crawl")
PAGES = {PAGES}


def note(name, value):
    with open(name, "a") as file:
        file.write(f"{{value}}\\n")

{GOES_NO_FURTHER}

@app.task("page", first=[{{"url": 0}}], for_each="page", key="url")
def links(page):
    yield from ({{"url": url}} for url in page["links"])


@app.worker("page")
def fetch(data):
    time.sleep(0.002)
    url = data["url"]
    note("fetched", url)
    go_no_further("fetched")
    return {{"url": url, "links": [(2 * url + 1) % PAGES, (3 * url + 2) % PAGES]}}


@app.task("word", for_each="page")
def words(page):
    return [{{"url": page["url"], "word": word}} for word in range(page["url"] % 3)]


@app.worker("word")
def count(data):
    return data


COLLECTOR


if __name__ == "__main__":
    app.main()
"""

PLAIN = """
@app.collector("page")
def keep(data):
    note("pages", data["url"])


@app.collector
def keep_word(data):
    note("words", f"{data['url']} {data['word']}")
"""

JOURNALLED = """
@app.collector("page")
def keep(data, journal):
    journal.execute("CREATE TABLE IF NOT EXISTS pages (url)")
    journal.execute("INSERT INTO pages VALUES (?)", (data["url"],))


@app.collector
def keep_word(data, journal):
    journal.execute("CREATE TABLE IF NOT EXISTS words (url, word)")
    journal.execute("INSERT INTO words VALUES (?, ?)", (data["url"], data["word"]))
"""


def reached() -> set[int]:
    """The pages that there are links to, from page 0 on."""
    found, left = {0}, [0]
    while left:
        url = left.pop()
        for one in ((2 * url + 1) % PAGES, (3 * url + 2) % PAGES):
            if one not in found:
                found.add(one)
                left.append(one)
    return found


def words() -> set[tuple[int, int]]:
    """The words of these."""
    return {(url, word) for url in reached() for word in range(url % 3)}


def fetched(workshop: Workshop) -> int:
    """How many pages were fetched so far, some perhaps twice."""
    return len(workshop.lines("fetched"))


@pytest.mark.parametrize("victim", ["distributor", "collector", "worker"])
def test_any_one_process_may_die(victim: str, workshop: Workshop, eventually: Eventually) -> None:
    """Without a journal: started again, or not (a worker), it loses nothing, and the run ends when all is done."""
    workshop.write("app.py", APP.replace("COLLECTOR", PLAIN))
    workshop.write("most", str(len(reached()) * 3 // 4))
    started = {
        "collector": workshop.start("-m", "app", "collector"),
        "distributor": workshop.start("-m", "app", "distributor"),
        "worker": workshop.start("-m", "app", "worker", "page"),
    }
    others = [workshop.start("-m", "app", "worker", name) for name in ("page", "page", "word")]
    for part in (1, 2):
        eventually(lambda part=part: fetched(workshop) > part * len(reached()) // 4, "a part of the pages")
        started[victim].signal(signal.SIGKILL)
        started[victim].wait()
        if victim == "worker":
            started[victim] = workshop.start("-m", "app", "worker", "page")
        else:
            started[victim] = workshop.start("-m", "app", victim)
    workshop.write("most", "1000000")
    for one in (*started.values(), *others):
        assert one.wait(60) == 0, one.err
    pages = Counter(workshop.numbers("pages"))
    assert set(pages) == reached()
    assert set(workshop.lines("words")) == {f"{url} {word}" for url, word in words()}
    if victim != "collector":
        assert set(pages.values()) == {1}
    assert not list(Path(workshop.folder).rglob("*.outbox*"))


@pytest.mark.parametrize("seed", [1, 2])
def test_with_a_journal_all_of_them_may_die(seed: int, workshop: Workshop, eventually: Eventually) -> None:
    """kill -9 of everything at random moments, and the same command again: each page and each word is one row."""
    workshop.write("app.py", APP.replace("COLLECTOR", JOURNALLED))
    command = ("-m", "app", "run", "--journal", "run.db", "--workers", "page=2,word=1", "--json")
    rng = random.Random(seed)
    for mark in sorted(rng.sample(range(1, len(reached())), 5)):
        goal = max(mark, fetched(workshop) + 1)
        workshop.write("most", f"{goal}")
        program = workshop.start(*command)
        eventually(lambda goal=goal: fetched(workshop) >= goal, f"{goal} pages")
        kill(program)
    workshop.write("most", "1000000")
    status, program = workshop.run(*command)
    assert status == 0, program.err
    with closing(sqlite3.connect(workshop.folder / "run.db")) as db:
        pages = [url for (url,) in db.execute("SELECT url FROM pages")]
        stored = list(db.execute("SELECT url, word FROM words"))
        left = db.execute("SELECT count(*) FROM zmqpipeline_outbox").fetchone()
    assert sorted(pages) == sorted(reached())
    assert sorted(stored) == sorted(words())
    assert left == (0,)
    # what was in flight at each of five deaths: at most what two workers had at hand
    assert fetched(workshop) < len(reached()) + 5 * 200


def kill(program: Program) -> None:
    """kill -9 of everything that the command has started, itself included."""
    program.signal(signal.SIGKILL, group=True)
    assert program.wait() == -signal.SIGKILL


def test_a_failed_result_is_tried_again_and_then_gives_its_items(workshop: Workshop) -> None:
    """A function that raised for a result has left nothing; `dead retry`, and the next run makes the items of it.

    An item that such a function gave, and that failed in its worker, is still there, too.
    """
    broken = """
@app.task("word", for_each="page")
def words(page):
    for word in range(page["url"] % 3):
        yield {"url": page["url"], "word": word}
        import os
        if page["url"] == 7 and not os.path.exists("mended"):
            raise ValueError("seven")
"""
    picky = """
def count(data):
    import os
    if data == {"url": 2, "word": 1} and not os.path.exists("mended"):
        raise LookupError("two")
    return data
"""
    text = APP.replace("COLLECTOR", JOURNALLED).replace("def count(data):\n    return data\n", picky.lstrip())
    begin, end = text.index('@app.task("word"'), text.index('@app.worker("word")')
    workshop.write("app.py", text[:begin] + broken.lstrip() + "\n\n" + text[end:])
    command = ("-m", "app", "run", "--journal", "run.db", "--workers", "1", "--json")
    status, program = workshop.run(*command)
    assert status == 1
    assert program.json["failures"] == 2
    status, dead = workshop.run("-m", "app", "dead", "list", "--journal", "run.db")
    assert "feed" in dead.out
    assert "seven" in dead.out
    assert "two" in dead.out
    workshop.write("mended", "")
    assert workshop.run("-m", "app", "dead", "retry", "--journal", "run.db", "--all")[0] == 0
    status, program = workshop.run(*command)
    assert status == 0, program.err
    with closing(sqlite3.connect(workshop.folder / "run.db")) as db:
        assert sorted(db.execute("SELECT url, word FROM words")) == sorted(words())
        assert sorted(url for (url,) in db.execute("SELECT url FROM pages")) == sorted(reached())


SEVERAL = """
from zmqpipeline import Pipeline

app = Pipeline("several")


@app.task("page")
def pages():
    for n in range(40):
        yield {"n": n}


@app.worker("page")
def fetch(data):
    return data


@app.task("word", for_each="page")
def words(page):
    if page["n"] % 7 == 3:
        raise ValueError("three")
    return page


app.add_task("copy", for_each="page")


@app.task("link", for_each="page")
def links(page, number):
    yield {"n": page["n"], "number": number}


@app.worker("word")
def count(data):
    return data


@app.worker("copy")
def copy(data):
    return data


@app.worker("link")
def follow(data):
    return data


@app.collector
def keep(data, task_type):
    with open(task_type, "a") as file:
        file.write(f"{data['n']} {data.get('number', data['n'])}\\n")


if __name__ == "__main__":
    app.main()
"""


def test_a_function_that_raises_does_not_shift_what_others_get(workshop: Workshop) -> None:
    """Three tasks are fed by one; if the function of the first raises for a result, the others go on with the next."""
    workshop.write("app.py", SEVERAL)
    status, program = workshop.run("-m", "app", "run", "--workers", "1", "--json")
    assert status == 1, program.err
    assert program.json["failures"] == 6
    whole = {f"{n} {n}" for n in range(40) if n % 7 != 3}
    for task in ("word", "copy", "link"):
        found = workshop.lines(task)
        assert len(found) == len(whole), task
        assert set(found) == whole, task
