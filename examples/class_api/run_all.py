"""Start it with ``python -m examples.class_api.run_all``: all programs of the example, on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

PROGRAMS = ("worker", "run_distributor", "worker", "collector")
"""In any order: whoever is early waits for the others."""


def main() -> int:
    """Start the programs, with sockets in a folder of their own; 0 if each of them ended with 0."""
    with tempfile.TemporaryDirectory(prefix="naps-") as folder:
        environ = {**os.environ, "NAP_FOLDER": folder}
        return see_through(
            [subprocess.Popen([sys.executable, "-m", f"examples.class_api.{name}"], env=environ) for name in PROGRAMS]
        )


def see_through(programs: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all; when one fails, end the others, which would wait for it."""
    running, worst = {program.pid: program for program in programs}, 0
    while running:
        pid, status = os.wait()
        ended = running.pop(pid)
        ended.returncode = os.waitstatus_to_exitcode(status)
        if ended.returncode and not worst:
            worst = abs(ended.returncode)
            for program in running.values():
                program.terminate()
    return worst


if __name__ == "__main__":
    sys.exit(main())
