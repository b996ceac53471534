"""Where processes and threads wait for each other before a benchmark begins, so that no start-up is measured.

A worker comes to the meeting in its `thread_init`, which is called when it has its first item: then it is imported,
connected and known. When all have come, all go on, and the clock runs.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

PATIENCE = 60.0
"""Seconds within which all must have come."""

_LOOK = 0.2


class Meeting:
    """Binds the path; `hold` waits for everybody who was asked to come there."""

    def __init__(self, path: Path) -> None:
        """Open it, so that nobody can come too early."""
        self.path = path
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(path))
        self._door.listen(1024)
        self._door.settimeout(_LOOK)

    def __enter__(self) -> Meeting:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self._door.close()

    def hold(self, count: int, hosts: Sequence[subprocess.Popen[bytes]]) -> float:
        """Wait until so many have come, let them go, and return when that was (time.monotonic).

        Raises:
            SystemExit: one of `hosts`, the processes that they live in, has ended before, or somebody does not come.
        """
        here: list[socket.socket] = []
        deadline = time.monotonic() + PATIENCE
        try:
            while len(here) < count:
                try:
                    here.append(self._door.accept()[0])
                except TimeoutError:
                    if any(one.poll() is not None for one in hosts) or time.monotonic() > deadline:
                        raise SystemExit(f"Only {len(here)} of {count} workers came to the start.") from None
            began = time.monotonic()
            for one in here:
                one.sendall(b"!")
        finally:
            for one in here:
                one.close()
        return began


def attend(path: str) -> None:
    """Wait there for the others; not at all without a path."""
    if path:
        with socket.socket(socket.AF_UNIX) as seat:
            seat.connect(path)
            if not seat.recv(1):
                raise ConnectionError(f"The meeting at {path} was called off.")
