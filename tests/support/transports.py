"""What the tests of the runtime share: transports in pairs, addresses, and peers in processes of their own."""

from __future__ import annotations

import contextlib
import itertools
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.patience import PATIENCE
from tests.support.ports import free_port
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.options import Options
from zmqpipeline.protocol.events import Running
from zmqpipeline.runtime.transport.transport import Transport, shared_context

QUICK = Options(linger=0.5, heartbeat_timeout=PATIENCE)
"""A process that stood still for some seconds must not lose its connections: its heartbeats are no test's subject."""

PROTOCOLS = ("tcp", "ipc", "inproc")
OWN, HAND = "own", "hand"
"""What two threads that may lead are called."""
_names = itertools.count()


def new_address(protocol: str, folder: Path) -> EndpointAddress:
    """An unused address of this protocol."""
    if protocol == "tcp":
        return EndpointAddress(f"tcp://127.0.0.1:{free_port()}")
    if protocol == "ipc":
        return EndpointAddress(f"ipc://{folder}/{next(_names)}.ipc")
    return EndpointAddress(f"inproc://test-{next(_names)}")


def new_transport(address: EndpointAddress, options: Options = QUICK) -> Transport:
    """A transport that can use this address."""
    return Transport(options, context=shared_context() if address.protocol == "inproc" else None)


def arrivals_until(transport: Transport, enough: Callable[[list[Any]], bool], seconds: float = PATIENCE) -> list[Any]:
    """All that arrives until `enough(arrivals)`; fails the test after `seconds`."""
    arrivals: list[Any] = []
    end = time.monotonic() + seconds
    while not enough(arrivals):
        left = end - time.monotonic()
        assert left > 0, f"not enough in {seconds} s: {arrivals[-10:]}"
        arrivals += transport.poll(left)
    return arrivals


def messages(arrivals: list[Any]) -> list[list[bytes]]:
    """The frames of the messages among these arrivals."""
    return [one[1] for one in arrivals if isinstance(one, tuple)]


def both_until(one: Transport, other: Transport, enough: Callable[[list[Any], list[Any]], bool]) -> None:
    """Poll two transports of this thread in turns until `enough(of_one, of_other)`."""
    mine: list[Any] = []
    its: list[Any] = []
    end = time.monotonic() + PATIENCE
    while not enough(mine, its):
        assert time.monotonic() < end, f"not enough: {mine[-5:]} {its[-5:]}"
        mine += one.poll(0.01)
        its += other.poll(0.01)


@dataclass
class Posts:
    """Stands in for `Loop.post` where there is no loop: keeps the events, in order.

    Running is beside them: it may come of any item while others wait, if the machine is busy enough.
    """

    arrived: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)
    running: queue.SimpleQueue[Running] = field(default_factory=queue.SimpleQueue)

    def __call__(self, event: Any) -> None:
        (self.running if isinstance(event, Running) else self.arrived).put(event)

    def next(self, seconds: float = PATIENCE) -> Any:
        """The next event; fails the test if none comes."""
        return self.arrived.get(timeout=seconds)

    def until(self, enough: Callable[[list[Any]], bool], seconds: float = PATIENCE) -> list[Any]:
        """All events until `enough(events)`."""
        events: list[Any] = []
        while not enough(events):
            events.append(self.next(seconds))
        return events


@contextlib.contextmanager
def peer_process(source: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A python process that runs `source`; killed on the way out, also when it is stopped."""
    process = subprocess.Popen(
        [sys.executable, "-c", source, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
