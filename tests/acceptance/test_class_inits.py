"""The `__init__` of a class of the class API raises: the command ends with a short letter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

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


@pytest.mark.parametrize("command", ["itself", "run", "check"])
@pytest.mark.parametrize("who", ["distributor", "worker", "collector"])
@pytest.mark.slow
def test_an_init_that_raises_is_told(who: str, command: str, workshop: Workshop) -> None:
    """What was raised, where, and the user's own lines: none of ours, nor of what parses the command line."""
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", who if command == "itself" else command, WHO=who)
    assert status == (3 if command == "run" and who != "collector" else 1), program.err
    assert "could not begin: ValueError: no such table in app.py:10 open_table" in program.err
    assert 'open_table("' in program.err
    assert "click" not in program.err
    assert "zmqpipeline/" not in program.err
    # nothing is lost by a worker: what one has met, the next need not
    assert program.err.count("could not begin") == 1 or who == "worker"
