"""The programs of a service, a file and a process each: broker, worker, client, over tcp and ipc and in any order."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

SETTINGS = """
import zmqpipeline
zmqpipeline.TaskType.register_type("UPPER")
FRONTEND_ENDPOINT = {frontend!r}
BACKEND_ENDPOINT = {backend!r}
"""

BROKER = """
import settings
import zmqpipeline

if __name__ == "__main__":
    service = zmqpipeline.Service(
        zmqpipeline.EndpointAddress(settings.FRONTEND_ENDPOINT),
        zmqpipeline.EndpointAddress(settings.BACKEND_ENDPOINT),
    )
    try:
        service.run()
    except KeyboardInterrupt:
        service.shutdown()
    print("service finished")
"""

WORKER = """
import settings
import zmqpipeline
from zmqpipeline.utils import shutdown

class Upper(zmqpipeline.ServiceWorker):
    task_type = zmqpipeline.TaskType("UPPER")
    endpoint = zmqpipeline.EndpointAddress(settings.BACKEND_ENDPOINT)
    n = 0

    def handle_message(self, data, task_type, msgtype):
        self.n += 1
        return {"text": data["text"].upper(), "for": task_type, "by": msgtype}

if __name__ == "__main__":
    worker = Upper()
    worker.run()
    print("finished - answered %d requests" % worker.n)
    shutdown.kill_current_process()
"""

CLIENT = """
import settings
import zmqpipeline

with zmqpipeline.ServiceClient(settings.FRONTEND_ENDPOINT, "UPPER") as client:
    print(client.request({"text": "one"}))
    print([answer["text"] for answer in client.request([{"text": letter} for letter in "abcdefgh"])])
"""

PROGRAMS = {"broker.py": BROKER, "worker.py": WORKER, "client.py": CLIENT}
ORDERS = list(itertools.permutations(PROGRAMS))


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("transport", ["tcp", "ipc"])
def test_broker_worker_and_client_in_any_start_order(
    workshop: Workshop, free_port: int, transport: str, order: tuple[str, ...]
) -> None:
    """The client has its answers; Ctrl-C ends the broker, the broker its worker; all have status 0."""
    places = [f"tcp://localhost:{free_port + n}" if transport == "tcp" else f"ipc://service{n}.ipc" for n in (0, 1)]
    workshop.write("settings.py", SETTINGS.format(frontend=places[0], backend=places[1]))
    for name, text in PROGRAMS.items():
        workshop.write(name, text)
    programs = {name: workshop.start(name) for name in order}
    assert programs["client.py"].wait() == 0, programs["client.py"].err
    answers = programs["client.py"].out.splitlines()
    assert answers == ["{'text': 'ONE', 'for': 'UPPER', 'by': 'DATA'}", str(list("ABCDEFGH"))]
    programs["broker.py"].signal(signal.SIGINT)
    assert {name: program.wait() for name, program in programs.items()} == dict.fromkeys(order, 0)
    assert programs["broker.py"].out == "service finished\n"
    assert programs["worker.py"].out == "finished - answered 9 requests\n"
    assert [program.complaints for program in programs.values()] == ["", "", ""]


def test_a_worker_outlives_its_broker_and_serves_the_next(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """kill -9 of the broker tells nobody END: the worker waits, and answers through the broker that comes next."""
    workshop.write("settings.py", SETTINGS.format(frontend="ipc://front.ipc", backend="ipc://back.ipc"))
    for name, text in PROGRAMS.items():
        workshop.write(name, text)
    worker, broker = workshop.start("worker.py"), workshop.start("broker.py")
    assert workshop.run("client.py")[0] == 0
    broker.signal(signal.SIGKILL)
    assert broker.wait() == -signal.SIGKILL
    second = workshop.start("broker.py")
    assert workshop.run("client.py")[0] == 0
    assert not worker.ended()
    second.signal(signal.SIGINT)
    assert (second.wait(), worker.wait()) == (0, 0)
    assert worker.out == "finished - answered 18 requests\n"


def test_a_worker_with_a_blank_type_is_told_the_name_that_was_asked_for(workshop: Workshop) -> None:
    """It serves every name that nobody else serves; its `task_type` is the one of the client."""
    workshop.write("settings.py", SETTINGS.format(frontend="ipc://front.ipc", backend="ipc://back.ipc"))
    blank = WORKER.replace('task_type = zmqpipeline.TaskType("UPPER")', 'task_type = ""')
    client = (
        CLIENT
        + """
with zmqpipeline.ServiceClient(settings.FRONTEND_ENDPOINT) as client:
    print([client.request({"text": "two"}, name)["for"] for name in ("LOWER", "")])
"""
    )
    for name, text in {"broker.py": BROKER, "worker.py": blank, "client.py": client}.items():
        workshop.write(name, text)
    broker, worker = workshop.start("broker.py"), workshop.start("worker.py")
    status, asked = workshop.run("client.py")
    assert status == 0, asked.err
    assert asked.out.splitlines() == [
        "{'text': 'ONE', 'for': 'UPPER', 'by': 'DATA'}", str(list("ABCDEFGH")), "['LOWER', '']",
    ]  # fmt: skip
    broker.signal(signal.SIGINT)
    assert [broker.wait(), worker.wait()] == [0, 0]
