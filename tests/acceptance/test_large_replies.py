"""Large replies and clients that do not read them: the broker's memory is bounded, and others go on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import zmq

from tests.acceptance.large_results import MEBIBYTE, most_resident
from zmqpipeline.protocol import codec
from zmqpipeline.protocol.messages import Envelope, Requests
from zmqpipeline.serialization.pack import pack

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = pytest.mark.processes

Eventually = Callable[..., None]

BOUND = 16 * MEBIBYTE
ALLOWED = BOUND + 100 * MEBIBYTE
"""What the broker may have; Python and its modules are some 40 MiB of it."""

APP = """
import sys, time
from zmqpipeline import Pipeline

app = Pipeline("pictures")

@app.service("picture", threads=2)
def picture(data):
    with open("drawn", "a") as file:
        file.write(f"{data['n']}\\n")
    return {"n": data["n"], "picture": bytes(data["bytes"])}

def deaf():
    # reads one reply, and then no more: a callback of it does not return
    client = app.client("picture")
    futures = [client.submit({"n": n, "bytes": 400 * 1024}, timeout=None) for n in range(400)]
    futures[0].add_done_callback(lambda future: open("gate").read())
    print(sum(future.result()["n"] for future in futures))
    client.close()

def asks():
    with app.client("picture") as client:
        replies = client.request([{"n": n, "bytes": 300 * 1024} for n in range(200)], timeout=60)
        assert [(one["n"], len(one["picture"])) for one in replies] == [(n, 300 * 1024) for n in range(200)]
    print("all")

if __name__ == "__main__":
    {"deaf": deaf, "asks": asks}.get(sys.argv[1], app.main)()
"""


@pytest.fixture
def broker(workshop: Workshop) -> Program:
    """A broker that may hold 16 MiB, and a worker."""
    workshop.environ["ZMQPIPELINE_MAX_HELD_BYTES"] = str(BOUND)
    workshop.write("app.py", APP)
    os.mkfifo(workshop.folder / "gate")
    program = workshop.start("-m", "app", "service")
    workshop.start("-m", "app", "service-worker", "picture")
    return program


def test_a_client_that_does_not_read_fills_no_memory(
    workshop: Workshop, broker: Program, eventually: Eventually
) -> None:
    """A callback that does not return holds up 400 replies of 400 KiB: another client has all of its own meanwhile.

    As soon as it reads again, it has all of them, too.
    """
    deaf = workshop.start("-m", "app", "deaf")
    eventually(lambda: workshop.lines("drawn"), "its first reply")
    status, other = workshop.run("-m", "app", "asks", timeout=60)
    assert (status, other.out) == (0, "all\n"), other.err
    assert most_resident(broker.pid) < ALLOWED
    (workshop.folder / "gate").write_text("go")
    assert deaf.wait(60) == 0, deaf.err
    assert int(deaf.out) == sum(range(400))
    assert most_resident(broker.pid) < ALLOWED


@pytest.mark.slow
def test_a_client_that_keeps_to_nothing_fills_no_memory(
    workshop: Workshop, broker: Program, eventually: Eventually
) -> None:
    """It asks for 500 replies of 1 MiB at once and reads none: what is too much is dropped, `status` tells of the rest.

    Another client has all of its own.
    """
    status, first = workshop.run("-m", "app", "asks", timeout=60)
    assert status == 0, first.err
    payloads = [pack({"n": n, "bytes": MEBIBYTE}) for n in range(1000, 1500)]
    frames = codec.encode(Envelope(b"nobody", b"", 1, 0, Requests("picture", False, (0, 500), payloads)))
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(f"ipc://{next(workshop.folder.rglob('service-clients.ipc'))}")
        socket.send_multipart(frames)
        eventually(lambda: "1499" in workshop.lines("drawn"), "all are drawn", 60)
        status, told = workshop.run("-m", "app", "status", "--json")
        assert status == 0, told.err
        assert MEBIBYTE <= told.json["held_bytes"] <= BOUND
        status, lines = workshop.run("-m", "app", "status")
        assert "MiB of requests and replies wait at the broker" in lines.out
        status, other = workshop.run("-m", "app", "asks", timeout=60)
        assert (status, other.out) == (0, "all\n"), other.err
    assert most_resident(broker.pid) < ALLOWED
