"""The first bug of a program is told where it was raised, with file and line; a thousand of a kind are one thing."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import troubles

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
    """In the middle of a run that goes on: what was raised, in which file and line, with its traceback.

    The quickest of three runs counts: what else the machine does only adds to it.
    """
    workshop.write("app.py", APP)
    seconds = []
    for _ in range(3):
        (workshop.folder / "raised").unlink(missing_ok=True)
        program = workshop.start("-m", "app", "run", "--workers", "1", BUG=where, SLEEP="0.02", ITEMS="100")
        eventually((workshop.folder / "raised").exists, "the bug")
        began = time.monotonic()
        eventually(lambda one=program: RAISED in one.err and "Traceback" in one.err, "the line")
        seconds.append(time.monotonic() - began)
        assert program.wait() == 1
    assert min(seconds) < 1.0, seconds
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


@pytest.mark.parametrize("where", ["worker", "collector"])
def test_one_failed_item_is_one_line_in_one_process_tree(where: str, workshop: Workshop) -> None:
    """With its traceback and the item; role by role the distributor says it, too: the worker may be elsewhere."""
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", "run", "--workers", "1", BUG=where, ITEMS="1")
    assert status == 1
    lines = [line for line in troubles(program.err) if "WARNING" in line or "ERROR" in line]
    assert len(lines) == 1, program.err
    assert f"Item 0 of 'C' failed ({where}): {RAISED}. The item: {{'n': 0}}." in lines[0]
    if where == "worker":
        roles = [
            workshop.start("-m", "app", one, BUG=where, ITEMS="1") for one in ("collector", "distributor", "worker")
        ]
        assert [role.wait() for role in roles] == [1, 1, 0]
        assert f"Item 0 of 'C' failed for good after 1 attempt(s) (worker): {RAISED}" in roles[1].err


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
        whole = "The run is over and everything was collected, but the"
        assert f"{whole} {where} function raised {RAISED}" in role.err, role.err


METADATA = """
@app.metadata
def given():
    return {}["m"] if BUG == "metadata" else ["no dict"]

"""


@pytest.mark.parametrize("way", ["run", "roles"])
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("metadata", r"the metadata function raised KeyError: 'm' in app\.py:47 given"),
        (
            "returned",
            r"the metadata function raised .*The metadata function 'given' \(app\.py:45\) returned a list, .*",
        ),
    ],
)
def test_metadata_that_fail_are_told_in_each_line(where: str, said: str, way: str, workshop: Workshop) -> None:
    """What was raised, in which file and line: in the line of the function, and in that of each task it aborts."""
    workshop.write("app.py", APP.replace("if __name__", f"{METADATA.strip()}\n\nif __name__"))
    if way == "run":
        status, program = workshop.run("-m", "app", "run", "--workers", "1", BUG=where)
        assert (status, program.err.count("Traceback")) == (1, int(where == "metadata")), program.err
    else:
        roles = [workshop.start("-m", "app", one, BUG=where) for one in ("distributor", "collector", "worker")]
        assert [role.wait() for role in roles] == [1, 1, 0]
        program = roles[0]
    assert re.search(f"The{said[3:]}", program.err), program.err
    assert re.search(f"Task 'C' is aborted: {said}", program.err), program.err


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


INITS = """
import os, time
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("inits")

@app.task("C")
def numbers():
    yield from ({"n": n} for n in range(20))

@app.PART("C")
def load():
    Path("raised").touch()
    return {}["model"]

@app.worker("C", threads=2)
def work(data):
    return data

if __name__ == "__main__":
    app.main()
"""
AT_INIT = "KeyError: 'model' in app.py:15 load"


@pytest.mark.parametrize("part", ["worker_init", "thread_init"])
def test_a_bug_in_an_init_function_is_told_once_and_ends_the_run(
    part: str, workshop: Workshop, eventually: Eventually
) -> None:
    """Of four workers the third that fails: one traceback, their number, and the reason at the end."""
    workshop.write("app.py", INITS.replace("PART", part))
    program = workshop.start("-m", "app", "run", "--workers", "4")
    eventually((workshop.folder / "raised").exists, "the bug")
    # another worker may share the items by then, or the source be slow
    line = rf"could not be initialized, its \d item\(s\) go to others: {re.escape(AT_INIT)}\.\nTraceback "
    eventually(lambda: re.search(line, program.err), "the line")
    assert program.wait() == 1, program.err
    assert program.err.count("Traceback") == 1, program.err
    numbers = re.findall(r"load: (\d+) workers of 'C' could not be initialized", program.err)
    # others have begun, too, when the third one's end is known; it was twenty and more
    assert 3 <= int(numbers[-1]) <= 9, program.err
    assert f"No worker of 'C' can be initialized, and each would meet the same: {AT_INIT}." in program.err
    assert program.err.splitlines()[-1] == f"  C: {AT_INIT} (init)"
    assert program.err.count(AT_INIT) <= 11, program.err


@pytest.mark.alone
def test_a_bug_in_an_init_function_ends_the_run_soon(workshop: Workshop, eventually: Eventually) -> None:
    """Two more starts take about a second; it was four to six. The quickest of three runs counts."""
    workshop.write("app.py", INITS.replace("PART", "worker_init"))
    seconds = []
    for _ in range(3):
        (workshop.folder / "raised").unlink(missing_ok=True)
        program = workshop.start("-m", "app", "run", "--workers", "2")
        eventually((workshop.folder / "raised").exists, "the bug")
        began = time.monotonic()
        assert program.wait() == 1, program.err
        seconds.append(time.monotonic() - began)
    assert min(seconds) < 2.0, seconds


@pytest.mark.slow
def test_a_bug_in_an_init_function_ends_a_run_role_by_role(workshop: Workshop, eventually: Eventually) -> None:
    """The worker has the traceback, the distributor the line; nobody comes within its patience, and the run is over."""
    workshop.write("app.py", INITS.replace("PART", "worker_init"))
    distributor = workshop.start("-m", "app", "distributor", "--exit-when-idle", "20")
    collector, worker = (workshop.start("-m", "app", one) for one in ("collector", "worker"))
    assert worker.wait() == 1, worker.err
    # a source that is slow just then has given one of two items
    pattern = rf"could not be initialized, its \d item\(s\) go to others: {re.escape(AT_INIT)}\. "
    eventually(lambda: re.search(pattern, distributor.err), "the line")
    assert "if none can begin within 20 s, the task fails" in distributor.err
    # whoever looks at the collector alone knows at once, too
    line = f"A worker of task 'C' could not be initialized: {AT_INIT}. If none can begin within 20 s, the task fails."
    eventually(lambda: line in collector.err, "the line")
    assert not collector.ended()
    assert (worker.err.count("Traceback"), worker.err.count("KeyError: 'model' in ")) == (1, 1), worker.err
    assert [distributor.wait(), collector.wait()] == [1, 1]
    for role in (distributor, collector):
        assert "no worker could be initialized, the last one of KeyError: 'model' in app.py:15 load" in role.err
    assert "aborted" in collector.err


@pytest.mark.slow
def test_a_run_that_an_init_function_ended_goes_on_with_its_journal(workshop: Workshop) -> None:
    """It is not finished: when the bug is mended, the same commands do the rest."""
    commands = (("distributor", "--exit-when-idle", "20"), ("collector", "--journal", "run.db"), ("worker",))
    workshop.write("app.py", INITS.replace("PART", "worker_init"))
    assert [role.wait() for role in [workshop.start("-m", "app", *one) for one in commands]] == [1, 1, 1]
    workshop.write("app.py", INITS.replace("PART", "worker_init").replace('return {}["model"]', "return 5"))
    roles = [workshop.start("-m", "app", *one) for one in commands]
    assert [role.wait() for role in roles] == [0, 0, 0], roles[1].err
    status, program = workshop.run("-m", "app", "run", "--journal", "run.db")
    assert status == 0, program.err
    assert "collected 20" in program.err, program.err


@pytest.mark.slow
def test_a_group_of_workers_tells_a_bug_in_an_init_function_once(workshop: Workshop) -> None:
    """`worker --processes 2`: one traceback, their number, the reason, status 1; few lines in the distributor."""
    workshop.write("app.py", INITS.replace("PART", "worker_init"))
    commands = (("distributor",), ("collector",), ("worker", "--processes", "2"))
    distributor, collector, workers = (workshop.start("-m", "app", *one) for one in commands)
    assert workers.wait() == 1, workers.err
    assert workers.err.count("Traceback") == 1, workers.err
    assert f"each would meet the same: {AT_INIT}. The other workers drain." in workers.err
    assert re.search(rf"{re.escape(AT_INIT)}: [3-9] starts of workers of 'C' failed", workers.err), workers.err
    distributor.signal(signal.SIGINT)
    assert [distributor.wait(), collector.wait()] == [130, 1]
    assert re.search(rf"{re.escape(AT_INIT)}: [3-9] workers of 'C' could not be initialized", distributor.err)
    assert "Traceback" not in distributor.err


def test_a_bug_in_init_worker_of_a_class_ends_the_run(workshop: Workshop) -> None:
    """The worker raises WorkerInitError, and names the place; distributor and collector raise RunFailed."""
    before = "    def handle_execution"
    workshop.write("prog.py", CLASSES.replace(before, f"    def init_worker(self):\n        self.no\n{before}"))
    environ = {"BUG": "", "ZMQPIPELINE_EXIT_WHEN_IDLE": "20"}
    programs = {role: workshop.start("prog.py", role, **environ) for role in ("worker", "collector", "distributor")}
    assert [program.wait() for program in programs.values()] == [1, 1, 1]
    place = "AttributeError: 'Works' object has no attribute 'no' in prog.py:19 init_worker"
    last = programs["worker"].err.splitlines()[-1]
    assert last == f"zmqpipeline.errors.WorkerInitError: The worker for task 'C' could not start: {place}"
    # a source that is slow just then has given none
    pattern = rf"could not be initialized, its \d item\(s\) go to others: {re.escape(place)}\. "
    assert re.search(pattern, programs["distributor"].err), programs["distributor"].err
    for role in ("collector", "distributor"):
        last = programs[role].err.splitlines()[-1]
        assert last.startswith("zmqpipeline.errors.RunFailed: "), programs[role].err
        assert place in last


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
