"""Start it with ``python -m examples.class_api.run_all``: all programs of the example, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable

PROGRAMS = ("worker", "run_distributor", "worker", "collector")
"""In any order: whoever is early waits for the others."""

GRACE = 2.0
"""Seconds that a worker has to hear that the run is over."""


def main() -> int:
    """Start the programs, with sockets in a folder of their own; 0 if each of them ended with 0."""
    with tempfile.TemporaryDirectory(prefix="naps-") as folder:
        environ = {**os.environ, "NAP_FOLDER": folder}
        programs = [
            (name, subprocess.Popen([sys.executable, "-m", f"examples.class_api.{name}"], env=environ))
            for name in PROGRAMS
        ]
        workers = [program for name, program in programs if name == "worker"]
        return see_through([program for _, program in programs], workers)


def see_through(programs: list[subprocess.Popen[bytes]], workers: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all; when one fails, end the others, which would wait for it."""
    running = {program.pid: program for program in programs}
    while not running.keys() <= {worker.pid for worker in workers}:
        pid, status = os.wait()
        ended = running.pop(pid)
        ended.returncode = os.waitstatus_to_exitcode(status)
        if ended.returncode:
            dismiss(running.values(), 0.0)
            return abs(ended.returncode)
    dismiss(running.values(), GRACE)
    return max(abs(program.returncode) for program in workers)


def dismiss(programs: Iterable[subprocess.Popen[bytes]], grace: float) -> None:
    """End those that have not ended by themselves after `grace` seconds: a late worker waits for the next run."""
    late = [program for program in programs if not has_ended(program, grace)]
    for program in late:
        program.terminate()
    for program in late:
        program.wait()


def has_ended(program: subprocess.Popen[bytes], within: float) -> bool:
    """Wait for so many seconds at most."""
    try:
        program.wait(within)
    except subprocess.TimeoutExpired:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
