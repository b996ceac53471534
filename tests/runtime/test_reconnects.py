"""Every hop breaks and comes back, over and over: ``python -m tests.runtime.test_reconnects 1000``.

And every hop meets somebody else at its address, whom it cannot talk to, and then again the one that it is to find.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.acceptance.chaos.network import Network
from tests.support.ports import free_ports
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.options import Options
from zmqpipeline.protocol.events import Connected, Disconnected
from zmqpipeline.runtime.transport.transport import Transport

HOPS = ("workers", "results", "acks", "metadata", "clients")
SAMPLE = 25
PATIENCE = 60.0
"""Seconds within which a hop that was broken must be back."""


class Pair:
    """Two transports with all hops, each through a link of its own that can be reset."""

    def __init__(self, network: Network) -> None:
        # a process that stands still for some seconds must not break its connections by itself
        options = Options(heartbeat_interval=0.5, heartbeat_timeout=PATIENCE, linger=0.0)
        self.server, self.client = Transport(options), Transport(options)
        self.network = network
        self.ports: dict[str, int] = {}
        """Where the server listens, by hop."""
        ports = free_ports(2 * len(HOPS))
        for index, hop in enumerate(HOPS):
            near, far = ports[2 * index], ports[2 * index + 1]
            self.ports[hop] = far
            network.add(hop, near, far)
            self.server.bind(hop, EndpointAddress(f"tcp://127.0.0.1:{far}"))
            self.client.connect(hop, EndpointAddress(f"tcp://127.0.0.1:{near}"))
        self.wait_for(Connected, set(HOPS))

    def wait_for(self, kind: type[Connected] | type[Disconnected], hops: set[str]) -> None:
        """Wait until the connecting side has reported this of all these hops."""
        left, deadline = set(hops), time.monotonic() + PATIENCE
        while left:
            assert time.monotonic() < deadline, f"not {kind.__name__} within {PATIENCE:g} s: {sorted(left)}"
            self.server.poll(0.0)
            for arrival in self.client.poll(0.01):
                if isinstance(arrival, kind):
                    left.discard(arrival.hop)

    def meet(self, strangers: Sequence[Stranger], times: int = 1) -> None:
        """Lead each hop to a stranger of its own until that was met so often; then back to the server.

        Meanwhile none of them may be said to be connected, and at the end each is, and works.
        """
        for hop, stranger in zip(HOPS, strangers, strict=True):
            self.network.lead(hop, stranger.port)
        self.wait_for(Disconnected, set(HOPS))
        deadline = time.monotonic() + PATIENCE
        while any(stranger.met() < times for stranger in strangers):
            met = [stranger.met() for stranger in strangers]
            assert time.monotonic() < deadline, f"not tried {times} times within {PATIENCE:g} s, but {met}"
            self.server.poll(0.0)
            assert [one for one in self.client.poll(0.01) if isinstance(one, Connected)] == []
        for hop, right in self.ports.items():
            self.network.lead(hop, right)
        self.wait_for(Connected, set(HOPS))
        self.talk(b"again")

    def talk(self, text: bytes) -> None:
        """A message each way on every hop; what was on its way when a connection broke may come or not."""
        for hop in HOPS:
            self.client.send((hop, b""), [text])
        heard: set[str] = set()
        answered: set[str] = set()
        deadline = time.monotonic() + PATIENCE
        while answered < set(HOPS):
            assert time.monotonic() < deadline, f"{text!r}: heard on {sorted(heard)}, answered on {sorted(answered)}"
            for arrival in self.server.poll(0.005):
                if isinstance(arrival, tuple) and arrival[1] == [text]:
                    heard.add(arrival[0][0])
                    self.server.send(arrival[0], [b"re " + text])
            for arrival in self.client.poll(0.005):
                if isinstance(arrival, tuple) and arrival[1] == [b"re " + text]:
                    answered.add(arrival[0][0])

    def close(self) -> None:
        """Close both."""
        self.client.close(0.0)
        self.server.close(0.0)


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def break_and_talk(times: int) -> None:
    """Reset every hop so often; each time all of them come back, and nothing is left behind."""
    with Network() as network:
        pair = Pair(network)
        try:
            pair.talk(b"first")
            files, threads = descriptors(), set(threading.enumerate())
            for turn in range(times):
                for hop in HOPS:
                    network.reset(hop)
                pair.wait_for(Connected, set(HOPS))
                pair.talk(b"turn %d" % turn)
            check_descriptors(files)
            assert set(threading.enumerate()) <= threads
        finally:
            pair.close()


def test_every_hop_comes_back_each_time() -> None:
    """Messages pass both ways after each break; no descriptor and no thread is left of it."""
    break_and_talk(SAMPLE)


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\x00") + bytes(32)
"""What a peer of ZMTP 3.0 says first, 64 bytes."""

READY = b"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER\x08Identity\x00\x00\x00\x00"
"""What a ROUTER says next."""

RESET = struct.pack("ii", 1, 0)
TRIES = 3
"""So often each hop must try whoever is at its address."""


class Stranger(ABC):
    """Whoever listens, at a port of its own, in the place of somebody else."""

    port: int

    @abstractmethod
    def met(self) -> int:
        """How many connections it has had."""

    @abstractmethod
    def close(self) -> None:
        """Listen no more."""


class Talker(Stranger):
    """Says its words to whoever connects, and hangs up, in good order or with a RST."""

    def __init__(self, words: bytes, *, reset: bool) -> None:
        self._words, self._reset = words, reset
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._met = 0
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            # the peer may hang up first
            with peer, contextlib.suppress(ConnectionError):
                peer.settimeout(PATIENCE)
                if self._reset:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                # the peer has begun its side of the handshake before this one ends
                if peer.recv(64):
                    peer.sendall(self._words)
                    self._met += 1

    def met(self) -> int:
        return self._met

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)


class WebServer(Stranger):
    """A real one: it waits for the end of a line that never comes, and says nothing."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        self.port = self._server.server_port
        self._met = 0
        self._server.process_request = self._count  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def _count(self, request: Any, client: Any) -> None:
        self._met += 1
        ThreadingHTTPServer.process_request(self._server, request, client)

    def met(self) -> int:
        return self._met

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


class OtherSocket(Stranger):
    """A real ZeroMQ socket of a type that is no peer for a DEALER."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], kind: int) -> None:
        self._socket = context.socket(kind)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_ACCEPTED)
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._met = 0

    def met(self) -> int:
        while self._monitor.poll(0):
            self._monitor.recv_multipart()
            self._met += 1
        return self._met

    def close(self) -> None:
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)


@contextlib.contextmanager
def one_a_hop(make: Callable[[], Stranger]) -> Iterator[list[Stranger]]:
    """A stranger for each hop, closed on the way out."""
    with contextlib.ExitStack() as stack:
        strangers = []
        for _ in HOPS:
            strangers.append(make())
            stack.callback(strangers[-1].close)
        yield strangers


CUTS = {
    "before the greeting": b"",
    "in the greeting": GREETING[:11],
    "after the greeting": GREETING,
    "in the command": GREETING + READY[:9],
    "by nonsense": GREETING + b"\x04\x03\x02ab",
}
"""How much of its handshake a server has said when it hangs up. After nonsense libzmq does not connect again."""
HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nNo.\r\n" * 8


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two transports that are connected by all hops, and that have talked."""
    with Network() as network:
        made = Pair(network)
        try:
            made.talk(b"first")
            yield made
        finally:
            made.close()


def check_descriptors(before: int) -> None:
    """No more files are open than before, but for connections that are about to end."""
    end = time.monotonic() + PATIENCE
    while descriptors() > before + len(HOPS) and time.monotonic() < end:
        # libzmq's own thread closes them, and tells nobody when
        time.sleep(0.01)
    assert descriptors() <= before + len(HOPS), f"{before} files were open, now {descriptors()}"


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("words", [*CUTS.values(), HTTP], ids=[*(f"cut {cut}" for cut in CUTS), "http"])
def test_every_hop_outlives_a_server_that_cannot_be_talked_to(words: bytes, reset: bool, pair: Pair) -> None:
    """A handshake that is cut midway, or a server of something else: it is tried again, and nothing is left of it."""
    files = descriptors()
    with one_a_hop(lambda: Talker(words, reset=reset)) as strangers:
        pair.meet(strangers, TRIES)
    check_descriptors(files)


def test_every_hop_outlives_a_web_server(pair: Pair) -> None:
    """One that neither answers nor hangs up; when it goes, the right one is found at once."""
    files = descriptors()
    with one_a_hop(WebServer) as strangers:
        pair.meet(strangers)
    check_descriptors(files)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [zmq.PUB, zmq.PULL, zmq.PAIR], ids=["PUB", "PULL", "PAIR"])
def test_every_hop_outlives_a_socket_of_another_type(kind: int, pair: Pair) -> None:
    """Its connections are taken, and broken off in the handshake; then the right type is there."""
    files = descriptors()
    with zmq.Context() as context, one_a_hop(lambda: OtherSocket(context, kind)) as strangers:
        pair.meet(strangers, TRIES)
    check_descriptors(files)


if __name__ == "__main__":
    began = time.monotonic()
    break_and_talk(int(sys.argv[1]))
    print(f"{sys.argv[1]} breaks of each of {len(HOPS)} hops, {time.monotonic() - began:.0f} s")
