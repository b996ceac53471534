"""What goes wrong, and what happens: a test for each row of the table in docs/explanation/delivery.md.

Rows that other modules show are named in the table; `test_each_row_names_tests_that_exist` holds it to that.
"""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.acceptance.chaos.network import Network
from tests.acceptance.conftest import ROOT
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop
from tests.support.failing_apps import HEAD, MAIN, Eventually, collected, start

pytestmark = pytest.mark.processes

RUN = ("-m", "app", "run", "--workers", "1", "--json", "--no-progress")


def failures(workshop: Workshop) -> list[dict[str, Any]]:
    """What the function for failed items was called with, in order."""
    return [json.loads(line) for line in workshop.lines("failures")]


def run(workshop: Workshop, body: str, *flags: str, status: int = 1, **environ: str) -> Program:
    """Run an app to its end, which must be this one."""
    workshop.write("app.py", HEAD + body + MAIN)
    found, program = workshop.run(*RUN, *flags, **environ)
    assert found == status, program.err
    return program


# workers and their functions ------------------------------------------------------------------------------------------

SLOW = """
app.task("C")(lambda: items(3))

@app.worker("C")
def work(data):
    note("started", data["n"])
    if data["n"] == 0:
        hold()
    return data
"""
CONNECTED = "workers: connected.\n"


def test_a_connection_that_comes_back_blames_nobody(workshop: Workshop, eventually: Eventually) -> None:
    """While an item runs, its worker's connection breaks five times: it is executed once, collected, and not failed."""
    near, far = free_ports(7), free_ports(7)
    with Network() as network:
        for hop in (0, 1):
            network.add(f"{hop}", near[hop], far[hop])
        distributor, collector, worker = start(
            workshop,
            SLOW,
            f"distributor --endpoint tcp://127.0.0.1:{far[0]}",
            f"collector --endpoint tcp://127.0.0.1:{far[0]}",
            f"worker C --log-level debug --endpoint tcp://127.0.0.1:{near[0]}",
        )
        eventually(lambda: workshop.lines("started"), "the item runs")
        for times in range(1, 6):
            network.reset("0")
            eventually(lambda times=times: distributor.err.count("was lost") == times, f"lost {times} times")
            eventually(lambda times=times: worker.err.count(CONNECTED) == times + 1, f"there again {times} times")
            back = worker.err.rindex(CONNECTED)
            eventually(lambda back=back: "workers: received" in worker.err[back:], "the distributor answers")
        workshop.write("go", "")
        assert [one.wait() for one in (distributor, collector, worker)] == [0, 0, 0], distributor.err
    assert sorted(workshop.numbers("started")) == collected(workshop) == [0, 1, 2]
    assert failures(workshop) == []


def test_a_function_that_raises_is_tried_again_later_and_later(workshop: Workshop) -> None:
    """With two retries an item is executed three times, ever later, and is then failed, with all there is to say."""
    body = """
app.task("C", retries=2, backoff=0.2)(lambda: items(5))

@app.worker("C", threads=2)
def picky(data, attempt):
    if data["n"] == 3:
        note("tries", attempt, time.monotonic())
        raise LookupError("no three")
    if data["n"] == 4 and attempt == 1:
        raise LookupError("not the first time")
    return data
"""
    summary = run(workshop, body).json
    tries = [line.split() for line in workshop.lines("tries")]
    assert [int(attempt) for attempt, _ in tries] == [1, 2, 3]
    first, second, third = (float(at) for _, at in tries)
    # by a quarter more or less, so that those who failed together do not come back together
    assert second - first >= 0.75 * 0.2
    assert third - second >= 0.75 * 0.4
    (failure,) = failures(workshop)
    assert (failure["data"], failure["stage"], failure["attempts"]) == ({"n": 3}, "worker", 3)
    assert (failure["error"], failure["message"]) == ("LookupError", "no three")
    assert 'raise LookupError("no three")' in failure["traceback"]
    assert collected(workshop) == [0, 1, 2, 4]
    assert (summary["failures"], summary["tasks"]["C"]["collected"]) == (1, 4)


def test_what_cannot_be_a_result_is_a_failed_item(workshop: Workshop) -> None:
    """No dict, a value of no known type, too many bytes: each names the function and the place; the rest goes on."""
    body = """
app.task("C")(lambda: items(4))

@app.worker("C")
def odd(data):
    return [7, {"n": 1, "result": {"when": object()}}, {"n": 2, "text": "x" * 5000}, data][data["n"]]
"""
    run(workshop, body, ZMQPIPELINE_MAX_MESSAGE_BYTES="2000")
    told = {failure["data"]["n"]: f"{failure['error']} {failure['message']}" for failure in failures(workshop)}
    assert sorted(told) == [0, 1, 2]
    assert "int" in told[0]
    assert all("odd" in told[n] for n in (0, 1, 2)), told
    assert "$.result.when" in told[1]
    assert "2000" in told[2]
    assert collected(workshop) == [3]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_an_item_past_its_timeout_is_failed(threads: int, workshop: Workshop) -> None:
    """Its thread is lost: a worker without another one ends with status 70, the next does the rest, the run ends."""
    body = f"""
app.task("C", timeout=1)(lambda: items(6))
app.worker_init("C")(lambda: note("workers", os.getpid()))

@app.worker("C", threads={threads})
def work(data):
    if data["n"] == 2:
        time.sleep(60)
    return data
"""
    program = run(workshop, body)
    ((failure, seen),) = [(failure, failure["data"]) for failure in failures(workshop)]
    assert (seen, failure["error"]) == ({"n": 2}, "TimeoutError")
    assert collected(workshop) == [0, 1, 3, 4, 5]
    left = "status 70" in program.err
    assert (left, len(workshop.lines("workers"))) == ((True, 2) if threads == 1 else (False, 1)), program.err


@pytest.mark.slow
@pytest.mark.parametrize("part", ["worker_init", "thread_init"])
def test_a_worker_that_cannot_begin_says_so_and_leaves(part: str, workshop: Workshop, eventually: Eventually) -> None:
    """One line of why, and status 1; its items wait, and the next worker, which can, has them all."""
    body = f"""
app.task("C")(lambda: items(5))
app.worker("C")(lambda data: data)

@app.{part}("C")
def begin():
    if not Path("go").exists():
        raise OSError("no database today")
"""
    *others, worker = start(workshop, body, "distributor", "collector", "worker C")
    assert worker.wait() == 1, worker.err
    assert "no database today" in worker.err
    workshop.write("go", "")
    others.append(workshop.start("-m", "app", "worker", "C"))
    assert [one.wait() for one in others] == [0, 0, 0], others[0].err
    assert collected(workshop) == [0, 1, 2, 3, 4]


HELD = """
app.task("C")(lambda: items(60))

@app.worker("C")
def work(data):
    note("executed", data["n"])
    if data["n"] == 20:
        hold()
    time.sleep(0.002)
    return data
"""


def test_a_worker_that_drains_begins_nothing_more(workshop: Workshop, eventually: Eventually) -> None:
    """SIGTERM while an item runs, with others at hand: it ends after that one, with 0; the next worker has the rest."""
    *others, worker = start(workshop, HELD, "distributor", "collector", "worker C --log-level debug")
    eventually(lambda: workshop.lines("executed")[-1:] == ["20"], "the item runs")
    received = re.compile(r"workers: received Work \((\d+) items\)")
    eventually(lambda: sum(map(int, received.findall(worker.err))) > 21, "others are at hand")
    worker.signal(signal.SIGTERM)
    eventually(lambda: "workers: sent ItemsReturned" in worker.err, "what it had not begun is handed back at once")
    workshop.write("go", "")
    assert worker.wait() == 0, worker.err
    assert workshop.numbers("executed") == list(range(21))
    others.append(workshop.start("-m", "app", "worker", "C"))
    assert [one.wait() for one in others] == [0, 0, 0], others[0].err
    assert sorted(workshop.numbers("executed")) == collected(workshop) == list(range(60))


# tasks ----------------------------------------------------------------------------------------------------------------

BROKEN = {
    "source": """
@app.task("A")
def broken():
    for n in range(10):
        if n == 3:
            raise ValueError("no more today")
        yield {"n": n}
""",
    "gate": """
sent = []

@app.task("A")
def broken():
    for n in range(10):
        sent.append(n)
        yield {"n": n}

@app.available("A")
def gate(last_ack_data):
    if len(sent) == 3:
        raise ValueError("no more today")
    return True
""",
    "key": """
def key(item):
    if item["n"] == 3:
        raise ValueError("no more today")
    return str(item["n"])

app.task("A", key=key)(lambda: items(10))
""",
    "handle": """
import zmqpipeline

zmqpipeline.TaskType.register_type("A")

@app.register
class Broken(zmqpipeline.Task):
    task_type = zmqpipeline.TaskType("A")
    endpoint = zmqpipeline.EndpointAddress("ipc://broken.ipc")
    dependencies = []
    n = -1

    def handle(self, data, address, msgtype):
        self.n += 1
        if self.n == 3:
            raise ValueError("no more today")
        return {"n": self.n}
""",
}
REST = """
app.task("B", depends_on="A")(lambda: items(4))
app.task("C")(lambda: items(30))

for task in "ABC":
    app.add_worker(task, lambda data: data)
"""


@pytest.mark.slow
@pytest.mark.parametrize("part", BROKEN)
def test_a_task_whose_part_raises_is_failed_alone(part: str, workshop: Workshop) -> None:
    """What it had yielded is collected, what depends on it is aborted, the others finish; said once, status 1."""
    program = run(workshop, BROKEN[part] + REST)
    assert collected(workshop, "A") == [0, 1, 2]
    assert collected(workshop, "B") == []
    assert collected(workshop) == list(range(30))
    assert program.err.count("Traceback") == program.err.count("Task 'A' failed: ValueError: no more today") == 1
    assert "Task 'B' is aborted" in program.err
    assert failures(workshop) == []


@pytest.mark.slow
def test_the_distributor_raises_it_at_the_end(workshop: Workshop) -> None:
    """`Distributor.run()` in a program of one's own: all else is collected before the source's error comes out."""
    raised = """
if __name__ == "__main__" and sys.argv[1] == "distributor":
    try:
        app.compile("distributor").run()
    except ValueError as error:
        print(error, len(open("collected-C").readlines()))
    sys.exit()
"""
    programs = start(workshop, BROKEN["source"] + REST + raised, "distributor", "collector", "worker A", "worker C")
    assert [one.wait() for one in programs] == [0, 1, 0, 0], programs[0].err
    assert programs[0].out == "no more today 30\n"


@pytest.mark.slow
def test_a_gate_that_stays_closed_fails_its_task(workshop: Workshop) -> None:
    """When no ACK can come any more that would open it, the run does not wait: it says which one, and status 1."""
    body = """
app.task("C")(lambda: items(10))
app.task("D")(lambda: items(20))
app.add_worker("C", lambda data: data)
app.add_worker("D", lambda data: data)
app.add_ack_data(lambda: {"day": "Monday"})
asked = []

@app.available("C")
def gate(last_ack_data):
    asked.append(1)
    return len(asked) <= 3
"""
    program = run(workshop, body)
    assert "The gate of task 'C'" in program.err
    assert re.search("The last ACK was 23 of '[CD]' and carried .*'day': 'Monday'", program.err), program.err
    assert collected(workshop) == [0, 1, 2]
    assert collected(workshop, "D") == list(range(20))


@pytest.mark.slow
def test_a_dependent_chooses_what_a_failed_item_means(workshop: Workshop) -> None:
    """One is aborted, with what depends on it in turn; one goes on all the same, after all of the first is done."""
    body = """
app.task("A")(lambda: items(5))
app.task("B", depends_on="A")(lambda: items(5))
app.task("C", depends_on="A", on_failed="continue")(lambda: items(5))
app.task("D", depends_on="B")(lambda: items(5))

@app.worker("A")
def work(data):
    return {"n": 1 // (data["n"] != 2) and data["n"]}

for task in "BCD":
    app.add_worker(task, lambda data: data)
"""
    program = run(workshop, body)
    assert collected(workshop, "A") == [0, 1, 3, 4]
    assert collected(workshop) == [0, 1, 2, 3, 4]
    assert collected(workshop, "B") == collected(workshop, "D") == []
    assert all(f"Task '{task}' is aborted" in program.err for task in "BD")
    assert [one["data"] for one in failures(workshop)] == [{"n": 2}]


# the collector --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_collector_that_raises_fails_the_item(workshop: Workshop) -> None:
    """Stage collector, with the traceback; everything else is collected, and nothing is executed again."""
    body = """
app.task("C")(lambda: items(20))

@app.worker("C")
def work(data):
    note("executed", data["n"])
    return data

@app.collector("C")
def strict(data):
    if data["n"] == 7:
        raise LookupError("no seven")
    note("collected-C", data["n"])
"""
    summary = run(workshop, body).json
    (failure,) = failures(workshop)
    assert (failure["data"], failure["stage"], failure["error"]) == ({"n": 7}, "collector", "LookupError")
    assert 'raise LookupError("no seven")' in failure["traceback"]
    assert collected(workshop) == [n for n in range(20) if n != 7]
    assert sorted(workshop.numbers("executed")) == list(range(20))
    assert (summary["failures"], summary["tasks"]["C"]["failed"]) == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["finished", "ack_data", "failed"])
def test_a_function_beside_the_collector_that_raises_is_logged(part: str, workshop: Workshop) -> None:
    """`finished`, `ack_data`, `failed`: everything is collected all the same, once; the status is 1."""
    body = """
app.task("C")(lambda: items(10))

@app.worker("C")
def work(data):
    if data["n"] == 4 and "RAISE" in os.environ:
        raise ValueError("no four")
    return data

def odd():
    raise LookupError("no room today")

"""
    environ, more = ({"RAISE": "1"}, "") if part == "failed" else ({}, f"app.add_{part}(odd)\n")
    program = run(workshop, body + more, **environ)
    assert "LookupError: no room today" in program.err
    assert collected(workshop) == [n for n in range(10) if n != 4 or part != "failed"]


@pytest.mark.slow
def test_a_failed_item_is_told_in_the_collector_and_by_each_status(workshop: Workshop) -> None:
    """The function runs in the collector's process; that and the distributor end with 1, a worker with 0."""
    body = """
app.task("C")(lambda: items(10))
app.add_worker("C", lambda data: {"n": data["n"] + 0 * (1 // (data["n"] - 4))})
"""
    distributor, collector, worker = start(workshop, body, "distributor", "collector", "worker C")
    assert [one.wait() for one in (distributor, collector, worker)] == [1, 1, 0], distributor.err
    (failure,) = failures(workshop)
    assert (failure["pid"], failure["data"], failure["stage"]) == (collector.pid, {"n": 4}, "worker")
    assert failure["error"] == "ZeroDivisionError"
    assert collected(workshop) == [n for n in range(10) if n != 4]


# the table ------------------------------------------------------------------------------------------------------------

NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_each_row_names_tests_that_exist() -> None:
    """The last column of each row of the table; and whatever else the section names, there is."""
    text = (ROOT / "docs/explanation/delivery.md").read_text(encoding="utf-8")
    section = text.partition("## What goes wrong")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 13
    assert [row[0] for row in rows if len(row) != 3 or not NAMED.search(row[2])] == [], "no test shows these"
    for path, name in NAMED.findall(section):
        source = (ROOT / "tests/acceptance" / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"there is no {path}::{name}"
