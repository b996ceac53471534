"""What strangers can take of a bound hop where there are no keys: memory, probes, lines of the log."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.support.patience import PATIENCE
from tests.support.transports import QUICK, arrivals_until, messages
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol.commands import Ended
from zmqpipeline.protocol.events import PeerLost, Tick
from zmqpipeline.protocol.messages import Envelope, Probe
from zmqpipeline.runtime.loop import WARNINGS, Loop
from zmqpipeline.runtime.transport.sockets import PROBE_DELAYS, PROBE_ROUNDS, PROBE_SECONDS
from zmqpipeline.runtime.transport.transport import Transport

PROBE = codec.encode(Envelope(b"", b"", 0, 0, Probe()))
LOOPBACK = EndpointAddress("tcp://127.0.0.1:0")


@pytest.fixture
def server() -> Iterator[Transport]:
    """A transport that binds over tcp."""
    with Transport(QUICK) as made:
        yield made


@pytest.fixture
def context() -> Iterator[Any]:
    """Where strangers have their sockets."""
    made: Any = zmq.Context()
    yield made
    made.destroy(0)


def dealer(context: Any, server: Transport, hop: str) -> Any:
    """A plain pyzmq DEALER, connected there."""
    made = context.socket(zmq.DEALER)
    made.linger = 0
    made.connect(str(server.address(hop)))
    return made


def resident() -> float:
    """The resident size of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_an_asker_that_never_reads_costs_no_memory(server: Transport, context: Any) -> None:
    """Answers beyond what fits into its connection are dropped; one that reads has all of its own."""
    server.bind("status", LOOPBACK)
    deaf = context.socket(zmq.DEALER)
    deaf.linger, deaf.rcvhwm = 0, 1
    deaf.connect(str(server.address("status")))
    deaf.send(b"ask")
    (found,) = arrivals_until(server, messages)
    before = resident()
    for _ in range(20_000):
        server.send(found[0], [bytes(10_000)])
    assert resident() - before < 50
    reader = dealer(context, server, "status")
    reader.send(b"ask")
    # the deaf one may be found to be lost meanwhile: it does not answer heartbeats either
    (found,) = (one for one in arrivals_until(server, messages) if isinstance(one, tuple))
    server.send(found[0], [b"answer"])
    assert reader.poll(60_000)
    assert reader.recv() == b"answer"
    deaf.close()
    reader.close()


def break_off(port: int) -> None:
    """Connect, and break the handshake off."""
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(b"GET / HTTP/1.0\r\n\r\n" + bytes(80))


@pytest.mark.slow
def test_handshakes_that_strangers_break_off_cost_a_bounded_number_of_probes(server: Transport, context: Any) -> None:
    """However many they are; and a peer that is lost meanwhile is found to be."""
    server.bind("workers", LOOPBACK)
    port = server.address("workers").port
    friend, lost = dealer(context, server, "workers"), dealer(context, server, "workers")
    for one in (friend, lost):
        one.send(b"hello")
    arrivals_until(server, lambda found: len(messages(found)) == 2)
    began = time.monotonic()
    for _ in range(300):
        break_off(port or 0)
        server.poll(0.0)
    lost.close()
    arrivals: list[Any] = []
    while not any(isinstance(one, PeerLost) for one in arrivals):
        assert time.monotonic() - began < 60, "the lost peer is not found"
        break_off(port or 0)
        arrivals += server.poll(0.0)
    seconds = time.monotonic() - began
    probes = 0
    while friend.poll(100):
        assert friend.recv_multipart() == PROBE
        probes += 1
    assert probes <= len(PROBE_DELAYS) * PROBE_ROUNDS * (2 + seconds / PROBE_SECONDS)
    friend.close()


def test_a_frame_larger_than_any_role_sends_is_cut_off(context: Any) -> None:
    """libzmq gives the connection up before all of it is here; others go on."""
    with Transport(Options(linger=0.0, max_message_bytes=1, heartbeat_timeout=PATIENCE)) as server:
        server.bind("workers", LOOPBACK)
        liar, friend = dealer(context, server, "workers"), dealer(context, server, "workers")
        most = 2 * (codec.payload_limit(Options(max_message_bytes=1)) + codec.MAX_STATE_BYTES)
        liar.send(bytes(most + 1))
        for _ in range(3):
            friend.send(b"hello")
        arrivals = arrivals_until(server, lambda found: len(messages(found)) == 3)
        arrivals += server.poll(0.3)
        assert messages(arrivals) == [[b"hello"]] * 3
        liar.close()
        friend.close()


class Patient:
    """A machine that ends when this holds, or after a minute."""

    def __init__(self, is_enough: Callable[[], bool]) -> None:
        self.is_enough = is_enough
        self.look = time.monotonic()
        self.until = self.look + 60.0

    def handle(self, event: Any, now: float) -> list[Any]:
        """Look at each Tick."""
        if not isinstance(event, Tick):
            return []
        self.look = now + 0.05
        return [Ended(0)] if self.is_enough() or now > self.until else []

    def next_deadline(self) -> float | None:
        """Soon."""
        return self.look

    def snapshot(self) -> None:
        """Nothing."""

    def check(self) -> None:
        """Nothing."""


def test_garbage_of_many_peers_writes_a_bounded_number_of_lines(
    server: Transport, context: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """All of it is counted."""
    server.bind("workers", LOOPBACK)
    peers = [dealer(context, server, "workers") for _ in range(3 * WARNINGS)]
    for one in peers:
        one.send(b"garbage")
    patient = Patient(lambda: loop.malformed >= len(peers))
    loop = Loop(patient, server, {}, log=logging.getLogger("zmqpipeline.test"))
    loop.run()
    assert loop.malformed == len(peers)
    assert caplog.text.count("none of this protocol") == WARNINGS
    for one in peers:
        one.close()
