"""The `__init__` of a class of the class API raises: the command ends with a short letter."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = pytest.mark.processes

APP = """
import os
from zmqpipeline import Collector, Pipeline, SingleThreadedWorker, Task, TaskType

TaskType.register_type("C")
app = Pipeline("inits")

def open_table(who):
    if os.environ["WHO"] == who:
        raise ValueError("no such table")

class Numbers(Task):
    task_type, dependencies, endpoint = TaskType("C"), [], "ipc://items.ipc"
    def __init__(self):
        open_table("distributor")
    def handle(self):
        self.is_complete = True
        return {"n": 1}

class Double(SingleThreadedWorker):
    task_type, endpoint, collector_endpoint = TaskType("C"), "ipc://items.ipc", "ipc://results.ipc"
    def __init__(self):
        open_table("worker")
    def handle_execution(self, data):
        return data

class Keep(Collector):
    endpoint, ack_endpoint = "ipc://results.ipc", "ipc://acks.ipc"
    def __init__(self):
        open_table("collector")
    def handle_collection(self, data):
        pass

for one in (Numbers, Double, Keep):
    app.register(one)

if __name__ == "__main__":
    app.main()
"""
RAISED = "ValueError: no such table in app.py:10 open_table"


@pytest.mark.parametrize("command", ["itself", "run", "check"])
@pytest.mark.parametrize("who", ["distributor", "worker", "collector"])
@pytest.mark.slow
def test_an_init_that_raises_is_told(who: str, command: str, workshop: Workshop) -> None:
    """What was raised, where, and the user's own lines: none of ours, nor of what parses the command line."""
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", who if command == "itself" else command, WHO=who)
    assert status == status_of(who, command), program.err
    is_told(program, who, command, re.escape(f"{RAISED}."))


@pytest.mark.parametrize("command", ["itself", "run", "check"])
@pytest.mark.parametrize("who", ["distributor", "worker", "collector"])
@pytest.mark.slow
def test_a_class_that_is_installed_is_the_users_too(who: str, command: str, workshop: Workshop) -> None:
    """As an app that is installed from a wheel, or in a container, is."""
    installed = workshop.folder / "site-packages"
    installed.mkdir()
    workshop.write("site-packages/app.py", APP)
    path = f"{installed}{os.pathsep}{workshop.environ['PYTHONPATH']}"
    status, program = workshop.run("-m", "app", who if command == "itself" else command, WHO=who, PYTHONPATH=path)
    assert status == status_of(who, command), program.err
    # what it called is in the traceback
    is_told(program, who, command, r"ValueError: no such table in site-packages/app\.py:\d+ __init__\.")


@pytest.mark.parametrize("command", ["itself", "run", "check"])
@pytest.mark.parametrize("who", ["distributor", "worker", "collector"])
@pytest.mark.slow
def test_a_class_that_needs_arguments_is_told(who: str, command: str, workshop: Workshop) -> None:
    """There is no line of the user's that raised: that of `__init__` is named, and what to do."""
    line = f'    def __init__(self):\n        open_table("{who}")'
    assert line in APP
    workshop.write("app.py", APP.replace(line, line.replace("(self)", "(self, table)")))
    status, program = workshop.run("-m", "app", who if command == "itself" else command, WHO="nobody")
    assert status == status_of(who, command), program.err
    cls = {"distributor": "Numbers", "worker": "Double", "collector": "Keep"}[who]
    what = (
        rf"TypeError: {cls}\.__init__\(\) missing 1 required positional argument: 'table'\. The class is made without "
        r"arguments, so each parameter needs a default in app\.py:\d+ __init__\."
    )
    is_told(program, who, command, what, tracebacks=0)


@pytest.mark.slow
def test_a_class_of_workers_that_raises_is_told_once(workshop: Workshop) -> None:
    """Of three workers the third start, one after the other: one traceback, their number, and the reason at the end."""
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", "run", "--workers", "3", WHO="worker")
    assert status == 1, program.err
    assert program.err.count("Traceback") == 1, program.err
    assert program.err.count("could not be initialized: ") == 1, program.err
    # others have begun, too, when the third one's end is known
    assert re.search(rf"{re.escape(RAISED)}: [3-9] starts of workers of 'C' failed", program.err), program.err
    assert f"No worker of 'C' can be initialized, and each would meet the same: {RAISED}." in program.err
    assert program.err.splitlines()[-1] == f"  C: {RAISED} (init)"


@pytest.mark.slow
def test_a_group_of_workers_tells_once_what_their_class_raised(workshop: Workshop) -> None:
    """`worker --processes 3`: the same without a distributor, which would know of none of them."""
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", "worker", "--processes", "3", WHO="worker")
    assert status == 1, program.err
    assert program.err.count("Traceback") == 1, program.err
    assert f"each would meet the same: {RAISED}. The other workers drain." in program.err
    assert re.search(rf"{re.escape(RAISED)}: [3-9] starts of workers of 'C' failed", program.err), program.err


@pytest.mark.slow
def test_a_launched_worker_tells_what_its_class_raised(workshop: Workshop) -> None:
    """Behind `--launch` a worker tells it on its standard error: it is told once there, too."""
    workshop.write("app.py", APP)
    launch = ("--launch", "env", "--endpoint", "ipc://there")
    status, program = workshop.run("-m", "app", "run", "--workers", "2", *launch, WHO="worker")
    assert status == 1, program.err
    assert program.err.count("Traceback") == 1, program.err
    assert f"each would meet the same: {RAISED}." in program.err


def status_of(who: str, command: str) -> int:
    """A run ends with its distributor, as with what ends one for good."""
    return 3 if (who, command) == ("distributor", "run") else 1


def is_told(program: Program, who: str, command: str, what: str, tracebacks: int = 1) -> None:
    """One letter says this (a pattern), with so many tracebacks, and without frames of ours or of click's.

    A `run` makes its collector itself, and says of its workers what they tell it.
    """
    name = {"worker": "worker of 'C'", "collector": "run" if command == "run" else who}.get(who, who)
    is_start = (who, command) == ("worker", "run")
    begin = r"The worker( \d+)? of 'C' could not be initialized: " if is_start else f"The {name} could not begin: "
    assert len(re.findall(f"{begin}{what}", program.err)) == 1, program.err
    assert program.err.count("Traceback") == tracebacks, program.err
    assert program.err.count("open_table(") == tracebacks, program.err
    assert "click" not in program.err, program.err
    assert "zmqpipeline/" not in program.err, program.err
