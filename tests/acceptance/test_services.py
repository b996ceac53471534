"""Services as real processes: many clients, killed workers and brokers, the commands and their exit statuses."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = pytest.mark.processes

APP = """
import os, time
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("services")

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

@app.service("square", threads=2, idempotent=True)
def square(data):
    if "stop" in data:
        note("stopped", os.getpid())
        while not Path("go").exists():
            time.sleep(0.01)
    return {"n": data["n"], "square": data["n"] ** 2, "pid": os.getpid()}

@app.service("once")
def once(data):
    note("executed", data["n"])
    while not Path("go").exists():
        time.sleep(0.01)
    return data

@app.service("odd")
def odd(data, task_type):
    if "raise" in data:
        raise LookupError(f"{task_type} knows nothing of {data['raise']}")
    if "large" in data:
        return "x" * data["large"]
    if "thing" in data:
        return {"it": object()}
    return {1: (2, 3), "text": "\\udcff", "of": task_type}

if __name__ == "__main__":
    app.main()
"""

CLIENT = """
import sys, time
from pathlib import Path
import services

client, count, parts = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
numbers = [{"n": client * count + n} for n in range(count)]
with services.app.client("square") as asked:
    futures = [asked.submit(one, timeout=60) for one in numbers[: count // 2]]
    replies = [future.result() for future in futures]
    size = count // parts
    for start in range(count // 2, count, size):
        # nobody is done before all has happened that is to happen on the way
        while start + size == count and not Path("last").exists():
            time.sleep(0.01)
        replies += asked.request(numbers[start : start + size], timeout=60)
        print(len(replies), flush=True)
assert [(one["n"], one["square"]) for one in replies] == [(one["n"], one["n"] ** 2) for one in numbers]
print("right", len(replies), *{one["pid"] for one in replies})
"""


class Services:
    """The app's broker, workers and clients, in one workshop, at its own default address."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        workshop.write("services.py", APP)
        workshop.write("client.py", CLIENT)

    def start(self, *arguments: str) -> Program:
        """Run one of the app's commands."""
        return self.workshop.start("-m", "services", *arguments)

    def call(self, name: str, request: str, *flags: str) -> tuple[int, Program]:
        """Run `call` to its end."""
        return self.workshop.run("-m", "services", "call", name, request, *flags)

    def error(self, name: str, request: str, *flags: str) -> tuple[int, str]:
        """The status and the one line of a `call` that fails."""
        status, program = self.call(name, request, *flags)
        assert not program.out
        assert len(program.err.splitlines()) == 1, program.err
        return status, program.err


@pytest.fixture
def services(workshop: Workshop) -> Services:
    """The app in a folder of its own; nothing runs yet."""
    return Services(workshop)


Eventually = Callable[..., None]


@pytest.mark.slow
def test_sixteen_thousand_right_answers_although_two_of_four_workers_are_killed(
    services: Services, eventually: Eventually
) -> None:
    """8 clients ask 2,000 times each, of an idempotent service; two workers die by SIGKILL on the way."""
    broker = services.start("service")
    workers = [services.start("service-worker", "square") for _ in range(4)]
    clients = [services.workshop.start("client.py", str(n), "2000", "20") for n in range(8)]
    for killed, progress in zip(workers[:2], (1100, 1500), strict=True):
        eventually(lambda least=progress: any(f"{least}\n" in one.out for one in clients), f"{progress} replies")
        assert not any(one.ended() for one in (broker, *clients)), broker.err
        killed.signal(signal.SIGKILL)
    services.workshop.write("last", "")
    for one in clients:
        assert one.wait() == 0, one.err
        assert "right 2000" in one.out
    assert not broker.ended()
    broker.signal(signal.SIGTERM)
    assert broker.wait() == 143
    assert [one.wait() for one in workers] == [-signal.SIGKILL, -signal.SIGKILL, 0, 0]


@pytest.mark.slow
def test_a_broker_that_is_killed_and_started_anew_loses_no_request(services: Services, eventually: Eventually) -> None:
    """Clients and workers find the new one; what waits of an idempotent service is answered, each request rightly."""
    broker = services.start("service")
    workers = [services.start("service-worker", "square") for _ in range(2)]
    clients = [services.workshop.start("client.py", str(n), "2000", "20") for n in range(3)]
    eventually(lambda: any("1200\n" in one.out for one in clients), "some progress")
    broker.signal(signal.SIGKILL)
    broker.wait()
    assert not any(one.ended() for one in (*clients, *workers))
    second = services.start("service")
    services.workshop.write("last", "")
    for one in clients:
        assert one.wait() == 0, one.err
    second.signal(signal.SIGTERM)
    assert second.wait() == 143
    assert [one.wait() for one in workers] == [0, 0]


@pytest.mark.slow
def test_a_request_that_may_not_be_executed_twice_is_not(services: Services, eventually: Eventually) -> None:
    """Its worker is killed while it runs, then the broker while another one does: both callers are told so."""
    broker = services.start("service")
    first = services.start("service-worker", "once")
    asked = services.start("call", "once", '{"n": 1}')
    eventually(lambda: services.workshop.numbers("executed") == [1], "the first is being executed")
    second = services.start("service-worker", "once")
    first.signal(signal.SIGKILL)
    assert asked.wait() == 1
    assert "WorkerLost" in asked.err or "was lost" in asked.err
    asked = services.start("call", "once", '{"n": 2}')
    eventually(lambda: services.workshop.numbers("executed") == [1, 2], "the second is being executed")
    broker.signal(signal.SIGKILL)
    broker.wait()
    broker = services.start("service")
    services.workshop.write("go", "")
    assert asked.wait() == 1
    assert "may have been executed" in asked.err
    assert services.call("once", '{"n": 3}')[1].json == {"n": 3}
    assert services.workshop.numbers("executed") == [1, 2, 3]
    broker.signal(signal.SIGINT)
    assert broker.wait() == 130
    assert second.wait() == 0


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_answers_what_it_has_begun(services: Services, eventually: Eventually) -> None:
    """SIGTERM: the running request is answered, the one behind it goes to the next worker, the status is 0."""
    broker = services.start("service")
    worker = services.start("service-worker", "square", "--threads", "1")
    first = services.start("call", "square", '{"n": 1, "stop": true}')
    eventually(lambda: services.workshop.lines("stopped"), "the request runs")
    second = services.start("call", "square", '{"n": 2}')
    worker.signal(signal.SIGTERM)
    successor = services.start("service-worker", "square")
    assert second.wait() == 0, second.err
    assert second.json["pid"] == successor.pid
    services.workshop.write("go", "")
    assert first.wait() == 0, first.err
    assert first.json["pid"] == worker.pid
    assert worker.wait() == 0
    broker.signal(signal.SIGTERM)
    assert (broker.wait(), successor.wait()) == (143, 0)


@pytest.mark.slow
def test_a_broker_that_is_asked_to_end_waits_for_what_runs(services: Services, eventually: Eventually) -> None:
    """SIGTERM: the running request is answered first; a new one is refused in the meantime; then all end."""
    broker = services.start("service")
    worker = services.start("service-worker", "square", "--threads", "1")
    running = services.start("call", "square", '{"n": 1, "stop": true}')
    eventually(lambda: services.workshop.lines("stopped"), "the request runs")
    broker.signal(signal.SIGTERM)
    status, line = services.error("square", '{"n": 2}')
    assert status == 1
    assert "broker is ending" in line
    services.workshop.write("go", "")
    assert running.wait() == 0, running.err
    assert (broker.wait(), worker.wait()) == (143, 0)


@pytest.mark.slow
def test_call_prints_the_reply_as_json_and_its_errors_as_one_line(services: Services) -> None:
    """Also what JSON has no form for; each error with its cause, and the status that the command line promises."""
    broker = services.start("service")
    workers = services.start("service-worker")
    # the worker's start counts, on a busy machine, too
    status, program = services.call("odd", "{}", "--timeout", "60")
    assert status == 0, program.err
    assert json.loads(program.out) == {"1": [2, 3], "text": "\udcff", "of": "odd"}
    assert services.call("square", '[{"n": 2}, {"n": 3}]')[1].json[1]["square"] == 9
    for name, request, status, words in (
        ("odd", '{"raise": "it"}', 1, "LookupError: odd knows nothing of it"),
        ("odd", '{"thing": 1}', 1, "$.it"),
        ("odd", '{"large": 70000000}', 1, "max_message_bytes"),
        ("odd", "[1]", 2, "no JSON object"),
        ("odd", "{", 2, "no JSON"),
        ("ode", "{}", 2, "Did you mean 'odd'?"),
    ):
        seen, line = services.error(name, request)
        assert seen == status, line
        assert words in line
    broker.signal(signal.SIGTERM)
    assert (broker.wait(), workers.wait()) == (143, 0)
    status, line = services.error("odd", "{}", "--timeout", "0.3")
    assert status == 1
    assert "no broker is connected" in line
    assert "timeout 0.3 s" in line


@pytest.mark.slow
def test_a_service_that_nobody_serves_is_said_to_be_unavailable_once_the_broker_is_5_s_old(services: Services) -> None:
    """The first call waits for the young broker's 5 s, the second one does not."""
    services.start("service")
    first, second = (services.error("once", '{"n": 1}', "--timeout", "50") for _ in range(2))
    assert first[0] == second[0] == 1
    assert "Nobody serves 'once'. Served now: none." in first[1]
    assert "Nobody serves 'once'. Served now: none." in second[1]


@pytest.mark.slow
def test_what_is_not_there_is_a_usage_error(services: Services) -> None:
    """An unknown service, and a second broker at the same address."""
    status, worker = services.workshop.run("-m", "services", "service-worker", "squares")
    assert status == 2
    assert "Did you mean 'square'?" in worker.err
    services.start("service")
    status, said = services.error("odd", "{}", "--timeout", "50")
    assert (status, "Nobody serves 'odd'" in said) == (1, True), said  # so the broker is there, and a worker is not
    status, broker = services.workshop.run("-m", "services", "service")
    assert status == 2
    assert "is in use" in broker.err


def test_a_program_with_an_unclosed_client_ends(services: Services) -> None:
    """Neither an open request nor a missing broker keeps the interpreter; the status is the program's own."""
    services.workshop.write(
        "unclosed.py",
        "import services\nclient = services.app.client('square')\nfuture = client.submit({'n': 1}, timeout=None)\n"
        "print('bye')\n",
    )
    for start_broker in (False, True):
        if start_broker:
            services.start("service")
            services.start("service-worker", "square")
        status, program = services.workshop.run("unclosed.py")
        assert (status, program.out, program.err) == (0, "bye\n", "")
