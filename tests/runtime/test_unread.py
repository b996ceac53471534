"""A peer that ends with many messages unread: they are handled before its end is."""

from __future__ import annotations

from pathlib import Path

from tests.support.patience import PATIENCE
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.options import Options
from zmqpipeline.protocol.events import Disconnected
from zmqpipeline.runtime.transport.transport import Transport

PATIENT = Options(heartbeat_timeout=PATIENCE)
"""A process that stands still for some seconds must not lose its connections."""

MESSAGES = 500
"""More than are read in one turn."""


def test_all_that_was_sent_comes_before_the_break(tmp_path: Path) -> None:
    """The interpreter was held while the bound side sent, and ended."""
    address = EndpointAddress(f"ipc://{tmp_path}/s")
    bound = Transport(PATIENT)
    bound.bind("hop", address)
    with Transport(PATIENT) as connected:
        connected.connect("hop", address)
        while not any(not isinstance(one, tuple) for one in connected.poll(5.0)):
            pass
        connected.send(("hop", b""), [b"hello"])
        arrivals = bound.poll(5.0)
        while not arrivals:
            arrivals = bound.poll(5.0)
        peer = arrivals[0][0]  # type: ignore[index]
        for _ in range(MESSAGES):
            bound.send(peer, [b"word"])
        bound.close(60)
        seen: list[object] = []
        while Disconnected("hop") not in seen:
            seen += connected.poll(5.0)
        before = seen[: seen.index(Disconnected("hop"))]
        assert sum(isinstance(one, tuple) for one in before) == MESSAGES
