"""Roles whose peers are not there, are there twice, or are strangers: rows of the table in delivery.md."""

from __future__ import annotations

import re
import signal
import socket
from typing import TYPE_CHECKING

import pytest
import zmq

from tests.support.ports import free_ports

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop
from tests.support.failing_apps import Eventually, collected, start

pytestmark = pytest.mark.processes


WORK = """
app.task("C")(lambda: items(100))

@app.worker("C")
def work(data):
    time.sleep(0.002)
    if data["n"] == 50:
        hold()
    return data
"""


HASTY = (
    WORK
    + """
from zmqpipeline.protocol import peers as absence, collector, distributor, waiting

# what is said after some seconds and each minute is said at once, and five times a second
for role in (absence, collector, distributor, waiting):
    role.WARN_FIRST_SECONDS = role.WARN_SECONDS = 0.2
"""
)


NO_DISTRIBUTOR = "Still waiting for a distributor"


NO_COLLECTOR = "Waiting for a collector"


NO_WORKER = "No worker serves task 'C'; its items wait. Start one: python -m app worker C"


@pytest.mark.slow
def test_who_is_alone_waits_and_says_again_and_again_what_for(workshop: Workshop, eventually: Eventually) -> None:
    """A collector for a distributor, and a distributor for a collector, then for a worker; then there is peace."""
    workshop.write("go", "")
    (collector,) = start(workshop, HASTY, "collector")
    eventually(lambda: collector.err.count(NO_DISTRIBUTOR) >= 2, "the collector says so twice")
    collector.close()
    distributor = workshop.start("-m", "app", "distributor")
    eventually(lambda: distributor.err.count(NO_COLLECTOR) >= 2, "the distributor says so twice")
    assert NO_WORKER not in distributor.err
    collector = workshop.start("-m", "app", "collector")
    eventually(lambda: distributor.err.count(NO_WORKER) >= 2, "nor is there a worker")
    worker = workshop.start("-m", "app", "worker", "C")
    eventually(lambda: workshop.lines("collected-C"), "the work begins")
    said = [distributor.err.count(NO_COLLECTOR), distributor.err.count(NO_WORKER)]
    assert [one.wait() for one in (distributor, collector, worker)] == [0, 0, 0], distributor.err
    assert [distributor.err.count(NO_COLLECTOR), distributor.err.count(NO_WORKER)] == said
    assert collected(workshop) == list(range(100))


@pytest.mark.slow
@pytest.mark.parametrize("role", ["distributor", "collector"])
def test_who_is_left_by_a_role_that_died_waits_for_it(role: str, workshop: Workshop, eventually: Eventually) -> None:
    """Killed in the middle and not started again: the others say so again and again, and go on with the next one."""
    distributor, collector, worker = start(workshop, HASTY, "distributor", "collector", "worker C")
    eventually(lambda: len(workshop.lines("collected-C")) >= 50, "half of the items collected")
    victim, witness, text = {
        "distributor": (distributor, collector, NO_DISTRIBUTOR),
        "collector": (collector, distributor, NO_COLLECTOR),
    }[role]
    left = [(witness, text), (worker, f"Waiting for a {role} ")]
    before = [one.err.count(says) for one, says in left]
    victim.signal(signal.SIGKILL)
    victim.wait()
    for (one, says), count in zip(left, before, strict=True):
        eventually(lambda one=one, says=says, count=count: one.err.count(says) >= count + 2, f"said twice: {says}")
    workshop.write("go", "")
    successor = workshop.start("-m", "app", role)
    assert [one.wait() for one in (witness, worker, successor)] == [0, 0, 0], witness.err
    assert set(collected(workshop)) == set(range(100))


HOPS = ("workers", "results", "acks")
"""What listens at a base address, and at the next two ports."""


@pytest.mark.slow
@pytest.mark.parametrize("role", ["distributor", "collector"])
@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_a_second_role_on_the_same_address_is_refused(
    transport: str, role: str, workshop: Workshop, eventually: Eventually
) -> None:
    """One line with the address and status 2, in the middle of a run; the first one's run does not notice."""
    port = free_ports(7)[0]
    base = f"tcp://127.0.0.1:{port}" if transport == "tcp" else f"ipc://{workshop.folder}/s"
    named = f"127.0.0.1:{port + (role == 'collector')}" if transport == "tcp" else base
    programs = start(workshop, WORK, *(f"{one} --endpoint {base}" for one in ("distributor", "collector", "worker C")))
    eventually(lambda: len(workshop.lines("collected-C")) >= 50, "half of the items collected")
    status, second = workshop.run("-m", "app", role, "--endpoint", base)
    assert status == 2, second.err
    assert re.fullmatch(r"Error: .*\n", second.err), second.err
    assert named in second.err
    workshop.write("go", "")
    assert [one.wait() for one in programs] == [0, 0, 0], programs[0].err
    assert collected(workshop) == list(range(100))


STRANGE = [
    [b"hello"],
    [b"\x02\x95\x00\xc4\x01x"],
    [b"", b"\xff" * 20, b"x" * 5_000_000],
    [b"\x01" + b"\xc1" * 5_000_000],
]
"""What no peer of ours sends: nothing known, a version to come, an odd number of frames, and far too much."""


def test_garbage_on_every_socket_harms_nobody(workshop: Workshop, eventually: Eventually) -> None:
    """Bytes that are no ZMTP, and messages that are none of ours, in the middle of a run: said once a peer, dropped."""
    ports = free_ports(7)[: len(HOPS)]
    base = f"--endpoint tcp://127.0.0.1:{ports[0]}"
    programs = start(workshop, WORK, *(f"{role} {base}" for role in ("distributor", "collector", "worker C")))
    distributor, collector, _ = programs
    eventually(lambda: len(workshop.lines("collected-C")) >= 50, "half of the items collected")
    dropped = "that is none of this protocol"
    with zmq.Context() as context:
        for port, role, hop in zip(ports, (distributor, collector, collector), HOPS, strict=True):
            with socket.create_connection(("127.0.0.1", port)) as raw:
                raw.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"\xff" * 1000)
            with context.socket(zmq.DEALER) as stranger:
                stranger.linger = 5000
                stranger.connect(f"tcp://127.0.0.1:{port}")
                for frames in STRANGE:
                    stranger.send_multipart(frames)
                said = f"Dropped a message on {hop} {dropped}"
                eventually(lambda role=role, said=said: said in role.err, f"the strange messages on {hop}")
    workshop.write("go", "")
    assert [one.wait() for one in programs] == [0, 0, 0], distributor.err
    assert [one.err.count(dropped) for one in programs] == [1, 2, 0]
    assert "Traceback" not in distributor.err + collector.err
    assert collected(workshop) == list(range(100))
