"""The first bug of a program is told where it was raised, with file and line; a thousand of a kind are one thing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

Eventually = Callable[..., None]

APP = """
import os, time
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("bugs")
BUG, ITEMS = os.environ["BUG"], int(os.environ.get("ITEMS", "200"))

def bug(where, data={}):
    if where == BUG:
        if not Path("raised").exists():
            Path("raised").touch()
        return data["m"]

@app.task("C")
def numbers():
    for n in range(ITEMS):
        if n == 20:
            bug("source")
        yield {"n": n}

@app.worker("C")
def work(data):
    time.sleep(float(os.environ.get("SLEEP", "0")))
    bug("worker", data)
    return data

@app.collector
def collect(data):
    bug("collector", data)

@app.ack_data
def more():
    return bug("ack_data")

@app.failed
def failed(failure):
    bug("failed")

@app.finished
def done():
    bug("finished")
    time.sleep(float(os.environ.get("SLEEP", "0")) * 100)

if __name__ == "__main__":
    app.main()
"""
RAISED = "KeyError: 'm' in app.py:13 bug"


@pytest.mark.alone
@pytest.mark.parametrize("where", ["source", "worker", "collector", "finished"])
def test_the_first_bug_is_told_within_a_second(where: str, workshop: Workshop, eventually: Eventually) -> None:
    """In the middle of a run that goes on: what was raised, in which file and line, with its traceback."""
    workshop.write("app.py", APP)
    program = workshop.start("-m", "app", "run", "--workers", "1", BUG=where, SLEEP="0.02")
    eventually((workshop.folder / "raised").exists, "the bug", timeout=30)
    began = time.monotonic()
    eventually(lambda: f"{RAISED}" in program.err and "Traceback" in program.err, "the line", timeout=5)
    assert time.monotonic() - began < 1.0
    assert program.wait() == 1
    summary = program.err[program.err.index("bugs: ") :]
    assert RAISED in summary, program.err
    whole = "all collected, but 'finished' raised"
    assert f"1 worker, {whole if where == 'finished' else 'not all collected'}\n" in summary, program.err


@pytest.mark.slow
@pytest.mark.parametrize("where", ["worker", "collector"])
def test_a_thousand_failures_of_a_kind_are_one_thing(where: str, workshop: Workshop) -> None:
    """One traceback, one item, their number at the end and in the summary; no line for each."""
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", "run", "--workers", "1", BUG=where, ITEMS="1000")
    assert status == 1
    assert program.err.count("Traceback") == 1, program.err
    assert program.err.count("KeyError") < 10, program.err
    assert "The item: {'n': 0}" in program.err
    assert program.err.splitlines()[-1] == f"  C: {RAISED}: 1,000 items; first: {{'n': 0}}"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["ack_data", "failed"])
def test_a_function_beside_the_collector_that_always_raises_is_told_once(where: str, workshop: Workshop) -> None:
    """Two thousand items: one traceback of it, a number, and the status."""
    workshop.write("app.py", APP.replace('bug("worker", data)', '1 / int(BUG != "failed")'))
    status, program = workshop.run("-m", "app", "run", "--workers", "1", BUG=where, ITEMS="2000")
    assert status == 1
    assert program.err.count(f"The {where} function raised {RAISED}") == 1, program.err
    assert program.err.count("Traceback") == (2 if where == "failed" else 1), program.err
    assert f"  {where}: {RAISED} (collector)" in program.err
    what = "all collected, but 'ack_data' raised" if where == "ack_data" else "not all collected"
    assert f"1 worker, {what}\n" in program.err


@pytest.mark.parametrize("where", ["ack_data", "finished"])
def test_what_was_collected_is_not_said_to_be_missing(where: str, workshop: Workshop) -> None:
    """Role by role: all three say that everything was collected; the statuses are 1, 1 and 0."""
    workshop.write("app.py", APP)
    roles = [workshop.start("-m", "app", one, BUG=where) for one in ("collector", "distributor", "worker")]
    assert [role.wait() for role in roles] == [1, 1, 0]
    for role in roles:
        assert "The run is over and everything was collected, but the " in role.err, role.err
        assert f"function raised {RAISED}" in role.err


CLASSES = """
import os, sys
import zmqpipeline as z

z.TaskType.register_type("C")
WORK, RESULTS, ACKS = (z.EndpointAddress(f"ipc://{name}.ipc") for name in ("work", "results", "acks"))
BUG = os.environ["BUG"]

class Numbers(z.Task):
    task_type, endpoint, dependencies = z.TaskType("C"), WORK, []
    def handle(self):
        self.n_count += 1
        self.is_complete = self.n_count == 300
        return {"n": self.n_count}

class Works(z.SingleThreadedWorker):
    task_type, endpoint, collector_endpoint = z.TaskType("C"), WORK, RESULTS
    def handle_execution(self, data):
        return {"n": data["m" if BUG == "worker" else "n"]}

class Gathers(z.Collector):
    endpoint, ack_endpoint = RESULTS, ACKS
    def handle_collection(self, data):
        data["m" if BUG == "collector" else "n"]

role = sys.argv[1]
if os.environ.get("QUIET"):
    import logging
    logging.getLogger("zmqpipeline").addHandler(logging.NullHandler())
if role == "distributor":
    z.Distributor.register_task(Numbers)
    z.Distributor(RESULTS, ACKS).run()
elif role == "worker":
    Works().run()
else:
    Gathers().run()
"""


@pytest.mark.parametrize("where", ["worker", "collector"])
def test_a_program_of_classes_says_on_stderr_what_it_raised(where: str, workshop: Workshop) -> None:
    """No logging is configured: the first with its traceback, then the number, in the process where it was raised."""
    workshop.write("prog.py", CLASSES)
    programs = {role: workshop.start("prog.py", role, BUG=where) for role in ("worker", "collector", "distributor")}
    for program in programs.values():
        program.wait()
    line = {"worker": 19, "collector": 24}[where]
    name = {"worker": "handle_execution", "collector": "handle_collection"}[where]
    told = programs[where].err
    assert f"Item 0 of 'C' failed ({where}): KeyError: 'm' in prog.py:{line} {name}. The item: {{'n': 1}}" in told, told
    assert f"KeyError: 'm' in prog.py:{line} {name}: 300 items; first: {{'n': 1}}" in told
    assert told.count('File "') == 1 or "RunFailed" in told


def test_a_program_that_wants_silence_has_it(workshop: Workshop) -> None:
    """A NullHandler of its own says that logging is configured."""
    workshop.write("prog.py", CLASSES)
    roles = ("worker", "collector", "distributor")
    programs = {role: workshop.start("prog.py", role, BUG="collector", QUIET="1") for role in roles}
    for program in programs.values():
        program.wait()
    assert "Item 0" not in programs["collector"].err


@pytest.mark.parametrize("where", ["yield", "return", "worker", "ack_data", "finished"])
def test_a_wrong_type_is_told_with_the_line_of_the_function(where: str, workshop: Workshop) -> None:
    """A list where a dict is wanted, or too much: no traceback leads to the function, so the message does."""
    number = 1 + next(n for n, line in enumerate(WRONG.splitlines()) if f"# {where}" in line)
    workshop.write("app.py", WRONG)
    status, program = workshop.run("-m", "app", "run", "--workers", "1", WRONG=where)
    seen = "returned 1,0" if where == "finished" else "returned a list"
    assert f"(app.py:{number}) {seen}" in program.err, program.err
    assert status == 1


WRONG = """
import os
from zmqpipeline import Pipeline

app = Pipeline("wrong")
WRONG = os.environ["WRONG"]

def made(where, value):
    return [value] if where == WRONG else value

@app.task("C")  # yield
def numbers():
    for n in range(5):
        yield made("yield", {"n": n})

@app.task("D", times=3)  # return
def more():
    return made("return", {"n": 1})

@app.worker("D")
def pass_on(data):
    return data

@app.worker("C")  # worker
def work(data):
    return made("worker", data)

@app.collector
def collect(data):
    pass

@app.ack_data  # ack_data
def ack_data():
    return ["a"] if WRONG == "ack_data" else None

@app.finished  # finished
def done():
    return {"a": [1] * 10**6} if WRONG == "finished" else None

if __name__ == "__main__":
    app.main()
"""
