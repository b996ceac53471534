"""Runs that go on where millions of items are done: what is done is passed over in a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import long_journal

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.alone]

DONE, NEW = 2_000_000, 500
KEYS = 100_000
"""So many keys are done: each of them is told to the distributor, and looked up."""

APP = f"""
import time
from zmqpipeline import Pipeline

app = Pipeline("far")

def note(name):
    with open(name, "a") as file:
        file.write(f"{{time.monotonic()}}\\n")

@app.task("C")
def numbers():
    note("asked")
    for n in range({DONE + NEW}):
        yield {{"n": n}}

@app.worker("C")
def work(data):
    if data["n"] == {DONE}:
        note("first")
    return data

@app.collector
def collect(data, number):
    assert data["n"] == number >= {DONE}, (data, number)

if __name__ == "__main__":
    app.main()
"""
NOTED = """note("asked")
    open("start", "w").write(f"{start}")
"""
START = (
    APP.replace("def numbers():", "def numbers(start):")
    .replace("range(", "range(start, ", 1)
    .replace('note("asked")\n', NOTED)
)
KEYED = (
    APP.replace('@app.task("C")', '@app.task("C", key="n")')
    .replace("== number >=", ">=")
    .replace(str(DONE + NEW), str(KEYS + NEW))
    .replace(str(DONE), str(KEYS))
)
CLASS = APP.replace(
    APP[APP.index('@app.task("C")') : APP.index("@app.worker")],
    f"""
@app.register
class Numbers(zmqpipeline.Task):
    task_type = zmqpipeline.TaskType("C")
    endpoint = zmqpipeline.EndpointAddress("ipc://worker.ipc")
    dependencies = []

    def initialize(self, metadata, start):
        note("asked")
        open("start", "w").write(f"{{start}}")
        self.next = start

    def handle(self, data, address, msgtype):
        if self.next == {DONE + NEW}:
            self.is_complete = True
            return None
        self.next += 1
        return {{"n": self.next - 1}}

""",
).replace("import time\n", "import time, zmqpipeline\nzmqpipeline.TaskType.register_type('C')\n")


def seconds_to_the_first_new_item(workshop: Workshop, app: str, items: int) -> float:
    """Resume this app, and see it through; how long its source was called before a worker had the first new item."""
    workshop.write("app.py", app)
    path = workshop.folder / "run.db"
    long_journal.write(path, "far", "C", items, key=long_journal.digest if app is KEYED else None)
    status, program = workshop.run("-m", "app", "run", "--json", "--journal", "run.db", timeout=120)
    assert status == 0, program.err
    task = program.json["tasks"]["C"]
    assert (task["collected"], task["failed"]) == (items + NEW, 0), task
    ((asked,), (first,)) = (list(map(float, workshop.lines(name))) for name in ("asked", "first"))
    print(f"{first - asked:.3f} s from the call of the source to the first new item")
    return first - asked


def test_two_million_done_items_are_passed_over_in_seconds(workshop: Workshop) -> None:
    """2,000,000 items are done in the journal: the first new one is with a worker within 5 s."""
    assert seconds_to_the_first_new_item(workshop, APP, DONE) < 5.0


@pytest.mark.parametrize("app", [START, CLASS], ids=["function", "class"])
def test_a_source_that_takes_start_begins_there(app: str, workshop: Workshop) -> None:
    """It is told that 2,000,000 items are done, and begins after them."""
    assert seconds_to_the_first_new_item(workshop, app, DONE) < 5.0
    assert (workshop.folder / "start").read_text() == f"{DONE}"


def test_done_keys_are_passed_over_in_batches(workshop: Workshop) -> None:
    """A source with keys that begins anew passes 100,000 done ones in batches; one at a time they took 10 s."""
    assert seconds_to_the_first_new_item(workshop, KEYED, KEYS) < 5.0
