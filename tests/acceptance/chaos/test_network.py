"""The suite's own network: it forwards what is sent, and does to it what it says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.acceptance.chaos.network import HOST, Network
from tests.support.ports import free_ports


class Echo:
    """Sends back what it receives, to any number of connections."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server((HOST, port))
        self.open: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.open.append(connection)
            self.threads.append(threading.Thread(target=self._answer, args=(connection,), daemon=True))
            self.threads[-1].start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1024):
                    connection.sendall(data)
            except ConnectionError:
                return

    def close(self) -> None:
        """End the threads, which wait in calls that only a shutdown wakes."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)


class Line:
    """A link named "line" with an echo at its far side."""

    def __init__(self) -> None:
        self.near, self.far = free_ports(2)
        self.echo: Echo | None = Echo(self.far)
        self.network = Network()
        self.network.add("line", self.near, self.far)

    def connect(self) -> socket.socket:
        """A connection to the near side."""
        return socket.create_connection((HOST, self.near), 5)

    def close(self) -> None:
        """End all of it."""
        self.network.close()
        if self.echo is not None:
            self.echo.close()


@pytest.fixture
def line() -> Iterator[Line]:
    """A link that is up."""
    made = Line()
    yield made
    made.close()


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send, and receive so much."""
    connection.sendall(data)
    received = b""
    while len(received) < len(data):
        part = connection.recv(1 << 16)
        if not part:
            break
        received += part
    return received


def test_everything_arrives_in_order(line: Line) -> None:
    """A megabyte goes there and back on each of three connections."""
    data = bytes(range(256)) * 4096
    for _ in range(3):
        with line.connect() as connection:
            sender = threading.Thread(target=connection.sendall, args=(data,))
            sender.start()
            received = b""
            while len(received) < len(data):
                received += connection.recv(1 << 16)
            sender.join()
            assert received == data


def test_a_reset_is_a_reset_and_new_connections_work(line: Line) -> None:
    """Both sides of each connection are broken with a RST, not ended in good order."""
    with line.connect() as first, line.connect() as second:
        assert exchange(first, b"one") == b"one"
        assert exchange(second, b"two") == b"two"
        assert line.network.reset("line") == 4
        for connection in (first, second):
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
    with line.connect() as third:
        assert exchange(third, b"three") == b"three"


def test_what_is_swallowed_is_lost_and_the_connection_with_it(line: Line) -> None:
    """It can be sent, and arrives nowhere; afterwards the connection is reset."""
    with line.connect() as connection:
        assert exchange(connection, b"before") == b"before"
        line.network.swallow("line", True)
        connection.sendall(b"lost")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert line.network.swallow("line", False) == 4
        connection.settimeout(5)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with line.connect() as connection:
        assert exchange(connection, b"after") == b"after"


def test_a_black_hole_gives_back_what_fell_into_it(line: Line) -> None:
    """Nothing arrives meanwhile, on old connections and new ones; all of it does afterwards."""
    with line.connect() as old:
        assert exchange(old, b"before") == b"before"
        line.network.blackhole("line", True)
        with line.connect() as new:
            for connection in (old, new):
                connection.sendall(b"sent")
                connection.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    connection.recv(1)
            line.network.blackhole("line", False)
            for connection in (old, new):
                connection.settimeout(5)
                assert connection.recv(4) == b"sent"


@pytest.mark.alone
def test_a_delay_is_one_each_way(line: Line) -> None:
    """There and back takes at least twice the delay, and no time to speak of once it is lifted."""
    with line.connect() as connection:
        line.network.delay("line", 0.1)
        began = time.monotonic()
        assert exchange(connection, b"slow") == b"slow"
        assert 0.2 <= time.monotonic() - began < 2
        line.network.delay("line", 0.0)
        began = time.monotonic()
        assert exchange(connection, b"fast") == b"fast"
        assert time.monotonic() - began < 0.2


def test_an_end_is_passed_on_and_so_is_a_refusal(line: Line) -> None:
    """The far side's end is one for the near side, after its last bytes; with nobody there, connections are reset."""
    assert line.echo is not None
    with line.connect() as connection:
        assert exchange(connection, b"last") == b"last"
        line.echo.open[0].shutdown(socket.SHUT_RDWR)
        assert connection.recv(1) == b""
    line.echo.close()
    line.echo = None
    # the reset may come before the connection is handed out
    with pytest.raises(ConnectionResetError), line.connect() as connection:
        connection.recv(1)
