"""Every hop breaks and comes back, over and over: ``python -m tests.runtime.test_reconnects 1000``."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

from tests.acceptance.chaos.network import Network
from tests.acceptance.chaos.ports import free_ports
from zmqpipeline.address import EndpointAddress
from zmqpipeline.options import Options
from zmqpipeline.protocol.events import Connected, Disconnected
from zmqpipeline.runtime.sockets import Transport

HOPS = ("workers", "results", "acks", "metadata", "clients")
SAMPLE = 25
PATIENCE = 10.0
"""Seconds within which a hop that was broken must be back."""


class Pair:
    """Two transports with all hops, each through a link of its own that can be reset."""

    def __init__(self, network: Network) -> None:
        options = Options(heartbeat_interval=0.5, heartbeat_timeout=2.0, linger=0.0)
        self.server, self.client = Transport(options), Transport(options)
        self.network = network
        ports = free_ports(2 * len(HOPS))
        for index, hop in enumerate(HOPS):
            near, far = ports[2 * index], ports[2 * index + 1]
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
            files, threads = descriptors(), threading.active_count()
            for turn in range(times):
                for hop in HOPS:
                    network.reset(hop)
                pair.wait_for(Connected, set(HOPS))
                pair.talk(b"turn %d" % turn)
            assert descriptors() <= files + len(HOPS), f"{files} files were open, now {descriptors()}"
            assert threading.active_count() == threads
        finally:
            pair.close()


def test_every_hop_comes_back_each_time() -> None:
    """Messages pass both ways after each break; no descriptor and no thread is left of it."""
    break_and_talk(SAMPLE)


if __name__ == "__main__":
    began = time.monotonic()
    break_and_talk(int(sys.argv[1]))
    print(f"{sys.argv[1]} breaks of each of {len(HOPS)} hops, {time.monotonic() - began:.0f} s")
