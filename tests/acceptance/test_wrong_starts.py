"""Starts that fail: who was wrongly started ends, the run that is under way goes on, and nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

Eventually = Callable[..., None]

APP = """
import os
from zmqpipeline import Pipeline

app = Pipeline("NAME")

@app.task("C")
def numbers():
    for n in range(10):
        yield {"n": n}

@app.worker("C")
def work(data):
    if data["n"] == 5 and os.path.exists("gate"):
        # until somebody writes to the pipe
        open("gate").read()
    return data

@app.collector
def collect(data):
    with open("collected", "a") as file:
        file.write(f"{data['n']}\\n")

if __name__ == "__main__":
    app.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["another run", "another pipeline"])
def test_a_collector_with_a_wrong_journal_does_not_end_the_run(
    wrong: str, workshop: Workshop, eventually: Eventually
) -> None:
    """The newcomer says what it met, and ends with 2; the distributor waits for the right one, and all is collected."""
    workshop.write("app.py", APP.replace("NAME", "right"))
    workshop.write("other.py", APP.replace("NAME", "right" if wrong == "another run" else "wrong"))
    place = f"ipc://{workshop.folder}/place"
    gate = workshop.folder / "gate"
    os.mkfifo(gate)
    program = workshop.start("-m", "other", "run", "--journal", "other.db")
    # of what is behind the item that waits, some may be with the other worker
    eventually(lambda: len(workshop.lines("collected")) >= 5, "a first run is under way")
    program.signal(signal.SIGKILL, group=True)
    program.wait()
    (workshop.folder / "collected").unlink()

    roles = ("collector --journal run.db", "distributor", "worker")
    collector, distributor, worker = (workshop.start("-m", "app", *one.split(), "--endpoint", place) for one in roles)
    eventually(lambda: len(workshop.lines("collected")) == 5, "the run is under way")
    collector.signal(signal.SIGKILL)
    collector.wait()
    status, newcomer = workshop.run("-m", "other", "collector", "--journal", "other.db", "--endpoint", place)
    assert status == 2, newcomer.err
    (line,) = (one for one in newcomer.err.splitlines() if one.startswith("Error: "))
    assert "A distributor is at work here" in line
    collector = workshop.start("-m", "app", *roles[0].split(), "--endpoint", place)
    gate.write_text("go")
    assert [one.wait() for one in (distributor, collector, worker)] == [0, 0, 0], distributor.err
    assert set(workshop.numbers("collected")) == set(range(10))


NO_CHILD = """
import sys, threading
from app import app
from zmqpipeline import Options
from zmqpipeline.errors import KeysError

def threads():
    return sorted(one.name for one in threading.enumerate() if one is not threading.main_thread())

if __name__ == "__main__":
    python, sys.executable = sys.executable, "/nowhere/python"
    try:
        app.run(journal="run.db")
    except FileNotFoundError as error:
        print("no child:", threads())
    sys.executable = python
    collector = app.compile("collector", options=Options(journal="run.db", keys="nowhere"))
    try:
        collector.run()
    except KeysError as error:
        print("no keys:", threads())
    print(app.run(journal="run.db").ok)
"""


def test_a_failed_start_leaves_no_thread_and_no_lock(workshop: Workshop) -> None:
    """No child can be started, or the keys are missing: `app.run` of the same program has the journal all the same."""
    workshop.write("app.py", APP.replace("NAME", "failing"))
    workshop.write("script.py", NO_CHILD)
    status, program = workshop.run("script.py")
    assert (status, program.out.splitlines()) == (0, ["no child: []", "no keys: []", "True"]), program.err


READER = """
import sys
from zmqpipeline.runtime.journal import dead_items

print("ready", flush=True)
seen = 0
while seen < int(sys.argv[1]):
    found = len(dead_items("run.db"))
    assert found >= seen, (found, seen)
    seen = found
"""
WRITER = """
import sys
from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.protocol.messages import FailedItem, ErrorInfo
from zmqpipeline.runtime.journal import Journal

for n in range(int(sys.argv[1])):
    # each time the log is made, and gone with the last connection
    journal = Journal("run.db", pipeline="p")
    journal.begin(SetRun("run", b"", restored=n > 0))
    journal.failed([FailedItem("C", n, 1, "worker", ErrorInfo("E", "m" * 3000), b"")])
    journal.commit()
    journal.close()
"""


@pytest.mark.slow
def test_failed_items_are_read_beside_a_writer_that_comes_and_goes(workshop: Workshop, eventually: Eventually) -> None:
    """Two hundred collectors, one after the other, each with one more; a reader sees each file whole, and says so."""
    workshop.write("reader.py", READER)
    workshop.write("writer.py", WRITER)
    assert workshop.run("writer.py", "1")[0] == 0
    reader = workshop.start("reader.py", "200")
    eventually(lambda: "ready" in reader.out, "the reader reads")
    status, writer = workshop.run("writer.py", "200", timeout=60)
    assert status == 0, writer.err
    assert reader.wait() == 0, reader.err
