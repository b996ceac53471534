"""Neighbouring ports of the loopback that are free."""

from __future__ import annotations

import random
import socket
import threading

FIRST, LAST = 20_000, 32_000
"""Below the ports that systems give to connections of their own accord, which would come and go."""

_given: set[int] = set()
_guard = threading.Lock()


def free_ports(count: int) -> list[int]:
    """So many neighbouring tcp ports that nobody is bound to now, and that this process has not given out before.

    Raises RuntimeError if none are found in a hundred tries.
    """
    for _ in range(100):
        start = random.randrange(FIRST, LAST - count)
        ports = list(range(start, start + count))
        with _guard:
            if not _given.isdisjoint(ports):
                continue
            _given.update(ports)
        if all(_is_free(port) for port in ports):
            return ports
    raise RuntimeError(f"No {count} neighbouring ports between {FIRST} and {LAST} are free. See what listens there.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
