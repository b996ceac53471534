"""One course of it: a site, hostile peers at each socket, an honest client, and what became of all that."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.peers import SOCKETS, Hostile, run_of
from tests.fuzz.site import Site

MAX_GROWTH = 50.0
"""MB that a role may grow by."""

WARM = 300
"""Items that are collected before anything hostile is said: a role grows with its first ones."""


def base_port() -> int:
    """The first of ten neighbouring ports of the loopback that are free now: a base address, and two taps."""
    for _ in range(100):
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
        if port < 65000 and all(_is_free(port + step) for step in range(10)):
            return port
    raise SystemExit("No ten neighbouring ports are free.")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Requests(threading.Thread):
    """An honest client beside it all; `wrong` are replies that are not right, or none."""

    def __init__(self, site: Site) -> None:
        super().__init__(name="honest client")
        self.count = 0
        self.wrong: list[str] = []
        self.over = threading.Event()
        self._site = site

    def run(self) -> None:
        """Ask on, until `over`."""
        with self._site.client() as client:
            while not self.over.wait(0.01):
                try:
                    reply = client.request({"n": self.count}, timeout=60.0)
                except Exception as error:
                    self.wrong.append(f"request {self.count}: {type(error).__name__}: {error}")
                    return
                if reply != {"n": 2 * self.count}:
                    self.wrong.append(f"request {self.count}: {reply}")
                self.count += 1


@dataclass
class Found:
    """What came of it. As text it is the figures."""

    seed: int
    seconds: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)
    growth: dict[str, float] = field(default_factory=dict)
    """MB, by role."""
    items: int = 0
    requests: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.sent.items()))
        growth = ", ".join(f"{name} {more:.1f}" for name, more in self.growth.items())
        return (
            f"{self.sent.total():,} messages in {self.seconds:.0f} s, seed {self.seed}: {kinds}\n"
            f"growth in MB: {growth}\n"
            f"beside them {self.items:,} items and {self.requests:,} requests; wrong: {len(self.wrong)}"
        )


def course(frames: int, seed: int, folder: Path) -> Found:
    """Send so many messages to the sockets of a site, and look at what became of it."""
    found = Found(seed)
    base = base_port()
    with Site(folder, base, base + 8) as site:
        site.wait_until_collecting(WARM)
        before = site.resident()
        requests = Requests(site)
        requests.start()
        peers = _peers(site, frames, seed)
        began = time.monotonic()
        for peer in peers:
            peer.start()
        for peer in peers:
            peer.join()
            found.sent += peer.sent
        found.seconds = time.monotonic() - began
        found.wrong += [peer.error for peer in peers if peer.error]
        if not found.wrong:
            site.wait_until_collecting(50)
        found.growth = {name: size - before[name] for name, size in site.resident().items()}
        requests.over.set()
        requests.join()
        found.wrong += [*requests.wrong, *site.finish()]
        found.wrong += [f"{name} grew by {more:.0f} MB" for name, more in found.growth.items() if more >= MAX_GROWTH]
        found.items, found.requests = len(site.lines()), requests.count
    return found


def _peers(site: Site, frames: int, seed: int) -> list[Hostile]:
    run = run_of(site)
    total = sum(map(len, SOCKETS.values()))
    shares = {role: -(-frames * len(hops) // total) for role, hops in SOCKETS.items()}
    return [Hostile(site, role, share, seed + index, run) for index, (role, share) in enumerate(shares.items())]
