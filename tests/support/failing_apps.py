"""Apps that go wrong, and how they are started and looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop


Eventually = Callable[..., None]


HEAD = """
import dataclasses, json, os, sys, time
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("wrong")

def note(name, *words):
    with open(name, "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")

def items(most):
    return ({"n": n} for n in range(most))

def hold():
    while not Path("go").exists():
        time.sleep(0.01)

@app.collector
def collect(data, task_type):
    note("collected-" + task_type, data["n"])

@app.failed
def failed(failure):
    if "RAISE" in os.environ:
        raise LookupError("no room today")
    note("failures", json.dumps({**dataclasses.asdict(failure), "pid": os.getpid()}))
"""


MAIN = """
if __name__ == "__main__":
    app.main()
"""


def collected(workshop: Workshop, task: str = "C") -> list[int]:
    """The numbers of a task's collected items, sorted; one that was collected twice is there twice."""
    return sorted(workshop.numbers(f"collected-{task}"))


def start(workshop: Workshop, body: str, *roles: str) -> list[Program]:
    """Start these roles of an app, one process each."""
    workshop.write("app.py", HEAD + body + MAIN)
    return [workshop.start("-m", "app", *role.split()) for role in roles]
