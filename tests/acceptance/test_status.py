"""`status` by real processes: it finds runs and roles, tells what holds them up, and no stranger disturbs it."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.acceptance.conftest import wait_until
from zmqpipeline.processes.run_notes import announced, announced_in

pytestmark = pytest.mark.processes

# Items wait in the worker until the file `go` is there.
APP = """
import os, pathlib, time
from zmqpipeline import Pipeline

app = Pipeline("held")
GO = pathlib.Path(__file__).with_name("go")

@app.task("A", total=3)
def first():
    for n in range(3):
        yield {"n": n}

@app.task("B", depends_on=["A"])
def second():
    yield {"n": 9}

@app.worker("A", threads=2)
def on_first(data):
    pathlib.Path(__file__).with_name(f"began-{data['n']}").touch()
    while not GO.exists():
        time.sleep(0.01)
    return data

@app.worker("B")
def on_second(data):
    return data

@app.collector
def collect(data):
    pass

if __name__ == "__main__":
    app.main()
"""


@pytest.fixture
def began(workshop: Any, eventually: Callable[..., None]) -> Callable[[], None]:
    """Wait until two items are being executed."""

    def wait() -> None:
        eventually(lambda: len(list(workshop.folder.glob("began-*"))) == 2, "two items that run")

    return wait


def status_of(
    workshop: Any, *arguments: str, until: Callable[[list[dict[str, Any]]], object] = bool
) -> list[dict[str, Any]]:
    """What `status --json` prints: an object a run; asked again until that holds of it, such as that anybody is up."""
    told: list[dict[str, Any]] = []

    def is_told() -> object:
        status, program = workshop.run("-m", "app", "status", "--json", *arguments)
        assert status in (0, 2), program.err
        told[:] = [json.loads(line) for line in program.out.splitlines()]
        return until(told)

    wait_until(is_told, "what status is to tell")
    return told


@pytest.mark.slow
def test_a_run_is_found_and_told(workshop: Any, began: Callable[[], None]) -> None:
    """`status` alone finds the private addresses of `run`: tasks, workers, what runs, and why something does not."""
    workshop.write("app.py", APP)
    run = workshop.start("-m", "app", "run", "--workers", "1")
    began()
    # the worker tells what it runs a little later
    (told,) = status_of(workshop, until=lambda told: sum(len(one["running"]) for one in told[0]["workers"]) == 2)
    assert (told["pipeline"], told["phase"]) == ("held", "running")
    first, second = told["tasks"]["A"], told["tasks"]["B"]
    assert (first["state"], first["total"], first["leased"], first["collected"]) == ("open", 3, 2, 0)
    assert (second["state"], second["why"]) == ("waiting", "waits for 'A': 3 of 3 left")
    worker = next(one for one in told["workers"] if one["task"] == "A")
    assert (worker["host"], worker["threads"], worker["state"]) == (socket.gethostname(), 2, "busy")
    assert sorted(item["number"] for item in worker["running"]) == [0, 1]
    os.kill(worker["pid"], 0)  # that process is there

    status, program = workshop.run("-m", "app", "status")
    assert status == 0, program.err
    assert f"held at {told['address']}" in program.out
    assert "waits for 'A': 3 of 3 left" in program.out
    assert f"{worker['host']}/{worker['pid']}" in program.out
    workshop.write("go", "")
    assert run.wait() == 0, run.err


@pytest.mark.slow
def test_two_runs_at_once_are_both_told(workshop: Any, began: Callable[[], None]) -> None:
    """One object a line, one line a run; the one that was started first comes first; --endpoint asks one of them."""
    workshop.write("app.py", APP)
    runs = [workshop.start("-m", "app", "run", "--workers", "1")]
    began()
    (first,) = status_of(workshop)
    place = f"ipc://{workshop.folder}/base"
    runs.append(workshop.start("-m", "app", "run", "--workers", "1", "--endpoint", place))
    both = status_of(workshop, until=lambda told: runs[1].ended() or len(told) == 2)
    assert [one["address"] for one in both] == [first["address"], place]
    assert [one["address"] for one in status_of(workshop, "--endpoint", place)] == [place]
    workshop.write("go", "")
    assert [run.wait() for run in runs] == [0, 0]


def test_a_run_that_was_killed_is_not_found(workshop: Any, began: Callable[[], None]) -> None:
    """Its note is nobody's any more: `status` says so at once, with status 2, and asks nobody."""
    workshop.write("app.py", APP)
    run = workshop.start("-m", "app", "run", "--workers", "1")
    began()
    run.signal(signal.SIGKILL)
    run.wait()
    status, program = workshop.run("-m", "app", "status")
    assert (status, len(program.err.splitlines())) == (2, 1)
    assert "No run of 'held' and no distributor of it is up here" in program.err
    assert not list(workshop.folder.rglob("run-*"))


@pytest.mark.slow
def test_roles_started_one_by_one_are_told(workshop: Any, free_port: int) -> None:
    """A distributor alone says that it has no collector, and then which task has no worker."""
    workshop.write("app.py", APP)
    place = ("--endpoint", f"tcp://127.0.0.1:{free_port}")
    workshop.start("-m", "app", "distributor", *place)
    (told,) = status_of(workshop, *place)
    assert (told["phase"], told["why"]) == ("greeting", "no collector is connected; start one")
    workshop.start("-m", "app", "collector", *place)
    (told,) = status_of(workshop, *place, until=lambda told: told and told[0]["phase"] == "running")
    assert told["tasks"]["A"]["why"] == "no worker for 'A'"


def test_the_usual_address_is_asked(workshop: Any, eventually: Callable[..., None]) -> None:
    """Roles at the well-known address of the app are found without a flag."""
    workshop.write("app.py", APP)
    workshop.start("-m", "app", "distributor")
    eventually(lambda: list(workshop.folder.rglob("status.ipc")), "the distributor's socket")
    (told,) = status_of(workshop)
    assert told["phase"] == "greeting"


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["tcp", "ipc"])
def test_nobody_there_is_one_line_within_two_seconds(protocol: str, workshop: Any, free_port: int) -> None:
    """Status 2, which address was asked, and what to do."""
    workshop.write("app.py", APP)
    place = f"tcp://127.0.0.1:{free_port}" if protocol == "tcp" else f"ipc://{workshop.folder}/none"
    status, program = workshop.run("-m", "app", "status", "--endpoint", place)
    asked = f"tcp://127.0.0.1:{free_port + 4}" if protocol == "tcp" else f"{place}/status.ipc"
    assert (status, program.err.splitlines()) == (
        2,
        [f"Error: No distributor answered at {asked} within 2 s. Start one, or say where it is: --endpoint ADDRESS."],
    )


def test_who_answers_something_else_is_told(workshop: Any, free_port: int, eventually: Callable[..., None]) -> None:
    """A program of another kind at that address: the line says that it is none of ours."""
    workshop.write("app.py", APP)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as other:
        other.linger = 0
        other.bind(f"tcp://127.0.0.1:{free_port + 4}")
        asker = workshop.start("-m", "app", "status", "--endpoint", f"tcp://127.0.0.1:{free_port}")
        assert other.poll(60_000)
        other.send_multipart([other.recv_multipart()[0], b"\x07nonsense"])
        assert asker.wait() == 2
    assert "is none of this version: protocol version 7" in asker.err


@pytest.mark.slow
def test_watch_asks_until_the_run_is_over(workshop: Any, began: Callable[[], None], eventually: Any) -> None:
    """An object each interval, with rates; then the word that nobody answers, and status 0."""
    workshop.write("app.py", APP)
    run = workshop.start("-m", "app", "run", "--workers", "1")
    began()
    watch = workshop.start("-m", "app", "status", "--json", "--watch", "--interval", "0.1")
    eventually(lambda: watch.out.count("\n") >= 3, "three answers")
    workshop.write("go", "")
    assert run.wait() == 0, run.err
    assert watch.wait() == 0, watch.err
    assert "No distributor answers any more" in watch.err
    told = [json.loads(line) for line in watch.out.splitlines()]
    assert [one["seconds"] for one in told] == sorted(one["seconds"] for one in told)
    assert {one["run"] for one in told} == {told[0]["run"]}


@pytest.mark.slow
def test_strangers_on_the_status_address_are_dropped(
    workshop: Any, free_port: int, began: Callable[[], None], eventually: Callable[..., None]
) -> None:
    """Garbage, another protocol and forged reports: told once a peer; questions are answered, and the run ends well."""
    workshop.write("app.py", APP)
    place = ("--endpoint", f"tcp://127.0.0.1:{free_port}")
    roles = [workshop.start("-m", "app", role, *place) for role in ("collector", "worker", "distributor")]
    began()
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(f"tcp://127.0.0.1:{free_port + 4}")
        for frames in ([b""], [b"\x01\xc1"], [b"x" * 100_000], [b"\x01", b"\x02", b"\x03"]) * 50:
            stranger.send_multipart(frames)
        with socket.create_connection(("127.0.0.1", free_port + 4)) as web:
            web.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually(lambda: "on status that is none of this protocol" in roles[2].err, "a warning")
            (told,) = status_of(workshop, *place)
    assert told["tasks"]["A"]["leased"] == 2
    workshop.write("go", "")
    assert [role.wait() for role in roles] == [0, 0, 0], [role.err for role in roles]
    assert roles[2].err.count("on status that is none of this protocol") == 1


def test_a_note_lives_as_long_as_its_run(tmp_path: Path) -> None:
    """Found while it is held, gone afterwards, also when the folder is not there yet."""
    folder = tmp_path / "deep" / "runs"
    assert announced_in(folder) == []
    with announced(folder, "ipc:///one"):
        (note,) = (path for path in folder.iterdir() if path.suffix != ".lock")
        os.utime(note, (1, 1))  # so that it is older than the other
        with announced(folder, "tcp://127.0.0.1:5550"):
            assert announced_in(folder) == ["ipc:///one", "tcp://127.0.0.1:5550"]
        assert announced_in(folder) == ["ipc:///one"]
    assert announced_in(folder) == []
    assert list(folder.iterdir()) == []
