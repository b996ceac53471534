"""Runs with a journal: everything may be killed, and the same command goes on; each item is collected once."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from zmqpipeline.runtime.journal import peek

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop
from tests.support.apps import GOES_NO_FURTHER
from tests.support.journalled_apps import APP, RUN, Eventually, rows

pytestmark = pytest.mark.processes

SHUFFLED = """
@app.task("C", key="n")
def numbers():
    note("distributors", os.getpid())
    items = [n % ITEMS for n in range(ITEMS + ITEMS // 4)]
    random.shuffle(items)
    for n in items:
        yield {"n": n}

"""
KEYED = APP[: APP.index('@app.task("C")')] + SHUFFLED.lstrip() + APP[APP.index('@app.worker("C"') :]


def count(workshop: Workshop) -> int:
    """How many rows there are: quicker than to read them all, while a run goes on."""
    with closing(sqlite3.connect(f"file:{workshop.folder / 'run.db'}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM seen").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # no table yet, or no file in WAL mode yet


def kill(program: Program) -> None:
    """kill -9 of everything that the command has started, itself included."""
    program.signal(signal.SIGKILL, group=True)
    assert program.wait() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("text", [APP, KEYED], ids=["numbers", "keys in another order each time"])
def test_a_run_that_is_killed_again_and_again(text: str, workshop: Workshop, eventually: Eventually) -> None:
    """kill -9 of the whole group at random moments, and the same command again: each item is one row, at the end."""
    workshop.write("app.py", text)
    rng = random.Random()
    marks = sorted(rng.sample(range(1, 1300), 4))
    print("killed when so many items had been executed:", marks)
    for mark in marks:
        goal = max(len(workshop.lines("executed")) + 1, mark)
        workshop.write("most", f"{goal}")
        program = workshop.start(*RUN)
        eventually(lambda goal=goal: len(workshop.lines("executed")) >= goal, f"{goal} items executed")
        kill(program)
        assert sorted(set(rows(workshop))) == rows(workshop)
    workshop.write("most", "1000000")
    status, program = workshop.run(*RUN)
    assert status == 0, program.err
    assert rows(workshop) == list(range(1500))
    assert program.json["tasks"]["C"]["collected"] == 1500
    assert program.json["failures"] == 0
    held = peek(workshop.folder / "run.db")
    assert held is not None
    assert (held.finished, held.ok) == (True, True)


QUICK = (
    APP[: APP.index('@app.worker("C"')]
    .replace('note("distributors", os.getpid())', 'end = int(os.environ.get("END", "-1"))')
    .replace("        yield", "        n == end and time.sleep(1000)\n        yield")
    + """
@app.worker("C")
def work(data):
    return data

"""
    + APP[APP.index("@app.collector") :]
)
"""The same with items that take no time and leave no trace but their rows. Before the item END it goes no further."""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_kills_among_items_that_take_no_time(workshop: Workshop, eventually: Eventually) -> None:
    """kill -9 of everything at five random moments; in the end there are exactly so many rows, each item once."""
    workshop.write("app.py", QUICK)
    rng = random.Random()
    items = 40_000
    for _ in range(5):
        goal = (count(workshop) if (workshop.folder / "run.db").exists() else 0) + rng.randint(1, 2000)
        program = workshop.start(*RUN, ITEMS=str(items), END=str(goal + 5000))
        eventually(
            lambda goal=goal: (workshop.folder / "run.db").exists() and count(workshop) >= goal,
            f"{goal} items collected",
        )
        kill(program)
    assert count(workshop) < items, "it was over before the last kill"
    status, program = workshop.run(*RUN, ITEMS=str(items))
    assert status == 0, program.err
    assert rows(workshop) == list(range(items))


def test_a_run_that_is_killed_before_it_begins(workshop: Workshop, eventually: Eventually) -> None:
    """kill -9 as soon as the journal is there, before the first item: the next one does all of it."""
    workshop.write("app.py", APP)
    for _ in range(3):
        program = workshop.start(*RUN, SECONDS="1000")
        eventually(lambda: (workshop.folder / "run.db").exists(), "the journal")
        kill(program)
    status, program = workshop.run(*RUN, ITEMS="20")
    assert status == 0, program.err
    assert rows(workshop) == list(range(20))


@pytest.mark.slow
def test_a_distributor_that_is_killed_takes_the_run_over(workshop: Workshop, eventually: Eventually) -> None:
    """kill -9 of the distributor, twice, in the middle of a run with a journal: each item is one row."""
    workshop.write("app.py", APP)
    workshop.write("most", "400")
    program = workshop.start(*RUN)
    for count, (mark, most) in enumerate(((200, 1000), (700, 1_000_000))):
        eventually(lambda mark=mark: len(rows(workshop)) > mark, f"more than {mark} items collected")
        # workers go on without one for a while, with what they have
        eventually(lambda count=count: len(workshop.lines("distributors")) > count, "the next distributor")
        os.kill(workshop.numbers("distributors")[-1], signal.SIGKILL)
        workshop.write("most", f"{most}")
    assert program.wait() == 0, program.err
    assert rows(workshop) == list(range(1500))
    assert len(workshop.lines("distributors")) == 3


@pytest.mark.slow
def test_a_drained_run_goes_on(workshop: Workshop, eventually: Eventually) -> None:
    """SIGTERM ends it with 143 and leaves the journal open; the next one does the rest, and executes nothing twice."""
    workshop.write("app.py", APP)
    workshop.write("most", "500")
    program = workshop.start(*RUN)
    eventually(lambda: len(rows(workshop)) > 100, "more than 100 items collected")
    program.signal(signal.SIGTERM)
    eventually(lambda: "The run drains" in program.err, "the run drains")
    workshop.write("most", "1000000")
    assert program.wait() == 143, program.err
    done = len(rows(workshop))
    assert 100 < done < 1500
    status, program = workshop.run(*RUN)
    assert status == 0, program.err
    assert rows(workshop) == sorted(workshop.numbers("executed")) == list(range(1500))


@pytest.mark.slow
def test_a_finished_run_is_not_started_again(workshop: Workshop) -> None:
    """`run` says so, with the counts, and status 0; --json gives the usual object; --fresh starts again."""
    workshop.write("app.py", APP)
    run = ("-m", "app", "run", "--journal", "run.db")
    assert workshop.run(*run, ITEMS="30")[0] == 0
    status, program = workshop.run(*run)
    assert status == 0, program.err
    first, second = program.err.splitlines()
    assert first == "lasting: already finished, says the journal run.db; --fresh starts again"
    assert second == "  C: sent 30, collected 30"
    status, again = workshop.run("-m", "app", "run", "--json", ZMQPIPELINE_JOURNAL="run.db")
    assert status == 0
    assert (again.json["ok"], again.json["status"], again.json["tasks"]["C"]["collected"]) == (True, 0, 30)
    assert len(workshop.lines("executed")) == 30
    status, program = workshop.run(*run, "--fresh", "--json", ITEMS="5")
    assert status == 0, program.err
    assert program.json["tasks"]["C"]["collected"] == 5
    assert len(workshop.lines("executed")) == 35


@pytest.mark.slow
def test_fresh_leaves_the_tables_of_the_user_alone(workshop: Workshop) -> None:
    """It clears what the journal knows of the run, and nothing else: rows of the first run are there beside the new."""
    workshop.write("app.py", APP)
    for _ in range(2):
        status, program = workshop.run(*RUN, "--fresh", ITEMS="10")
        assert status == 0, program.err
    assert rows(workshop) == sorted([*range(10), *range(10)])


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_metadata_only(workshop: Workshop, eventually: Eventually) -> None:
    """Other metadata than the unfinished journal holds are refused, by key and values; the same, or none, go on."""
    workshop.write("app.py", APP)
    workshop.write("most", "100")
    program = workshop.start(*RUN, "--meta", "path=/usr")
    eventually(lambda: len(rows(workshop)) > 10, "more than ten items collected")
    kill(program)
    for given, seen in (("path=/tmp", "path='/usr'"), ("depth=3", "no 'depth'"), ("made=there", "made='here'")):
        key, _, value = given.partition("=")
        status, program = workshop.run("-m", "app", "run", "--journal", "run.db", "--meta", given)
        assert status == 2
        assert program.err == (
            f"Error: The unfinished run in the journal run.db has the metadata {seen}, but {key}={value!r} "
            "was given. Leave --meta out to go on with the run, or --fresh to start again.\n"
        )
    workshop.write("most", "1000000")
    status, program = workshop.run(*RUN, "--meta", "path=/usr", ITEMS="200")
    assert status == 0, program.err
    assert rows(workshop) == list(range(200))


@pytest.mark.slow
def test_a_lone_distributor_with_other_metadata_is_refused(workshop: Workshop, eventually: Eventually) -> None:
    """It meets a collector that holds the run with other metadata: one line, status 2; the next one goes on."""
    workshop.write("app.py", APP)
    workshop.write("most", "100")
    collector, worker = (
        workshop.start("-m", "app", *role.split()) for role in ("collector --journal run.db", "worker")
    )
    first = workshop.start("-m", "app", "distributor", "--meta", "path=/usr", ITEMS="300")
    eventually(lambda: len(rows(workshop)) > 10, "more than ten items collected")
    first.signal(signal.SIGKILL)
    status, second = workshop.run("-m", "app", "distributor", "--meta", "path=/tmp")
    assert status == 2
    assert second.err == (
        "Error: The unfinished run has the metadata path='/usr', but path='/tmp' was given. "
        "Leave --meta out to go on with the run, or --fresh to start again.\n"
    )
    workshop.write("most", "1000000")
    third = workshop.start("-m", "app", "distributor", ITEMS="300")
    assert [one.wait() for one in (third, worker, collector)] == [0, 0, 0], third.err
    assert rows(workshop) == list(range(300))


@pytest.mark.slow
def test_roles_that_are_all_killed_go_on(workshop: Workshop, eventually: Eventually) -> None:
    """Collector with a journal, distributor and workers, started one by one, all killed, and all started again."""
    workshop.write("app.py", APP)
    workshop.write("most", "400")
    roles = ("collector --journal run.db", "distributor", "worker", "worker")
    programs = [workshop.start("-m", "app", *role.split(), SECONDS="0.01") for role in roles]
    eventually(lambda: len(rows(workshop)) > 100, "more than 100 items collected")
    programs[0].signal(signal.SIGKILL)
    programs[0].wait()
    programs[0] = workshop.start("-m", "app", *roles[0].split())
    workshop.write("most", "900")
    mark = len(rows(workshop)) + 100
    eventually(lambda: len(rows(workshop)) > mark, "100 more items collected by the next collector")
    for program in programs:
        kill(program)
    assert len(rows(workshop)) < 1500
    workshop.write("most", "1000000")
    programs = [workshop.start("-m", "app", *role.split()) for role in roles]
    assert [program.wait() for program in programs] == [0, 0, 0, 0], [program.err for program in programs]
    assert rows(workshop) == list(range(1500))


@pytest.mark.slow
def test_a_lone_collector_says_that_the_run_is_finished(workshop: Workshop) -> None:
    """On a finished journal it tells a distributor so, which ends with 0, and ends itself after 10 s, with 0."""
    workshop.write("app.py", APP)
    assert workshop.run(*RUN, ITEMS="5")[0] == 0
    collector = workshop.start("-m", "app", "collector", "--journal", "run.db")
    status, distributor = workshop.run("-m", "app", "distributor")
    assert status == 0, distributor.err
    assert collector.wait() == 0, collector.err
    assert len(workshop.lines("executed")) == 5


SCRIPT = """
if __name__ == "__main__":
    import logging
    from pathlib import Path
    from zmqpipeline.errors import JournalError
    logging.basicConfig()
    path = Path("run.db")
    first = app.run(journal=path, metadata={"day": (1, 2)})
    again = app.run(journal=str(path))
    assert first.ok and again.ok
    assert first.tasks["C"] == again.tasks["C"], again
    try:
        app.run(journal=__file__)
    except JournalError as error:
        print(error)
"""


def test_app_run_takes_a_journal(workshop: Workshop) -> None:
    """`app.run(journal=...)`, as a path or a str; on a finished one it returns the summary, and says so in the log."""
    workshop.write("script.py", APP[: APP.index("if __name__")] + SCRIPT)
    status, script = workshop.run("script.py", ITEMS="50")
    assert status == 0, script.err
    assert rows(workshop) == list(range(50))
    assert script.err.count("is already finished, says the journal run.db: nothing was started") == 1
    assert "script.py" in script.out
    assert not list(Path(workshop.folder).glob("*.lock"))


LOCKSTEP = (
    """
import os, time
from zmqpipeline import Pipeline

app = Pipeline("lockstep")
at = {"n": 0}

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")
"""
    + GOES_NO_FURTHER
    + """
@app.task("A")
def numbers():
    note("distributors", os.getpid())
    for n in range(40):
        at["n"] = n
        yield {"n": n}

@app.available("A")
def is_close(last_ack_data):
    return at["n"] <= last_ack_data.get("collected", -1) + 3

@app.worker("A")
def work(data):
    go_no_further(data["n"])
    time.sleep(0.02)
    return data

@app.collector
def collect(data):
    note("collected", data["n"])
    return {"collected": data["n"]}

if __name__ == "__main__":
    app.main()
"""
)


@pytest.mark.slow
def test_a_gate_that_reads_ack_data_outlives_its_distributor(workshop: Workshop, eventually: Eventually) -> None:
    """A new one knows what the last ACK carried: it hands out what the gate lets through, and the run ends well."""
    workshop.write("app.py", LOCKSTEP)
    workshop.write("most", "20")
    program = workshop.start("-m", "app", "run", "--no-progress")
    eventually(lambda: len(workshop.lines("collected")) >= 8, "8 items collected")
    os.kill(workshop.numbers("distributors")[0], signal.SIGKILL)
    workshop.write("most", "1000")
    assert program.wait() == 0, program.err
    assert len(workshop.lines("distributors")) == 2
    assert sorted(workshop.numbers("collected")) == list(range(40))


@pytest.mark.slow
def test_a_gate_that_reads_ack_data_outlives_everybody(workshop: Workshop, eventually: Eventually) -> None:
    """The journal keeps what the last ACK carried."""
    workshop.write("app.py", LOCKSTEP)
    workshop.write("most", "20")
    program = workshop.start("-m", "app", "run", "--no-progress", "--journal", "run.db")
    eventually(lambda: len(workshop.lines("collected")) >= 8, "8 items collected")
    kill(program)
    workshop.write("most", "1000")
    status, program = workshop.run("-m", "app", "run", "--no-progress", "--journal", "run.db")
    assert status == 0, program.err
    assert set(workshop.numbers("collected")) == set(range(40))


RAISING = """
import os
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("raising")

@app.metadata
def metadata():
    if os.environ.get("FAIL") == "metadata":
        raise ValueError("no metadata yet")
    return {"names": {"a", "b", "c", "d"}}

@app.task("C", key="words")
def numbers():
    for n in range(10):
        if n == 5 and os.environ.get("FAIL") == "source":
            raise ValueError("no more today")
        yield {"n": n, "words": {"x", "y", f"w{n}", f"v{n}"}}

@app.worker("C")
def work(data):
    return data

@app.collector
def collect(data, journal):
    journal.execute("CREATE TABLE IF NOT EXISTS seen (n INTEGER)")
    journal.execute("INSERT INTO seen VALUES (?)", (data["n"],))

if __name__ == "__main__":
    app.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", ["source", "metadata"])
def test_a_run_whose_source_raised_goes_on_when_it_is_started_again(part: str, workshop: Workshop) -> None:
    """Status 1, and no word of "finished"; then the rest is sent. Keys that are sets are known again."""
    workshop.write("app.py", RAISING)
    status, program = workshop.run(*RUN, FAIL=part)
    assert status == 1, program.err
    assert rows(workshop) == list(range(5 if part == "source" else 0))
    status, program = workshop.run(*RUN)
    assert status == 0, program.err
    assert rows(workshop) == list(range(10))
    held = peek(workshop.folder / "run.db")
    assert held is not None
    assert (held.finished, held.ok) == (True, True)


TOLD = """
import os
from zmqpipeline import Pipeline
from zmqpipeline.errors import PipelineError

app = Pipeline("told")

@app.task("C")
def numbers():
    yield {"n": 1}
    raise ValueError("no more today")

@app.worker("C")
def work(data):
    return data

@app.collector
def collect(data):
    pass

if __name__ == "__main__":
    names = {"/usr", "/home", "/opt", "/var", *os.environ["MORE"].split()}
    try:
        app.run(journal="run.db", metadata={"names": names}, progress=False)
    except (PipelineError, ValueError) as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_metadata_that_hold_a_set_are_known_again(workshop: Workshop) -> None:
    """They are told at each start, packed in the order of that process: the same ones all the same."""
    workshop.write("app.py", TOLD)
    for seed in ("1", "2"):
        _, program = workshop.run("app.py", PYTHONHASHSEED=seed, MORE="")
        assert "no more today" in program.err, program.out
    _, program = workshop.run("app.py", MORE="/srv")
    assert "JournalError The unfinished run in the journal run.db has the metadata names=" in program.out, program.err
