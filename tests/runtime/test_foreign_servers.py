"""Transport: somebody else at the address to which it connects, and a server that breaks the protocol."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time

import pytest

from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from tests.support.transports import QUICK, arrivals_until, both_until, messages
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.protocol.events import Connected, Disconnected
from zmqpipeline.runtime.transport.transport import Transport

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32)
SILENT = random.Random(43).randbytes(500)
"""Of random bytes one in 25 is given up by libzmq without a word, as a wrong socket type is."""
READY = b"\x05READY" + b"\x0bSocket-Type" + b"\x00\x00\x00\x06ROUTER"


@pytest.mark.alone
@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff" * 200,
        random.Random(0).randbytes(500),
        SILENT,
        b"",
        GREETING,
        GREETING.replace(b"NULL", b"ODD_"),
        GREETING + b"\x04\x03\x02ab",
        GREETING + b"\x04" + bytes([len(READY) - 3]) + READY.replace(b"\x06ROUTER", b"\x03PUB"),
    ],
    ids=["http", "ones", "random", "unlucky", "nothing", "greeting", "mechanism", "command", "socket type"],
)
def test_a_foreign_server_is_replaced_by_a_real_one(garbage: bytes) -> None:
    """A connecting side that met something else on the port finds the real server that comes later."""
    port = free_port()
    listener = socket.create_server(("127.0.0.1", port))
    met: list[float] = []

    def answer_garbage() -> None:
        while True:
            try:
                stranger, _ = listener.accept()
            except OSError:
                return
            # it may have hung up first
            with stranger, contextlib.suppress(ConnectionError):
                met.append(time.monotonic())
                stranger.sendall(garbage)

    thread = threading.Thread(target=answer_garbage)
    thread.start()
    address = EndpointAddress(f"tcp://127.0.0.1:{port}")
    with Transport(QUICK) as client:
        client.connect("hop", address)
        end = time.monotonic() + 60
        # libzmq says nothing of a wrong socket type, so that its silence has to be waited for.
        soon = 4.0 if b"PUB" in garbage or garbage is SILENT else 1.0

        def is_tried_soon() -> bool:
            # a busy machine may be late for once; who waits for too long does so each time
            return any(third - first < soon for first, third in zip(met, met[2:], strict=False))

        while not is_tried_soon():
            assert time.monotonic() < end, f"it does not try again, or late: {met}"
            assert Connected("hop") not in client.poll(0.05)
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        with Transport(QUICK) as server:
            _bind_when_free(server, address)
            client.send(("hop", b""), [b"found"])
            both_until(client, server, lambda _, found: [b"found"] in messages(found))


def test_a_connection_that_breaks_the_protocol_is_made_anew() -> None:
    """After a good handshake and then nonsense, where libzmq gives the connection up for good, it connects again."""
    with socket.create_server(("127.0.0.1", 0)) as listener, Transport(QUICK) as client:
        client.connect("hop", EndpointAddress(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
        for _ in range(2):
            with shaken_hands(listener, client) as connection:
                connection.sendall(b"\x04\x05\x20abcd" + b"\x02" + b"\xff" * 100)
                assert arrivals_until(client, bool)[-1] == Disconnected("hop")
                pass_time(client, 1.2)


def shaken_hands(listener: socket.socket, client: Transport) -> socket.socket:
    """The first connection that the client takes for a good one: it gives up one that waits for us too long."""
    listener.settimeout(PATIENCE)
    end = time.monotonic() + PATIENCE
    while True:
        assert time.monotonic() < end, "no connection is a good one"
        connection, _ = listener.accept()
        with contextlib.suppress(ConnectionError):
            connection.sendall(GREETING + b"\x04" + bytes([len(READY)]) + READY)
        with contextlib.suppress(AssertionError):
            arrivals_until(client, lambda found: Connected("hop") in found, 10.0)
            return connection
        connection.close()


def pass_time(transport: Transport, seconds: float) -> None:
    """Poll for so long."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        transport.poll(left)


def _bind_when_free(server: Transport, address: EndpointAddress) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            server.bind("hop", address)
        except ConfigurationError:
            assert time.monotonic() < end
            server.poll(0.05)
        else:
            return
