"""`metrics` by real processes: scraped over HTTP, it says what the summary says, and outlives the run."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.support.apps import ENDS_WHEN_TOLD

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

# Every tenth item fails for good, others once; item 7 kills its worker once. `finished` waits for the file `go`.
APP = (
    """
import os, pathlib, signal, time
from zmqpipeline import Pipeline

app = Pipeline("counted")
HERE = pathlib.Path(__file__).parent

@app.task("A", times=100, retries=2, backoff=0.01)
def first():
    return {}

@app.task("B", times=5, depends_on=["A"])
def second():
    return {}

@app.worker("A")
def on_first(data, number, attempt):
    if number % 10 == 0 or (number % 10 == 1 and attempt == 1):
        raise OSError("no answer")
    if number == 7 and not (HERE / "killed").exists():
        (HERE / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return data

@app.worker("B")
def on_second(data):
    return data

@app.collector
def collect(data):
    pass
"""
    + ENDS_WHEN_TOLD
)

STATES = ("sent", "collected", "failed", "aborted", "skipped", "redelivered", "duplicates")


def scraped(address: str) -> dict[str, float]:
    """The samples that are exposed, by name and labels."""
    with urllib.request.urlopen(address, timeout=60) as reply:
        assert reply.headers["Content-Type"].startswith("text/plain")
        lines = reply.read().decode().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            assert name not in found, line
            found[name] = float(value)
    return found


@pytest.fixture
def serve(workshop: Workshop, eventually: Callable[..., None]) -> Callable[..., tuple[Program, str]]:
    """Start `metrics` on any free port: the process, and the address that it says."""

    def start(*arguments: str) -> tuple[Program, str]:
        program = workshop.start("-m", "app", "metrics", "--port", "0", *arguments)
        eventually(lambda: program.ended() or "\n" in program.err, "the address")
        said = re.fullmatch(r"Metrics of '\w+': (http://\S+/metrics)\n", program.err)
        assert said, program.err
        return program, said[1]

    return start


def test_the_counters_are_those_of_the_summary(
    workshop: Workshop, serve: Callable[..., tuple[Program, str]], eventually: Callable[..., None]
) -> None:
    """With failures, retries and a killed worker; before the run and after it `zmqpipeline_up` is 0."""
    workshop.write("app.py", APP)
    program, address = serve()
    assert scraped(address) == {"zmqpipeline_up": 0}
    run = workshop.start("-m", "app", "run", "--workers", "2", "--json")
    eventually(lambda: run.ended() or (workshop.folder / "finishing").exists(), "the end of the items")
    found: dict[str, float] = {}

    def is_up() -> bool:
        found.update(scraped(address))
        return found["zmqpipeline_up"] == 1

    eventually(is_up, "an answer")
    workshop.write("go", "")
    assert run.wait() == 1, run.err
    tasks = run.json["tasks"]
    assert tasks["A"]["failed"] == 10
    assert tasks["A"]["redelivered"] >= 30
    assert tasks["B"]["aborted"] == 5
    counted = {
        task: {state: found[f'zmqpipeline_items_total{{state="{state}",task="{task}"}}'] for state in STATES}
        for task in tasks
    }
    assert counted == {task: {state: told[state] for state in STATES} for task, told in tasks.items()}
    assert found['zmqpipeline_expected_items{task="A"}'] == 100
    assert (
        found['zmqpipeline_task_state{state="complete",task="A"}']
        + found['zmqpipeline_task_state{state="failed",task="A"}']
        == 1
    )
    assert scraped(address) == {"zmqpipeline_up": 0}
    program.signal(signal.SIGTERM)
    assert program.wait() == 143
    assert program.err.count("\n") == 1, program.err


def test_at_an_address_it_waits_for_whoever_comes(
    workshop: Workshop,
    free_port: int,
    serve: Callable[..., tuple[Program, str]],
    eventually: Callable[..., None],
) -> None:
    """A distributor that is killed and started again is found again; many scrapes at once are one question."""
    workshop.write("app.py", APP)
    place = ("--endpoint", f"tcp://127.0.0.1:{free_port}")
    program, address = serve(*place)
    began = time.monotonic()
    answers: list[dict[str, float]] = []
    threads = [threading.Thread(target=lambda: answers.append(scraped(address))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [{"zmqpipeline_up": 0}] * 8
    assert time.monotonic() - began < 12, "each has waited for its own"
    for _ in range(2):
        distributor = workshop.start("-m", "app", "distributor", *place)
        info = 'zmqpipeline_run_info{phase="greeting",pipeline="counted",run=""}'
        eventually(lambda info=info: info in scraped(address), "an answer")
        distributor.signal(signal.SIGKILL)
        distributor.wait()
        assert scraped(address) == {"zmqpipeline_up": 0}
    program.signal(signal.SIGINT)
    assert program.wait() == 130


def test_services_are_tasks(
    workshop: Workshop, free_port: int, serve: Callable[..., tuple[Program, str]], eventually: Callable[..., None]
) -> None:
    """The broker is asked, and what it has answered counts as collected."""
    workshop.write("app.py", SERVICE)
    place = ("--endpoint", f"tcp://127.0.0.1:{free_port}")
    for role in (("service",), ("service-worker", "upper")):
        workshop.start("-m", "app", *role, *place)
    status, call = workshop.run("-m", "app", "call", "upper", '{"text": "a"}', *place)
    assert status == 0, call.err
    _, address = serve(*place)
    done = 'zmqpipeline_items_total{state="collected",task="upper"}'
    eventually(lambda: scraped(address).items() >= {done: 1, "zmqpipeline_up": 1}.items(), "the request")


SERVICE = """
from zmqpipeline import Pipeline
app = Pipeline("shouts")

@app.service("upper")
def upper(data):
    return {"text": data["text"].upper()}

if __name__ == "__main__":
    app.main()
"""


def test_what_the_user_can_mend_is_one_line(workshop: Workshop) -> None:
    """A port that is taken, a host that is none, an address that nobody can be reached at: status 2."""
    workshop.write("app.py", APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, said in (
            (("--port", str(port)), f"Nobody can listen at 127.0.0.1 port {port}: "),
            (("--port", "0", "--host", "no such host"), "Nobody can listen at no such host port 0: "),
            (("--port", "0", "--endpoint", "inproc://x"), "inproc"),
            (("--port", "0", "--endpoint", "tpc://x:1"), "tpc"),
            (("--port", "0", "--keys", str(workshop.folder / "none"), "--endpoint", "tcp://127.0.0.1:1"), "none"),
        ):
            status, program = workshop.run("-m", "app", "metrics", *arguments)
            assert (status, program.err.count("\n")) == (2, 1), program.err
            assert said in program.err


def test_without_the_package_it_says_what_to_install(workshop: Workshop) -> None:
    """One line, status 2; all other commands, and the help of all, need it as little as before."""
    workshop.write("app.py", APP)
    workshop.write("prometheus_client.py", "raise ModuleNotFoundError(\"No module named 'prometheus_client'\")")
    path = os.pathsep.join((str(workshop.folder), workshop.environ["PYTHONPATH"]))
    status, program = workshop.run("-m", "app", "metrics", "--port", "0", PYTHONPATH=path)
    assert (status, program.err.count("\n")) == (2, 1), program.err
    assert "pip install 'zmqpipeline[metrics]'" in program.err
    status, program = workshop.run("-m", "app", "--help", PYTHONPATH=path)
    assert status == 0, program.err
    assert re.search(r"^  metrics ", program.out, re.M)


def test_only_the_metrics_are_served(workshop: Workshop, serve: Callable[..., tuple[Program, str]]) -> None:
    """Nothing can be changed by it, and garbage does not end it."""
    workshop.write("app.py", APP)
    program, address = serve()
    port = int(address.split(":")[2].split("/")[0])
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(urllib.request.Request(address, data=b"x", method="POST"), timeout=60)
    for garbage in (b"\x00\xff" * 2000 + b"\r\n\r\n", b"GET /metrics HTTP/9.9\r\n\r\n", b""):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(garbage)
    assert scraped(address) == {"zmqpipeline_up": 0}
    assert not program.ended()
