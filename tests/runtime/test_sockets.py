"""Transport: messages between two of them, over every protocol, and what happens when it cannot be."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.support.patience import PATIENCE
from tests.support.transports import (
    PROTOCOLS,
    QUICK,
    arrivals_until,
    both_until,
    messages,
    new_address,
    new_transport,
)
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import EndpointError, EndpointInUse
from zmqpipeline.options import Options
from zmqpipeline.protocol.events import Connected, Disconnected, PeerLost
from zmqpipeline.runtime.transport.transport import Transport, shared_context


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("bind_first", [True, False])
def test_both_sides_talk_in_any_order(protocol: str, bind_first: bool, tmp_path: Path) -> None:
    """Whoever comes first, the connecting side reports Connected, and messages pass both ways in order."""
    address = new_address(protocol, tmp_path)
    with new_transport(address) as server, new_transport(address) as client:
        if bind_first:
            server.bind("hop", address)
        client.connect("hop", address)
        if not bind_first:
            client.send(("hop", b""), [b"0", b""])
            server.bind("hop", address)
        assert isinstance(arrivals_until(client, lambda found: Connected("hop") in found)[0], Connected)
        for number in range(0 if bind_first else 1, 300):
            client.send(("hop", b""), [b"%d" % number, b""])
        received = arrivals_until(server, lambda found: len(messages(found)) == 300)
        assert messages(received) == [[b"%d" % number, b""] for number in range(300)]
        server.send(received[0][0], [b"answer"])
        assert arrivals_until(client, messages) == [(("hop", b""), [b"answer"])]


def test_close_does_not_wait_for_a_peer_that_is_gone(tmp_path: Path) -> None:
    """What libzmq still holds for a broken connection does not keep a role for the linger time."""
    address = new_address("ipc", tmp_path)
    with new_transport(address, Options(linger=60.0)) as client:
        with new_transport(address) as server:
            server.bind("hop", address)
            client.connect("hop", address)
            arrivals_until(client, lambda found: Connected("hop") in found)
        client.send(("hop", b""), [b"too late"])
        arrivals_until(client, lambda found: Disconnected("hop") in found)
        client.send(("hop", b""), [b"far too late"])
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < 50.0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_second_bind_is_refused(protocol: str, tmp_path: Path) -> None:
    """The address in use is named, the first binding goes on working, and the address is free after its close."""
    address = new_address(protocol, tmp_path)
    with new_transport(address) as first, new_transport(address) as second, new_transport(address) as client:
        first.bind("hop", address)
        with pytest.raises(EndpointInUse, match=r"is in use") as caught:
            second.bind("hop", address)
        assert str(address) in str(caught.value)
        client.connect("hop", address)
        client.send(("hop", b""), [b"still there"])
        both_until(client, first, lambda _, found: messages(found) == [[b"still there"]])
        first.close()
        second.bind("hop", address)


def test_an_ipc_lock_of_a_dead_process_is_no_hindrance(tmp_path: Path) -> None:
    """Files that a killed process left behind do not keep the next one from binding, and nothing stays after close."""
    address = new_address("ipc", tmp_path)
    Path(address.path).touch()
    Path(f"{address.path}.lock").touch()
    with new_transport(address) as transport:
        transport.bind("hop", address)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("protocol", ["tcp", "ipc"])
def test_an_address_is_free_at_once_after_close(protocol: str, tmp_path: Path) -> None:
    """With a context that lives on, too: the same address can be bound again and again, and no file stays."""
    address = new_address(protocol, tmp_path)
    for _ in range(20):
        with Transport(QUICK, context=shared_context()) as transport:
            transport.bind("hop", address)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ipc://{folder}/" + "x" * 120 + ".ipc", "bytes; this system allows"),
        ("ipc://{folder}/missing/w.ipc", "there is no folder"),
        ("tcp://203.0.113.7:5550", "no interface of this machine"),
        ("tcp://no-such-interface:5550", "no interface of this machine"),
    ],
)
def test_what_cannot_be_bound_says_why(address: str, words: str, tmp_path: Path) -> None:
    """Each reason has its own sentence, and nothing stays behind."""
    wanted = EndpointAddress(address.format(folder=tmp_path))
    with Transport(Options(insecure=True)) as transport:
        with pytest.raises(EndpointError, match=words):
            transport.bind("hop", wanted)
        assert transport.poll(0) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the system has no /proc")
def test_a_folder_that_takes_no_files_is_named() -> None:
    """It is there: /proc, for one."""
    with Transport(QUICK) as transport, pytest.raises(EndpointError, match="the folder '/proc' takes no files"):
        transport.bind("hop", EndpointAddress("ipc:///proc/w.ipc"))


def test_a_long_path_is_refused_to_the_connecting_side_too(tmp_path: Path) -> None:
    """Nobody could ever be bound there, so waiting for it would be for ever."""
    with Transport(QUICK) as transport, pytest.raises(EndpointError, match=str(zmq.IPC_PATH_MAX_LEN)):
        transport.connect("hop", EndpointAddress(f"ipc://{tmp_path}/{'x' * 120}"))


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere: be nobody for a moment, if the tests run as root."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_no_permission_says_so(tmp_path: Path) -> None:
    """A folder that may not be written to is an EndpointError that says it."""
    tmp_path.chmod(0o500)
    with Transport(QUICK) as transport, without_privileges(), pytest.raises(EndpointError, match="does not permit"):
        transport.bind("hop", EndpointAddress(f"ipc://{tmp_path}/w.ipc"))
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("written", ["tcp://localhost:0", "tcp://127.0.0.1:0", "tcp://*:0"])
def test_port_0_becomes_a_real_one(written: str) -> None:
    """The bound address names the port that the system chose; localhost is the loopback interface."""
    with Transport(Options(linger=0.5, insecure=True)) as server, Transport(QUICK) as client:
        server.bind("hop", EndpointAddress(written))
        real = server.address("hop")
        assert real.port
        assert real.host == ("0.0.0.0" if "*" in written else "127.0.0.1")
        client.connect("hop", EndpointAddress(f"{written.rpartition(':')[0]}:{real.port}"))
        arrivals_until(client, lambda found: Connected("hop") in found)


@pytest.mark.parametrize("protocol", ["tcp", "ipc"])
def test_a_restarted_server_is_found_again(protocol: str, tmp_path: Path) -> None:
    """The break is reported, then the new connection; what was in the outbox at the break is gone."""
    address = new_address(protocol, tmp_path)
    with new_transport(address) as client:
        client.connect("hop", address)
        for round_number in range(3):
            with new_transport(address) as server:
                server.bind("hop", address)
                arrivals_until(client, lambda found: Connected("hop") in found)
                client.send(("hop", b""), [b"%d" % round_number])
                assert messages(arrivals_until(server, messages)) == [[b"%d" % round_number]]
            arrivals_until(client, lambda found: found == [Disconnected("hop")])


@pytest.mark.parametrize("protocol", ["tcp", "ipc"])
def test_a_peer_that_closes_is_lost_after_its_last_message(protocol: str, tmp_path: Path) -> None:
    """PeerLost comes once, after all that the peer had sent, and only for this peer."""
    address = new_address(protocol, tmp_path)
    # it may take a busy machine longer than a moment to send all of it
    patient = Options(linger=PATIENCE, heartbeat_timeout=PATIENCE)
    with new_transport(address) as server, new_transport(address) as stays, new_transport(address, patient) as leaves:
        server.bind("hop", address)
        for client in (stays, leaves):
            client.connect("hop", address)
            arrivals_until(client, lambda found: Connected("hop") in found)
        stays.send(("hop", b""), [b"stays"])
        ((staying, _),) = arrivals_until(server, messages)
        for number in range(10000):
            leaves.send(("hop", b""), [b"%d" % number])
        leaves.close()
        found = arrivals_until(server, lambda found: any(isinstance(one, PeerLost) for one in found))
        assert messages(found) == [[b"%d" % number] for number in range(10000)]
        assert found[-1] == PeerLost(found[0][0])
        assert server.poll(0.5) == []
        server.send(staying, [b"hello"])
        assert [b"hello"] in messages(arrivals_until(stays, lambda found: [b"hello"] in messages(found)))


def test_sending_to_a_lost_peer_reports_it(tmp_path: Path) -> None:
    """Over inproc, which has no monitor, a send finds the peer gone, and the next poll says so, once."""
    address = new_address("inproc", tmp_path)
    with new_transport(address) as server:
        server.bind("hop", address)
        with new_transport(address) as client:
            client.connect("hop", address)
            client.send(("hop", b""), [b"x"])
            ((peer, _),) = arrivals_until(server, messages)
        found: list[object] = []
        while not found:
            # The other end closes in the background, so that it may take a moment.
            server.send(peer, [b"y"])
            server.send(peer, [b"z"])
            found = server.poll(0.01)
        assert found == [PeerLost(peer)]
        server.send(peer, [b"z"])
        assert server.poll(0.05) == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00" * 300,
        b"\xff" * 300,
        os.urandom(5000),
        b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL" + b"\x00" * 48 + b"\xff" * 100,
        b"",
    ],
    ids=["http", "zeros", "ones", "random", "half a handshake", "nothing"],
)
def test_garbage_on_a_port_harms_nobody(garbage: bytes) -> None:
    """What is no ZMTP is dropped by libzmq or arrives as odd frames; a real peer is served and not called lost."""
    with Transport(QUICK) as server, Transport(QUICK) as client:
        server.bind("hop", EndpointAddress("tcp://127.0.0.1:0"))
        client.connect("hop", server.address("hop"))
        client.send(("hop", b""), [b"before"])
        both_until(client, server, lambda _, found: bool(messages(found)))
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.address("hop").port or 0)) as stranger:
                stranger.sendall(garbage)
                server.poll(0.02)
        client.send(("hop", b""), [b"after"])
        found = arrivals_until(server, lambda found: [b"after"] in messages(found))
        (peer,) = {one[0] for one in found if isinstance(one, tuple) and one[1] == [b"after"]}
        assert PeerLost(peer) not in found + server.poll(0.4)


@pytest.mark.alone
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("sent", [1, 3000])
def test_close_ends_within_linger_without_a_peer(protocol: str, sent: int, tmp_path: Path) -> None:
    """Unsent messages to nobody do not hold up a close, and no thread stays."""
    address = new_address(protocol, tmp_path)
    threads = set(threading.enumerate())
    transport = new_transport(address)
    transport.connect("hop", address)
    for _ in range(sent):
        transport.send(("hop", b""), [b"x" * 1000])
    transport.poll(0)
    began = time.monotonic()
    transport.close()
    assert time.monotonic() - began < QUICK.linger + 30
    assert set(threading.enumerate()) <= threads


@pytest.mark.alone
@pytest.mark.parametrize("protocol", ["tcp", "ipc"])
def test_close_ends_within_linger_when_nobody_reads(protocol: str, tmp_path: Path) -> None:
    """A server with megabytes for a peer that is connected but never reads closes within its linger."""
    address = new_address(protocol, tmp_path)
    server = new_transport(address)
    server.bind("hop", address)
    with zmq.Context() as context, context.socket(zmq.DEALER) as deaf:
        deaf.linger, deaf.rcvhwm = 0, 1
        deaf.connect(str(address))
        deaf.send(b"here")
        ((peer, _),) = arrivals_until(server, messages)
        for _ in range(60):
            server.send(peer, [b"x" * 1_000_000])
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < QUICK.linger + 30


def test_what_was_sent_just_before_close_arrives(tmp_path: Path) -> None:
    """Linger gives what is queued the time to be sent: the last of many megabytes arrives after the close."""
    address = new_address("ipc", tmp_path)
    with new_transport(address) as server:
        server.bind("hop", address)
        client = new_transport(address, Options(linger=PATIENCE))
        client.connect("hop", address)
        arrivals_until(client, lambda found: Connected("hop") in found)
        for _ in range(50):
            client.send(("hop", b""), [b"x" * 1_000_000])
        client.send(("hop", b""), [b"last"])
        thread = threading.Thread(target=client.close)
        thread.start()
        found = arrivals_until(server, lambda found: [b"last"] in messages(found))
        assert len(messages(found)) == 51
        thread.join()


def test_wake_ends_a_poll_from_another_thread_and_after_close() -> None:
    """A wake ends a poll that would last for ever; many cost no more than one; after close it does nothing."""
    transport = Transport(QUICK)
    thread = threading.Thread(target=lambda: [transport.wake() for _ in range(100_000)])
    thread.start()
    assert transport.poll(None) == []
    thread.join()
    transport.poll(0)
    began = time.monotonic()
    transport.poll(0.1)
    assert time.monotonic() - began >= 0.09
    transport.close()
    transport.close()
    transport.wake()


def test_a_busy_socket_does_not_starve_another(tmp_path: Path) -> None:
    """One poll takes a bounded number of messages of a socket, and what waits at another socket with them."""
    address, other = new_address("inproc", tmp_path), new_address("inproc", tmp_path)
    with new_transport(address) as server, new_transport(address) as client:
        for name, where in (("busy", address), ("calm", other)):
            server.bind(name, where)
            client.connect(name, where)
        for _ in range(5000):
            client.send(("busy", b""), [b"x"])
        client.send(("calm", b""), [b"y"])
        first = server.poll(1.0)
        assert [b"y"] in messages(first)
        assert len(first) < 1000


@pytest.mark.parametrize("protocol", ["ipc", "inproc"])
def test_messages_arrive_in_order_whether_they_come_alone_or_in_bursts(protocol: str, tmp_path: Path) -> None:
    """Each side takes every message once and in order, polling only until something comes, through changes of pace."""
    address = new_address(protocol, tmp_path)
    with new_transport(address) as server, new_transport(address) as client:
        server.bind("hop", address)
        client.connect("hop", address)
        both_until(client, server, lambda mine, its: Connected("hop") in mine)
        number = 0
        for burst in (1, 1, 1, 5, 1, 300, 2, 1, 1, 7, 1, 1):
            sent = [[b"%d" % one] for one in range(number, number + burst)]
            number += burst
            for frames in sent:
                client.send(("hop", b""), frames)
            arrivals = arrivals_until(server, lambda found, count=burst: len(messages(found)) >= count)
            assert messages(arrivals) == sent
            peer = next(one[0] for one in arrivals if isinstance(one, tuple))
            for frames in sent:
                server.send(peer, frames)
            assert messages(arrivals_until(client, lambda found, count=burst: len(messages(found)) >= count)) == sent
        assert server.poll(0) == client.poll(0) == []


@pytest.mark.parametrize("protocol", ["ipc", "tcp"])
def test_the_last_words_of_a_peer_are_heard(protocol: str, tmp_path: Path) -> None:
    """What a bound side sent right before it closed arrives, though it is read only after the connection is gone."""
    address, patient = new_address(protocol, tmp_path), Options(heartbeat_timeout=PATIENCE)
    for _ in range(20):
        with new_transport(address, patient) as client:
            with new_transport(address, patient) as server:
                server.bind("hop", address)
                client.connect("hop", server.address("hop"))
                arrivals_until(client, lambda found: Connected("hop") in found)
                client.send(("hop", b""), [b"hello"])
                arrivals = arrivals_until(server, lambda found: bool(messages(found)))
                peer = next(one[0] for one in arrivals if isinstance(one, tuple))
                for number in range(20):
                    server.send(peer, [b"%d" % number])
            heard = messages(arrivals_until(client, lambda found: len(messages(found)) == 20))
            assert heard == [[b"%d" % number] for number in range(20)]


def test_what_a_full_socket_left_in_the_outbox_is_sent(tmp_path: Path) -> None:
    """The descriptor tells that the socket takes messages again, and nothing else: that is enough to send the rest."""
    address, count = new_address("ipc", tmp_path), 1000
    with new_transport(address) as server, new_transport(address) as client:
        server.bind("hop", address)
        client.connect("hop", address)
        arrivals_until(client, lambda found: Connected("hop") in found)
        # of itself a queue has no limit
        client._hops["hop"].socket.sndhwm = 20
        for number in range(count):
            client.send(("hop", b""), [b"%d" % number, bytes(20_000)])
        both_until(client, server, lambda _, found: len(messages(found)) == count)
