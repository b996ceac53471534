"""Observers in real processes: each role tells what happens in it, whoever raises, blocks or is killed."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ports import free_ports

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

COUNT = 200
HEAD = f"""
import json, os, signal, sys, threading
from dataclasses import asdict
from zmqpipeline import Options, Pipeline, events

COUNT = {COUNT}
app = Pipeline("observed")

@app.task("C", retries=1, backoff=0.01, crash_limit=3)
def numbers():
    return ({{"n": n}} for n in range(COUNT))

@app.worker("C")
def work(data, attempt):
    if data["n"] == 100 and os.environ.get("KILL") and attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if data["n"] < 3 or (data["n"] < 8 and attempt == 1):
        raise ValueError(f"no {{data['n']}}")
    return data

@app.collector
def collect(data):
    pass
"""
NOTE = """
def note(event):
    with open("events", "a") as file:
        file.write(json.dumps({"kind": type(event).__name__, "pid": os.getpid(), **asdict(event)}) + "\\n")
"""
ON = NOTE + "app.on(events.Event)(note)\n"
RAISES = """
@app.on(events.Event)
def broken(event):
    raise ValueError("broken")
"""
BLOCKS = """
@app.on(events.Event)
def stuck(event):
    open("stuck", "a").write("one\\n")
    threading.Event().wait()
"""
MAIN = """
if __name__ == "__main__":
    app.main()
"""


def told(workshop: Workshop) -> list[dict[str, Any]]:
    """What the observers of all processes have written."""
    return [json.loads(line) for line in workshop.lines("events")]


def totals(events: list[dict[str, Any]]) -> Counter[str]:
    """By kind, how many items."""
    counts: Counter[str] = Counter()
    for one in events:
        counts[one["kind"]] += one.get("count", 0)
    return counts


def items(events: list[dict[str, Any]], kind: str) -> list[int]:
    """The numbers of all items of these events, as often as they come."""
    return [n for one in events if one["kind"] == kind for start, stop in one["items"] for n in range(start, stop)]


OPTION = NOTE + HEAD.replace('Pipeline("observed")', 'Pipeline("observed", options=Options(observers=[note]))')


@pytest.mark.parametrize("text", [HEAD + ON, OPTION], ids=["decorator", "options"])
def test_each_role_of_a_run_tells_what_happens_in_it(workshop: Workshop, text: str) -> None:
    """The sums are the numbers of the summary; the table of roles and events is true."""
    workshop.write("app.py", text + MAIN)
    status, program = workshop.run("-m", "app", "run", "--workers", "2")
    assert status == 1, program.err
    events = told(workshop)
    counts = totals(events)
    assert counts["ItemExecuted"] == COUNT + 8
    # what an idle worker takes over from another one is sent once more
    assert counts["ItemSent"] >= COUNT + 8
    assert set(items(events, "ItemSent")) == set(range(COUNT))
    assert sorted(items(events, "ItemCollected")) == list(range(3, COUNT))
    assert sorted(items(events, "ItemFailed")) == [0, 1, 2]
    assert sorted(items(events, "ItemAcknowledged")) == list(range(COUNT))
    assert sorted(items(events, "ItemRetried")) == list(range(8))
    where = {(one["kind"], one["role"]) for one in events}
    assert where == {
        *((kind, "distributor") for kind in ("ItemSent", "ItemRetried", "ItemAcknowledged", "WorkerJoined")),
        *((kind, "distributor") for kind in ("WorkerLeft", "TaskStarted", "TaskOver")),
        ("ItemExecuted", "worker"),
        *((kind, "collector") for kind in ("ItemCollected", "ItemFailed", "RunOver")),
        *((kind, role) for kind in ("RoleUp", "RoleDown") for role in ("distributor", "worker", "collector")),
    }
    # a second worker may come too late for so short a run
    assert len({one["pid"] for one in events}) in (3, 4)
    for pid in {one["pid"] for one in events}:
        mine = [one["kind"] for one in events if one["pid"] == pid]
        assert (mine[0], mine[-1]) == ("RoleUp", "RoleDown")
    assert all(abs(one["time"] - time.time()) < 60 for one in events)
    (over,) = [one for one in events if one["kind"] == "RunOver"]
    assert (over["ok"], over["collected"], over["failed"]) == (False, COUNT - 3, 3)


def test_a_killed_worker_is_lost_and_its_items_come_again(workshop: Workshop) -> None:
    """Another one joins; what the killed one had to tell is not told."""
    workshop.write("app.py", HEAD + ON + MAIN)
    status, program = workshop.run("-m", "app", "run", "--workers", "1", KILL="1")
    assert status == 1, program.err
    events = told(workshop)
    lost = [one for one in events if one["kind"] == "WorkerLeft" and one["is_lost"]]
    assert len(lost) == 1
    assert lost[0]["items"] > 0
    again = [one for one in events if one["kind"] == "ItemRetried" and one["reason"] == "lost"]
    assert sum(one["count"] for one in again) == lost[0]["items"]
    assert 100 in items(again, "ItemRetried")
    joined = [one["worker"] for one in events if one["kind"] == "WorkerJoined"]
    assert len(joined) == len(set(joined)) == 2
    assert sorted(items(events, "ItemCollected")) == list(range(3, COUNT))


COUNTED = """
import subprocess
from zmqpipeline.processes.launch import start

@app.finished
def ask():
    # every item is done, and the distributor is still there
    told = subprocess.run(["{python}", "-m", "app", "status", "--json"], capture_output=True, check=True, timeout=60)
    open("status", "wb").write(told.stdout)

def main():
    seen = []
    outcome = start(app, options=app.options, workers=1, observe=seen.append)
    counts = {{"summary": asdict(outcome.summary), "progress": [seen[-1].collected, seen[-1].failed]}}
    open("counts", "w").write(json.dumps(counts))

if __name__ == "__main__":
    app.main() if len(sys.argv) > 1 else main()
"""


@pytest.mark.slow
def test_status_summary_and_progress_count_as_observers_do(workshop: Workshop) -> None:
    """In a run with retries, failures and a killed worker: these read the machines, for no run needs an observer."""
    workshop.write("app.py", HEAD + ON + COUNTED.format(python=sys.executable))
    status, program = workshop.run("app.py", KILL="1")
    assert status == 0, program.err
    events = told(workshop)
    counts, kept = totals(events), json.loads((workshop.folder / "counts").read_text())
    assert counts["ItemRetried"] > 8, "the killed worker held nothing"
    sent = len(set(items(events, "ItemSent")))
    expected = {
        "sent": sent,
        "collected": counts["ItemCollected"],
        "failed": counts["ItemFailed"],
        "redelivered": counts["ItemSent"] - sent,
        "aborted": 0,
        "skipped": 0,
    }
    assert (sent, counts["ItemCollected"], counts["ItemFailed"]) == (COUNT, COUNT - 3, 3)
    assert kept["progress"] == [counts["ItemCollected"], counts["ItemFailed"]]
    (status_task,) = json.loads((workshop.folder / "status").read_text())["tasks"].values()
    (over,) = (one for one in events if one["kind"] == "TaskOver")
    assert expected.items() <= kept["summary"]["tasks"]["C"].items()
    assert expected.items() <= over.items()
    assert expected.items() <= status_task.items()
    (end,) = (one for one in events if one["kind"] == "RunOver")
    assert (end["collected"], end["failed"]) == (counts["ItemCollected"], counts["ItemFailed"])


def test_observers_that_raise_are_logged_and_the_run_is_as_ever(workshop: Workshop) -> None:
    """Once in each process."""
    workshop.write("app.py", HEAD + RAISES + ON + MAIN)
    status, program = workshop.run("-m", "app", "run", "--workers", "1")
    assert status == 1, program.err
    assert program.err.count("raised ValueError") == 3
    assert "observer broken (app.py:" in program.err
    assert sorted(items(told(workshop), "ItemCollected")) == list(range(3, COUNT))


@pytest.mark.slow
def test_observers_that_never_return_keep_no_role(workshop: Workshop) -> None:
    """Each role says so, and ends two seconds later."""
    workshop.write("app.py", HEAD + BLOCKS + MAIN)
    began = time.monotonic()
    status, program = workshop.run("-m", "app", "run", "--workers", "1", timeout=60)
    assert status == 1, program.err
    assert program.err.count("The observers are not done 2 s after the end of the role") == 3
    assert len(workshop.lines("stuck")) == 3
    assert time.monotonic() - began < 40


CLASSES = """
import json, os, sys
from dataclasses import asdict
from zmqpipeline import Collector, Distributor, Options, SingleThreadedWorker, Task, TaskType

TaskType.register_type("C")

def note(event):
    with open("events", "a") as file:
        file.write(json.dumps({{"kind": type(event).__name__, "pid": os.getpid(), **asdict(event)}}) + "\\n")

class Numbers(Task):
    task_type, endpoint, dependencies = TaskType("C"), "{workers}", []
    def handle(self, data, address, msgtype):
        self.n_count += 1
        self.is_complete = self.n_count == 50
        return {{"n": self.n_count}}

class Work(SingleThreadedWorker):
    task_type, endpoint, collector_endpoint = TaskType("C"), "{workers}", "{results}"
    def handle_execution(self, data, *args, **kwargs):
        return data

class Gather(Collector):
    endpoint, ack_endpoint = "{results}", "{acks}"
    def handle_collection(self, data, task_type, msgtype):
        pass

Distributor.register_task(Numbers)
role = {{"worker": Work, "collector": Gather, "distributor": lambda: Distributor("{results}", "{acks}")}}[sys.argv[1]]()
role.options = Options(observers=[note])
role.run()
"""


def test_programs_of_the_class_api_give_observers_as_options(workshop: Workshop) -> None:
    """`role.options` before `run()`; each of the three programs tells of its own."""
    ports = iter(free_ports(3))
    places = {name: f"tcp://127.0.0.1:{next(ports)}" for name in ("workers", "results", "acks")}
    workshop.write("roles.py", CLASSES.format(**places))
    programs = [workshop.start("roles.py", role) for role in ("collector", "distributor", "worker")]
    for program in programs:
        assert program.wait() == 0, program.err
    events = told(workshop)
    assert dict(totals(events)) | {"ItemSent": 50} == totals(events)
    for kind in ("ItemSent", "ItemExecuted", "ItemCollected", "ItemAcknowledged"):
        assert len(items(events, kind)) == 50
    assert {one["role"] for one in events if one["kind"] == "RoleDown"} == {"distributor", "worker", "collector"}
    assert [one["ok"] for one in events if one["kind"] == "RunOver"] == [True]
