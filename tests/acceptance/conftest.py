"""Real programs in real processes: written to a folder of their own, started there, ended by their process id."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 60.0
"""Seconds that tests wait for what must come. It costs nothing where all is well, and a busy machine may stall."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # tests in the background of a shell: what they start would ignore Ctrl-C, too, until it has a handler of its own
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Program:
    """One started program; its output goes to files that may be read at any time."""

    def __init__(self, folder: Path, name: str, command: list[str], environ: dict[str, str]) -> None:
        self.stdout, self.stderr = folder / f"{name}.out", folder / f"{name}.err"
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id, which is also that of its group."""
        return self._process.pid

    @property
    def out(self) -> str:
        """What it has written to stdout."""
        return self.stdout.read_text(errors="surrogateescape")

    @property
    def err(self) -> str:
        """What it has written to stderr."""
        return self.stderr.read_text(errors="surrogateescape")

    @property
    def complaints(self) -> str:
        """What it has written to stderr, but for lines that it waits for a role that is to come."""
        return "".join(f"{line}\n" for line in troubles(self.err))

    @property
    def json(self) -> Any:
        """Its stdout as one JSON object."""
        return json.loads(self.out)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit status; fails the test, with what it said, if the program does not end in time."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s\n{self.out}\n{self.err}") from None

    def ended(self) -> bool:
        """True if it is over."""
        return self._process.poll() is not None

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to it, or, as a terminal does, to its group."""
        if group:
            os.killpg(self.pid, number)
        else:
            self._process.send_signal(number)

    def close(self) -> None:
        """End it, and whoever is left of its group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)


class Workshop:
    """A folder for one test's programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[Program] = []
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith("ZMQPIPELINE_")},
            "PYTHONPATH": str(ROOT),
            "XDG_RUNTIME_DIR": str(folder),
            "PYTHONUNBUFFERED": "1",
            # a process that gets no processor for some seconds is not to be taken for lost
            "ZMQPIPELINE_HEARTBEAT_TIMEOUT": "30",
        }

    def write(self, name: str, text: str) -> Path:
        """Write a program or a file, at once; a program that takes the place of another is a second newer."""
        path = self.folder / name
        before = path.stat().st_mtime if path.exists() else 0.0
        # a program that was just started may be reading the one before: it must never see half a file
        new = self.folder / f"{name}.new"
        new.write_text(text)
        # whether its bytecode is still right, python tells by whole seconds and the size
        moment = max(new.stat().st_mtime, before + 1)
        os.utime(new, (moment, moment))
        new.replace(path)
        return path

    def start(self, *arguments: str, **environ: str) -> Program:
        """Start ``python ARGUMENTS`` here."""
        name = f"{len(self.programs)}"
        program = Program(self.folder, name, [sys.executable, *arguments], {**self.environ, **environ})
        self.programs.append(program)
        return program

    def run(self, *arguments: str, timeout: float = PATIENCE, **environ: str) -> tuple[int, Program]:
        """Start it, wait for its end; its status and itself."""
        program = self.start(*arguments, **environ)
        return program.wait(timeout), program

    def lines(self, name: str) -> list[str]:
        """The complete lines of a file that a program appends to; none if it is not there yet."""
        path = self.folder / name
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def numbers(self, name: str) -> list[int]:
        """The lines of a file as numbers."""
        return [int(line) for line in self.lines(name)]

    def close(self) -> None:
        """End every program."""
        for program in self.programs:
            program.close()


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    """A workshop in a short folder (ipc paths are limited), with nothing running on the way out."""
    folder = Path(tempfile.mkdtemp(prefix="zp-", dir="/tmp"))
    workshop = Workshop(folder)
    yield workshop
    workshop.close()
    shutil.rmtree(folder)


WAITS = re.compile("[Ww]aiting for |No worker serves task |Nothing was heard |was over .* before this worker")


def troubles(said: str) -> list[str]:
    """The lines on stderr but those of who waits for others, which a busy machine may be slow to start."""
    return [line for line in said.splitlines() if not WAITS.search(line)]


def wait_until(condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
    """Wait until a condition holds, looking often; a failure says what it waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        select.select([], [], [], 0.01)


@pytest.fixture
def eventually() -> Callable[..., None]:
    """`wait_until`."""
    return wait_until


@pytest.fixture
def free_port() -> int:
    """The first of eight neighbouring ports of the loopback that are this test's: as many as a base address takes."""
    return free_ports(8)[0]


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    """Tells whether a process id stands for no running process."""
    return _is_gone


def _is_gone(pid: int) -> bool:
    """True if no such process runs; one that is dead and not yet fetched by its parent does not run."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"
