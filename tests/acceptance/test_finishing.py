"""The end of a run: `finished` at least once, whoever dies meanwhile; an exit status that says what became of it."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from zmqpipeline.runtime.journal import peek

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = pytest.mark.processes

Eventually = Callable[..., None]

APP = """
import os, sys
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("report")

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

if "distributor" in sys.argv:
    note("distributors", os.getpid())

@app.task("C")
def numbers():
    note("sources", os.getpid())
    for n in range(20):
        yield {"n": n}

@app.worker("C")
def work(data):
    if str(data["n"]) == os.environ.get("FAILS"):
        raise ValueError("not this one")
    return data

@app.collector
def collect(data):
    note("collected", data["n"])

@app.finished
def finished(TAKES):
    note("finished", os.getpid())
    WRITES
    if os.environ.get("RAISES"):
        raise RuntimeError("no report")
    if os.environ.get("HANGS"):
        # until the test writes to the pipe
        open("gate").read()
    note("reported", os.getpid())

if __name__ == "__main__":
    app.main()
"""
ROW = """journal.execute("CREATE TABLE IF NOT EXISTS reports (text TEXT)")
    journal.execute("INSERT INTO reports VALUES ('all of it')")"""
RUN = ("-m", "app", "run", "--journal", "run.db", "--drain-timeout", "0.5")


@pytest.fixture(params=["", "journal"], ids=["plain", "with the journal"])
def takes_journal(request: pytest.FixtureRequest, workshop: Workshop) -> bool:
    """Write the app, whose `finished` takes the journal or not; whether it does."""
    write(workshop, takes=request.param)
    return bool(request.param)


def write(workshop: Workshop, takes: str = "") -> None:
    """Write the app, and make the pipe that lets go of its `finished`."""
    workshop.write("app.py", APP.replace("TAKES", takes).replace("WRITES", ROW if takes else "pass"))
    os.mkfifo(workshop.folder / "gate")


def let_go(workshop: Workshop) -> None:
    """Have a `finished` that hangs return; it does hang."""
    (workshop.folder / "gate").write_text("go\n")


def reports(workshop: Workshop) -> int:
    """How many rows `finished` has written, committed."""
    with closing(sqlite3.connect(workshop.folder / "run.db")) as db:
        return int(db.execute("SELECT count(*) FROM reports").fetchone()[0])


def begun(workshop: Workshop, eventually: Eventually, times: int = 1) -> None:
    """Wait until `finished` was called so often."""
    eventually(lambda: len(workshop.lines("finished")) == times, f"`finished` called {times} times")


def check_once(workshop: Workshop, *, takes_journal: bool, calls: int) -> None:
    """Each item was collected once, by one source; the report is there once, and the run is finished."""
    assert sorted(workshop.numbers("collected")) == list(range(20))
    assert len(workshop.lines("sources")) == 1, "a source was called again though every item was done"
    assert (len(workshop.lines("finished")), len(workshop.lines("reported"))) == (calls, 1)
    if takes_journal:
        assert reports(workshop) == 1
    held = peek(workshop.folder / "run.db")
    assert held is not None
    assert (held.finished, held.ok) == (True, True)
    status, program = workshop.run(*RUN)
    assert status == 0, program.err
    assert "already finished" in program.err
    assert len(workshop.lines("finished")) == calls, "`finished` was called again after it had returned"


@pytest.mark.slow
def test_finished_is_called_again_after_a_kill(takes_journal: bool, workshop: Workshop, eventually: Eventually) -> None:
    """kill -9 of everything while it runs, twice: the same line calls it again, and nothing else; then it is over."""
    for times in (1, 2):
        program = workshop.start(*RUN, HANGS="yes")
        begun(workshop, eventually, times)
        program.signal(signal.SIGKILL, group=True)
        program.wait()
    status, program = workshop.run(*RUN)
    assert status == 0, program.err
    check_once(workshop, takes_journal=takes_journal, calls=3)


@pytest.mark.slow
def test_finished_is_called_again_after_a_drain(
    takes_journal: bool, workshop: Workshop, eventually: Eventually
) -> None:
    """Ctrl-C while it runs, and for longer than the drain may take: status 130; the same line calls it again."""
    program = workshop.start(*RUN, HANGS="yes")
    begun(workshop, eventually)
    program.signal(signal.SIGINT, group=True)
    assert program.wait() == 130, program.err
    status, program = workshop.run(*RUN)
    assert status == 0, program.err
    check_once(workshop, takes_journal=takes_journal, calls=2)


@pytest.mark.slow
def test_finished_is_called_again_after_it_raised(takes_journal: bool, workshop: Workshop) -> None:
    """Status 1, each time; as soon as it returns, the run is finished, with status 0."""
    for times in (1, 2):
        status, program = workshop.run(*RUN, RAISES="yes")
        assert status == 1, program.err
        assert "no report" in program.err
        assert len(workshop.lines("finished")) == times
    status, program = workshop.run(*RUN)
    assert status == 0, program.err
    check_once(workshop, takes_journal=takes_journal, calls=3)


@pytest.mark.slow
def test_what_finished_returns_may_be_refused(workshop: Workshop) -> None:
    """It returns what cannot be sent: that is an exception like any other, and its rows are undone with it."""
    write(workshop, "journal")
    text = (workshop.folder / "app.py").read_text()
    returns = '    note("reported", os.getpid())\n    return {"what": object()} if os.environ.get("ODD") else None\n'
    workshop.write("app.py", text.replace('    note("reported", os.getpid())\n', returns))
    assert workshop.run(*RUN, ODD="yes")[0] == 1
    status, program = workshop.run(*RUN)
    assert status == 0, program.err
    assert reports(workshop) == 1


@pytest.mark.slow
def test_a_lone_collector_calls_finished_again(workshop: Workshop, eventually: Eventually) -> None:
    """All roles are killed while it runs. Collector and distributor, without any worker, see the run to its end."""
    write(workshop)
    roles = ("collector --journal run.db", "distributor", "worker")
    programs = [workshop.start("-m", "app", *role.split(), HANGS="yes") for role in roles]
    begun(workshop, eventually)
    for program in programs:
        program.signal(signal.SIGKILL)
        program.wait()
    programs = [workshop.start("-m", "app", *role.split()) for role in roles[:2]]
    assert [one.wait() for one in programs] == [0, 0], [one.err for one in programs]
    check_once(workshop, takes_journal=False, calls=2)


@pytest.mark.slow
@pytest.mark.parametrize("fails", [None, "7"], ids=["all collected", "one failed"])
@pytest.mark.parametrize("journal", [(), ("--journal", "run.db")], ids=["no journal", "journal"])
def test_a_distributor_killed_during_finished_under_run(
    fails: str | None, journal: tuple[str, ...], workshop: Workshop, eventually: Eventually
) -> None:
    """`run` starts another one, which waits until `finished` returns; the status says what became of the items."""
    write(workshop)
    program = workshop.start("-m", "app", "run", *journal, HANGS="yes", **({"FAILS": fails} if fails else {}))
    begun(workshop, eventually)
    for number in (2, 3):
        os.kill(workshop.numbers("distributors")[-1], signal.SIGKILL)
        eventually(lambda number=number: len(workshop.lines("distributors")) == number, "another distributor")
    let_go(workshop)
    assert program.wait() == (1 if fails else 0), program.err
    assert (len(workshop.lines("finished")), len(workshop.lines("reported"))) == (1, 1)
    assert len(workshop.lines("sources")) == 1


@pytest.mark.slow
def test_a_distributor_killed_again_and_again_during_finished(workshop: Workshop, eventually: Eventually) -> None:
    """Six times within one call of it: `finished` is not cut off, and the run ends with 0."""
    write(workshop)
    program = workshop.start("-m", "app", "run", HANGS="yes")
    begun(workshop, eventually)
    for number in range(2, 8):
        os.kill(workshop.numbers("distributors")[-1], signal.SIGKILL)
        eventually(lambda number=number: len(workshop.lines("distributors")) == number, "another distributor")
    assert not program.ended(), program.err
    let_go(workshop)
    assert program.wait() == 0, program.err
    assert (len(workshop.lines("finished")), len(workshop.lines("reported"))) == (1, 1)


def waits(eventually: Eventually, program: Program) -> None:
    """Wait until a distributor has heard that `finished` still runs, and see that it waits."""
    eventually(lambda: "`finished` still runs" in program.err, "the distributor hears it")
    assert not program.ended(), program.err


@pytest.mark.slow
@pytest.mark.parametrize("fails", [None, "7"], ids=["all collected", "one failed"])
def test_a_lone_distributor_killed_during_finished(
    fails: str | None, workshop: Workshop, eventually: Eventually
) -> None:
    """The next one waits as long as `finished` takes, and tells the workers; 1 if an item had failed, else 0."""
    write(workshop)
    environ = {"HANGS": "yes", "ZMQPIPELINE_LOG_LEVEL": "info", **({"FAILS": fails} if fails else {})}
    roles = ("collector", "distributor", "worker")
    collector, distributor, worker = (workshop.start("-m", "app", role, **environ) for role in roles)
    begun(workshop, eventually)
    distributor.signal(signal.SIGKILL)
    distributor.wait()
    second = workshop.start("-m", "app", "distributor", **environ)
    waits(eventually, second)
    let_go(workshop)
    status = 1 if fails else 0
    assert [one.wait() for one in (second, collector, worker)] == [status, status, 0], second.err
    assert len(workshop.lines("reported")) == 1


@pytest.mark.slow
def test_a_collector_killed_during_finished_under_a_second_distributor(
    workshop: Workshop, eventually: Eventually
) -> None:
    """Without a journal: the distributor that has only heard of the run tells the next collector all of it."""
    write(workshop)
    environ = {"HANGS": "yes", "ZMQPIPELINE_LOG_LEVEL": "info", "FAILS": "7"}
    roles = ("collector", "distributor", "worker")
    collector, distributor, worker = (workshop.start("-m", "app", role, **environ) for role in roles)
    begun(workshop, eventually)
    distributor.signal(signal.SIGKILL)
    distributor.wait()
    second = workshop.start("-m", "app", "distributor", **environ)
    waits(eventually, second)
    collector.signal(signal.SIGKILL)
    collector.wait()
    again = workshop.start("-m", "app", "collector", **environ)
    begun(workshop, eventually, 2)
    let_go(workshop)
    assert [one.wait() for one in (second, again, worker)] == [1, 1, 0], second.err
    assert sorted(workshop.numbers("collected")) == [n for n in range(20) if n != 7]


@pytest.mark.slow
def test_a_finished_run_with_failed_items_keeps_its_status(workshop: Workshop) -> None:
    """Started again it ends with 1 again, and says why; retried and collected, it ends with 0 from then on."""
    write(workshop)
    assert workshop.run(*RUN, FAILS="7")[0] == 1
    for _ in range(2):
        status, program = workshop.run(*RUN)
        assert status == 1, program.err
        first, second, *more = program.err.splitlines()
        assert first == (
            "report: already finished, says the journal run.db, and not all was collected; --fresh starts again"
        )
        assert second == "  C: sent 20, collected 19, failed 1"
        assert more == [
            "  1 failed item: python -m app dead list --journal run.db",
            "  to have it tried again: python -m app dead retry --all --journal run.db",
        ]
    status, program = workshop.run(*RUN, "--json")
    assert (status, program.json["status"], program.json["ok"]) == (1, 1, False)
    assert workshop.run("-m", "app", "dead", "retry", "--all", "--journal", "run.db")[0] == 0
    assert [workshop.run(*RUN)[0] for _ in range(2)] == [0, 0]


@pytest.mark.slow
def test_lone_roles_keep_the_status_of_a_finished_run(workshop: Workshop) -> None:
    """A collector on its finished journal, and the distributor that it tells so, end with 1 if an item had failed."""
    write(workshop)
    assert workshop.run(*RUN, FAILS="7")[0] == 1
    collector = workshop.start("-m", "app", "collector", "--journal", "run.db")
    status, distributor = workshop.run("-m", "app", "distributor")
    assert (status, collector.wait()) == (1, 1), distributor.err


def test_app_run_tells_what_became_of_a_finished_run(workshop: Workshop) -> None:
    """`app.run(journal=...)` again: the summary is not ok, and the log names the commands for failed items."""
    write(workshop)
    script = 'app.run(journal="run.db"); print(app.run(journal="run.db").ok)'
    text = (workshop.folder / "app.py").read_text()
    workshop.write("script.py", text.replace("app.main()", f"import logging; logging.basicConfig(); {script}"))
    status, program = workshop.run("script.py", FAILS="7")
    assert (status, program.out.split()) == (0, ["False"]), program.err
    assert "`dead list`" in program.err
