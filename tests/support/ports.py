"""Free ports of the loopback, each given out once on this machine, to however many test processes run on it."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

FIRST, LAST = 15_000, 32_000
"""Below the ports that systems give to connections of their own accord, which would come and go."""

PLEDGES = Path(tempfile.gettempdir(), f"zmqpipeline-test-ports-{os.getuid()}")
"""Nothing is written to it: byte N of it, under the lock of a process, is port N. The system lets go when it ends."""


class Ports:
    """What one process was given, and keeps until it ends."""

    def __init__(self, path: Path = PLEDGES) -> None:
        self._path = path
        self._guard = threading.Lock()
        self._given: set[int] = set()
        self._file = -1

    def free(self, count: int, hosts: Sequence[str]) -> list[int]:
        """See `free_ports`."""
        # such a lock belongs to the process, which would be given its own bytes again
        with self._guard:
            starts = range(FIRST, LAST - count + 1)
            # of its own randomness: the processes of one test run may all be seeded alike
            for start in random.SystemRandom().sample(starts, min(300, len(starts))):
                ports = range(start, start + count)
                if self._given.isdisjoint(ports) and self._pledge(ports):
                    self._given.update(ports)
                    if all(_is_free(host, port) for host in hosts for port in ports):
                        return list(ports)
        raise RuntimeError(f"No {count} neighbouring ports from {FIRST} to {LAST} are free. See what listens there.")

    def _pledge(self, ports: range) -> bool:
        """Lock these bytes; False if one of them is another process's."""
        if self._file < 0:
            # never closed: with any descriptor of a file a process loses all of its locks on it
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, len(ports), ports.start)
        except (BlockingIOError, PermissionError):
            return False
        return True


_OURS = Ports()


def free_ports(count: int, hosts: Sequence[str] = ("127.0.0.1",)) -> list[int]:
    """So many neighbouring tcp ports that nobody is bound to on these addresses, and that nobody else is given.

    Raises RuntimeError if none are found in some hundred tries.
    """
    return _OURS.free(count, hosts)


def free_port() -> int:
    """One such port."""
    return free_ports(1)[0]


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
