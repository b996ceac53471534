"""Engines: what starts the process of a place, on this machine or elsewhere.

An engine only places processes. Who is started again, when, and what a death means is decided in `restarts`, and which
worker gets which item by the distributor: both are the same whoever has started a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from zmqpipeline.runtime.child import Child


class Engine(Protocol):
    """Starts processes, one a call."""

    @property
    def hint(self) -> str:
        """What to look at if a process ended before anything was heard of it, as a sentence after a blank; or empty."""
        ...

    def start(
        self, label: str, arguments: Sequence[str], exited: Callable[[Child], None], *, stdout: int | None
    ) -> Child:
        """Start ``python ARGUMENTS``.

        What it returns can be asked to drain, ended, and told a line. `exited` is called once with it, from another
        thread, when the process is lost or has ended. `label` is for log lines; `stdout` is a file descriptor, None
        inherits ours.
        """
        ...
