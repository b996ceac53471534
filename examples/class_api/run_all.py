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
        programs = [
            subprocess.Popen([sys.executable, "-m", f"examples.class_api.{name}"], env=environ) for name in PROGRAMS
        ]
        return see_through({program.pid: program for program in programs})


def see_through(running: dict[int, subprocess.Popen[bytes]]) -> int:
    """Wait until all have ended by themselves; when one fails, end the others, which would wait for it."""
    while running:
        pid, status = os.wait()
        ended = running.pop(pid)
        ended.returncode = os.waitstatus_to_exitcode(status)
        if ended.returncode:
            for program in running.values():
                program.terminate()
            for program in running.values():
                program.wait()
            return abs(ended.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
