"""What is met first: results from `app.run`, mistakes that are told, addresses as text, and a program's own hooks."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.processes

APP = """
import sys
from zmqpipeline import Pipeline

app = Pipeline("first")

@app.task("C")
def numbers():
    for n in range(4):
        yield {"n": n}

@app.worker("C")
def double(data):
    if data["n"] == 3:
        raise ValueError("three")
    return {"n": 2 * data["n"]}

@app.collector
def collect(data):
    data["n"] = "changed"
"""


@pytest.mark.slow
def test_app_run_returns_results_on_request(workshop: Any) -> None:
    """As `test_run` has them: pairs of task type and data, as they came, without the failed one; else an empty list."""
    call = 'if __name__ == "__main__":\n    summary = app.run(collect_results=True)\n'
    shown = "    print(sorted((task, data['n']) for task, data in summary.results), summary.ok)\n"
    workshop.write("app.py", APP + call + shown + "    print(app.run().results)\n")
    status, program = workshop.run("app.py")
    assert (status, program.out) == (0, "[('C', 0), ('C', 2), ('C', 4)] False\n[]\n"), program.err


@pytest.mark.slow
def test_a_journal_gives_the_results_of_this_call(workshop: Any) -> None:
    """A finished run is not started again, and has no results to give."""
    call = "    print(len(app.run(collect_results=True, journal='run.db').results))\n"
    workshop.write("app.py", APP + 'if __name__ == "__main__":\n' + call + call)
    status, program = workshop.run("app.py")
    assert (status, program.out) == (0, "3\n0\n"), program.err


def test_a_task_that_takes_an_item_is_told_of_the_worker(workshop: Any) -> None:
    """``@app.task("add") def add(data)``, as Celery has it: the last line names the decorator which executes items."""
    workshop.write("app.py", APP + '@app.task("add")\ndef add(data):\n    return data\n')
    status, program = workshop.run("-m", "app", "run")
    said = "The task function 'add' of task 'add' takes a parameter 'data'"
    last = program.err.splitlines()[-1]
    assert (status, program.err.count("Traceback")) == (1, 1), program.err
    assert last.startswith(f"zmqpipeline.errors.RegistrationError: {said}")
    assert 'app.py", line 21' in program.err
    assert "is decorated with `@app.worker`" in last
    status, program = workshop.run("-m", "zmqpipeline", "-A", "app", "run")
    assert (status, program.err) == (2, f"Error: app.py:21: {last.partition(': ')[2]}\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "told"),
    [
        (("-m", "app"), "python -m app"),
        (("app.py",), "python app.py"),
        (("-m", "zmqpipeline", "-A", "app:app"), "python -m zmqpipeline -A app:app"),
    ],
)
def test_a_message_names_the_command_that_was_typed(
    workshop: Any, eventually: Any, way: tuple[str, ...], told: str
) -> None:
    """A distributor without a collector, then without a worker, says what to type, in the words of its own start."""
    hasty = "from zmqpipeline.protocol import distributor as d\nd.WARN_FIRST_SECONDS = d.WARN_SECONDS = 0.2\n"
    workshop.write("app.py", hasty + APP.replace('"C"', '"a c"') + "if __name__ == '__main__':\n    app.main()\n")
    distributor = workshop.start(*way, "distributor")
    eventually(
        lambda: f"Start one: {told} collector, with the --endpoint" in distributor.err, "the line on the collector"
    )
    collector = workshop.start(*way, "collector")
    eventually(lambda: f"Start one: {told} worker 'a c', with the --endpoint" in distributor.err, "that on the worker")
    worker = workshop.start(*way, "worker", "a c")
    assert [one.wait() for one in (distributor, collector, worker)] == [1, 1, 0], distributor.err


CLASSES = """
from zmqpipeline import *

TaskType.register_type("C")

class Numbers(Task):
    task_type = TaskType("C")
    endpoint = "ipc://worker.ipc"
    dependencies = []
    def handle(self, data, address, msgtype):
        self.is_complete = True
        return {"n": 1}

class Work(SingleThreadedWorker):
    task_type = TaskType("C")
    endpoint = "ipc://worker.ipc"
    @property
    def collector_endpoint(self):
        return "ipc://collector.ipc"
    def handle_execution(self, data, *args, **kwargs):
        return data

class Gather(Collector):
    def __init__(self):
        self.endpoint, self.ack_endpoint = "ipc://collector.ipc", "ipc://ack.ipc"
    def handle_collection(self, data, task_type, msgtype):
        print(data)

class Facts(MetaDataWorker):
    endpoint = "ipc://meta.ipc"
    def get_metadata(self):
        return {}

def distribute():
    distributor = Distributor("ipc://collector.ipc", "ipc://ack.ipc", True, "ipc://meta.ipc")
    distributor.register_task(Numbers)
    distributor.run()
"""


@pytest.mark.slow
def test_an_endpoint_may_be_a_str_everywhere(workshop: Any) -> None:
    """Class attributes, one that `__init__` sets, a property and arguments: all roles find each other."""
    workshop.write("classes.py", CLASSES)
    calls = ("distribute()", "Work().run()", "Gather().run()", "Facts().run()")
    roles = [workshop.start("-c", f"from classes import *\n{call}") for call in calls]
    assert [role.wait() for role in roles] == [0, 0, 0, 0], [role.err for role in roles]
    assert roles[2].out == "{'n': 1}\n"
    status, program = workshop.run(
        "-c", "from classes import *\nprint(repr(Work.endpoint), type(Work.endpoint).__name__)"
    )
    assert (status, program.out) == (0, "'ipc://worker.ipc' EndpointAddress\n"), program.err


def test_a_malformed_str_is_refused_with_the_class(workshop: Any) -> None:
    """As an EndpointAddress would be, at the class's definition."""
    workshop.write("bad.py", CLASSES.replace('"ipc://meta.ipc"\n', '"icp://meta.ipc"\n', 1))
    status, program = workshop.run("bad.py")
    assert (status, program.err.count("Traceback")) == (1, 1), program.err
    assert "Facts.endpoint: 'icp://meta.ipc' is no address: did you mean ipc://meta.ipc?" in program.err


SERVICE = """
import threading, time
from zmqpipeline import *

class Upper(ServiceWorker):
    endpoint = "ipc://back.ipc"
    task_type = ""
    def handle_message(self, data, task_type, msgtype):
        if data.get("holds"):
            over.wait(60)
        return {"text": data["text"].upper()}

over = threading.Event()
service = Service("ipc://front.ipc", "ipc://back.ipc")
broker = threading.Thread(target=service.run)
broker.start()
with ServiceClient("ipc://front.ipc") as client:
    for timeout in (0.5, 1.0, 1.5):
        began = time.monotonic()
        try:
            client.request({"text": "a"}, timeout=timeout)
        except Exception as error:
            print(type(error).__name__, timeout - 0.05 < time.monotonic() - began, error)
    waiting = client.submit({"text": "b", "holds": True}, timeout=8)
    worker = Upper()
    threading.Thread(target=worker.run).start()
    late = waiting.exception()
    over.set()
    print(client.request({"text": "c"}, timeout=60))
    print(type(late).__name__)
service.shutdown()
broker.join()
"""


@pytest.mark.slow
def test_nobody_is_said_of_a_short_timeout_too(workshop: Any) -> None:
    """A broker younger than 5 s knows that nobody serves a name; a request that a worker has is merely late."""
    workshop.write("service.py", SERVICE.replace('task_type = ""', 'task_type = ""\n    n_threads = 2'))
    status, program = workshop.run("service.py")
    assert status == 0, program.err
    said = "ServiceUnavailable True Nobody served '' within the timeout. Start a worker for it, or check the name."
    assert program.out.splitlines() == [said, said, said, "{'text': 'C'}", "ServiceTimeout"], program.err


def test_a_programs_own_excepthook_stays(workshop: Any) -> None:
    """Neither a pipeline nor a role that runs replaces `sys.excepthook`; nor does an error of ours, caught or kept."""
    text = """
import sys
before = sys.excepthook
from zmqpipeline import EndpointAddress
from zmqpipeline.errors import PipelineError
exec(open("app.py").read())
try:
    EndpointAddress("tpc://x:1")
except PipelineError as error:
    kept = error
if __name__ == "__main__":
    print(app.test_run(raise_failures=False).summary.ok, sys.excepthook is before)
    1 / 0
"""
    workshop.write("app.py", APP)
    workshop.write("program.py", text)
    status, program = workshop.run("program.py")
    assert (status, program.out) == (1, "False True\n"), program.err
    assert program.err.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert "Traceback" in program.err


def test_a_wrong_task_name_is_told_with_its_line(workshop: Any) -> None:
    """A worker for a task that there is not, and a task without a worker."""
    text = APP.replace('@app.worker("C")', '@app.worker("D")')
    number = 1 + text.splitlines().index('@app.worker("D")')
    workshop.write("app.py", text + 'if __name__ == "__main__":\n    app.main()\n')
    status, program = workshop.run("-m", "app", "run")
    said = f"Error: `@app.worker('D')` (app.py:{number}) is for a task that does not exist. Known: 'C'."
    assert (status, program.err.startswith(said), len(program.err.splitlines())) == (2, True, 1), program.err
    workshop.write("app.py", text.replace('@app.worker("D")', "") + 'if __name__ == "__main__":\n    app.main()\n')
    status, program = workshop.run("-m", "app", "run")
    number = 1 + next(n for n, line in enumerate(text.splitlines()) if line.startswith("@app.task"))
    assert (status, program.err.startswith(f"Error: No worker for task 'C' (app.py:{number}). ")) == (2, True)
