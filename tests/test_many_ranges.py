"""A distributor whose run has as many ranges as one message can tell goes on: what it says of it is told in parts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

from tests.support.ports import free_ports
from tests.support.roles import running
from zmqpipeline import Pipeline
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import messages as m

LONG_NAME = "x" * 4000
"""A Begin names the pipeline, a Holding does not: it is longer by so much."""

RANGES = (codec.MAX_STATE_BYTES - 1000) // 18
"""Each takes 18 bytes: a gap and a length that need nine each. A Holding of these fits; a Begin of these does not."""

SPANS = tuple(end for at in range(1, RANGES + 1) for end in (at << 34, (at << 34) + (1 << 33)))


class Collector(threading.Thread):
    """Holds that run, and answers each Propose; what else it hears is in `heard`."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        super().__init__(daemon=True)
        self.socket = socket
        self.said = 0
        self.heard: list[m.Message] = []
        self.has_heard = threading.Semaphore(0)
        self.is_over = threading.Event()
        holding = m.Holding("run", False, b"", RANGES << 33, [m.TaskProgress("C", SPANS, ())])
        self.frames = codec.encode(m.Envelope(b"collector", b"", 1, 0, holding))[1:]
        assert codec.MAX_STATE_BYTES - 2000 < len(self.frames[0]) <= codec.MAX_STATE_BYTES
        self.holding = holding

    def run(self) -> None:
        """Until the test is over."""
        while not self.is_over.is_set():
            if self.socket.poll(50):
                route, *frames = self.socket.recv_multipart()
                self._take(route, codec.decode(frames))

    def _take(self, route: bytes, envelope: m.Envelope) -> None:
        if isinstance(envelope.body, m.Propose) and not self.said:
            self.said += 1
            answer = m.Envelope(b"collector", envelope.sender, self.said, envelope.number, self.holding)
            self.socket.send_multipart([route, *codec.encode(answer)])
        elif not isinstance(envelope.body, (m.Probe, m.Propose)):
            self.heard.append(envelope.body)
            self.has_heard.release()


@pytest.fixture
def port() -> int:
    """The first of the ports of a base address."""
    return free_ports(7)[0]


@contextmanager
def collector_at(port: int) -> Iterator[Collector]:
    """A collector at this base address."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.linger = 0
        socket.bind(f"tcp://127.0.0.1:{port + 2}")
        collector = Collector(socket)
        collector.start()
        yield collector
        collector.is_over.set()
        collector.join()


@pytest.mark.slow
def test_as_many_ranges_as_a_message_can_tell_are_taken_over_and_told_again(port: int) -> None:
    """The distributor says each second that it begins, while it is not answered; nothing that it says is too long."""
    app = Pipeline(LONG_NAME)
    app.add_task("C", lambda: [{"n": 0}])
    app.add_worker("C", lambda data: data)
    role = app.compile("distributor", options=Options(endpoint=f"tcp://127.0.0.1:{port}"))
    with collector_at(port) as collector, running(role) as (thread,):
        for _ in range(3):
            assert collector.has_heard.acquire(timeout=40), (thread.error, collector.heard)
        assert thread.error is None
        assert [type(one) for one in collector.heard[:3]] == [m.Begin] * 3
