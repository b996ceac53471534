"""Who is alive: the connection tells, for peers in processes of their own that are killed, frozen, or busy."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE
from tests.support.transports import arrivals_until, messages, new_address, new_transport, peer_process
from zmqpipeline.options import Options
from zmqpipeline.protocol.events import PeerLost
from zmqpipeline.runtime.transport.transport import Transport

pytestmark = pytest.mark.processes

PEER = """
import sys
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.options import Options
from zmqpipeline.protocol.events import Connected
from zmqpipeline.runtime.transport.transport import Transport

with Transport(Options(linger=0.5, heartbeat_timeout=60.0)) as transport:
    transport.connect("hop", EndpointAddress(sys.argv[1]))
    while True:
        for arrival in transport.poll(None):
            if isinstance(arrival, Connected):
                transport.send(("hop", b""), [sys.argv[2].encode()])
            elif isinstance(arrival, tuple) and arrival[1][0] == b"hold":
                # One long C call without a break: the GIL is held all the time.
                seconds = float(arrival[1][1])
                import ctypes
                ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))
                transport.send(("hop", b""), [b"held"])
            elif isinstance(arrival, tuple) and arrival[1][0] == b"count":
                transport.send(("hop", b""), arrival[1])
"""


def _lost(found: list[object]) -> bool:
    return any(isinstance(one, PeerLost) for one in found)


@pytest.mark.alone
@pytest.mark.parametrize("protocol", ["tcp", "ipc"])
def test_a_killed_peer_is_lost_without_a_heartbeat(protocol: str, tmp_path: Path) -> None:
    """SIGKILL of a peer's process is PeerLost for its connection alone, although another peer stays silent, too."""
    address = new_address(protocol, tmp_path)
    # by its heartbeats it would be lost after a minute
    with new_transport(address) as server:
        server.bind("hop", address)
        with peer_process(PEER, address, "victim") as victim, peer_process(PEER, address, "other"):
            found = arrivals_until(server, lambda found: len(messages(found)) == 2)
            peers = {frames[0]: peer for peer, frames in found}
            victim.send_signal(signal.SIGKILL)
            assert arrivals_until(server, _lost, PATIENCE / 2) == [PeerLost(peers[b"victim"])]
            assert server.poll(0.4) == []


@pytest.mark.alone
@pytest.mark.parametrize("protocol", ["tcp", "ipc"])
def test_a_frozen_peer_is_lost_and_comes_back(protocol: str, tmp_path: Path) -> None:
    """SIGSTOP is noticed by the heartbeats; after SIGCONT the peer is there by a new connection."""
    address = new_address(protocol, tmp_path)
    with new_transport(address, Options(linger=0.5)) as server:
        server.bind("hop", address)
        with peer_process(PEER, address, "frozen") as frozen:
            ((peer, _),) = arrivals_until(server, messages)
            frozen.send_signal(signal.SIGSTOP)
            assert arrivals_until(server, _lost) == [PeerLost(peer)]
            frozen.send_signal(signal.SIGCONT)
            ((again, frames),) = arrivals_until(server, messages)
            assert frames == [b"frozen"]
            assert again != peer


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["tcp", "ipc"])
def test_a_held_gil_is_not_a_loss(protocol: str, tmp_path: Path) -> None:
    """A peer whose Python does nothing for 8 s, with 5,000 messages waiting for it, stays connected and answers all."""
    address = new_address(protocol, tmp_path)
    # a machine that gives the peer's other thread no processor for so long makes it a lost one
    with new_transport(address, Options(linger=0.5, heartbeat_timeout=5.0)) as server:
        server.bind("hop", address)
        with peer_process(PEER, address, "busy"):
            ((peer, _),) = arrivals_until(server, messages)
            began = time.monotonic()
            server.send(peer, [b"hold", b"8"])
            for number in range(5000):
                server.send(peer, [b"count", b"%d" % number])
            found = arrivals_until(server, lambda found: _lost(found) or len(messages(found)) == 5001)
            assert messages(found) == [[b"held"], *([b"count", b"%d" % number] for number in range(5000))]
            assert time.monotonic() - began > 5


@pytest.mark.alone
@pytest.mark.parametrize("protocol", ["tcp", "ipc"])
def test_a_killed_server_is_noticed_and_found_again(protocol: str, tmp_path: Path) -> None:
    """The connecting side sees a bound process killed and meets the next one on the same address."""
    address = new_address(protocol, tmp_path)
    source = PEER.replace("transport.connect(", "transport.bind(")
    answer = "if isinstance(arrival, tuple): transport.send(arrival[0], arrival[1] + [sys.argv[2].encode()])"
    source = source[: source.index("            if isinstance")] + " " * 12 + answer
    with new_transport(address) as client:
        client.connect("hop", address)
        for name in ("first", "second"):
            with peer_process(source, address, name):
                client.send(("hop", b""), [b"hello"])
                assert messages(arrivals_until(client, messages)) == [[b"hello", name.encode()]]
            # by its heartbeats it would be lost after a minute
            arrivals_until(client, bool, PATIENCE / 2)


@pytest.mark.alone
def test_heartbeats_follow_the_options(tmp_path: Path) -> None:
    """With a time-out of 0.5 s a frozen peer is lost; with one of a minute it is not, for longer than by default."""
    address, other = new_address("tcp", tmp_path), new_address("tcp", tmp_path)
    quick = Options(heartbeat_interval=0.1, heartbeat_timeout=0.5, linger=0.1)
    with Transport(quick) as server, new_transport(other) as slow:
        server.bind("hop", address)
        slow.bind("hop", other)
        with peer_process(PEER, address, "frozen") as frozen, peer_process(PEER, other, "frozen") as its:
            arrivals_until(server, messages)
            arrivals_until(slow, messages)
            for one in (frozen, its):
                one.send_signal(signal.SIGSTOP)
            arrivals_until(server, _lost)
            end = time.monotonic() + 2 * Options().heartbeat_timeout
            while (left := end - time.monotonic()) > 0:
                assert slow.poll(left) == []
