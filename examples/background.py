"""What the examples with a service share: a broker and workers that run for as long as a block does."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from zmqpipeline import Options


@contextmanager
def served(module: str, service: str, processes: int = 1) -> Iterator[Options]:
    """Serve `service` of the app that `python -m module` runs, at an address that nobody else has.

    Gives the options with which a client finds it.
    """
    with tempfile.TemporaryDirectory(prefix="service-") as folder:
        address = f"ipc://{folder}"
        broker = start(module, "service", "--endpoint", address)
        workers = start(module, "service-worker", service, "--processes", str(processes), "--endpoint", address)
        try:
            yield Options(endpoint=address)
        finally:
            # the broker ends its workers; what it does not reach any more is ended here
            broker.send_signal(signal.SIGTERM)
            broker.wait()
            try:
                workers.wait(timeout=3)
            except subprocess.TimeoutExpired:
                workers.terminate()
                workers.wait()


def start(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Run a command of the app, as in a terminal of its own."""
    return subprocess.Popen([sys.executable, "-m", module, *arguments])
