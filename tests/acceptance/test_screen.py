"""`status --watch` and `top` on a real terminal: drawn in their place, within its size, and left in good order."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

# The workers of A have an item each until the file `go` is there; one item fails before.
APP = """
import pathlib, time
from zmqpipeline import Pipeline

app = Pipeline("held")
HERE = pathlib.Path(__file__).parent

@app.task("A", total=12, on_failed="continue")
def first():
    for n in range(12):
        yield {"n": n}

@app.worker("A", threads=1)
def on_first(data):
    if data["n"] == 0:
        raise OSError("no answer")
    (HERE / f"began-{data['n']}").touch()
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return data

@app.collector
def collect(data):
    pass

if __name__ == "__main__":
    app.main()
"""


class OnTerminal:
    """A program whose output is a terminal of this size."""

    def __init__(self, workshop: Workshop, *arguments: str, rows: int, columns: int, **environ: str) -> None:
        self.said = b""
        self._ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        inherited = {
            key: value for key, value in workshop.environ.items() if key not in ("LINES", "COLUMNS", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=workshop.folder,
            env={**inherited, "TERM": "xterm", **environ},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # Linux says EIO when the last one closes its end
            while some := os.read(self._ours, 65536):
                self.said += some

    @property
    def screens(self) -> list[list[str]]:
        """The lines of each lot that was drawn, without what makes them bold or red."""
        lots = self.said.decode(errors="replace").split("\x1b[?7l")[1:]
        plain = [re.sub(r"\x1b\[[0-9;]*[mHJK]", "", lot.partition("\x1b[J")[0]) for lot in lots]
        return [lot.replace("\r\n", "\n").splitlines() for lot in plain]

    def end(self) -> int:
        """Its exit status, when it has ended."""
        status = self.process.wait(60)
        self._reader.join()
        os.close(self._ours)
        return status


@pytest.mark.parametrize("command", [("status", "--watch"), ("top",)], ids=["status", "top"])
def test_a_live_screen(workshop: Workshop, eventually: Callable[..., None], command: tuple[str, ...]) -> None:
    """Drawn again within the terminal's lines; `top` has the workers first; each ends when the run does."""
    workshop.write("app.py", APP)
    run = workshop.start("-m", "app", "run", "--workers", "5")
    eventually(lambda: len(list(workshop.folder.glob("began-*"))) == 5, "five items that run")
    call = ("-m", "app", *command, "--interval", "0.2")
    shown = OnTerminal(workshop, *call, rows=11 if command == ("top",) else 9, columns=200)
    plain = OnTerminal(workshop, *call, rows=40, columns=200, NO_COLOR="1")
    # the item that failed may be told of a little later
    eighth = "[#-------------------]   8%"
    eventually(lambda: any(eighth in line for screen in plain.screens for line in screen), "one item of twelve is done")
    eventually(lambda: len(shown.screens) >= 3 and len(plain.screens) >= 3, "three screens of both")
    workshop.write("go", "")
    assert run.wait() == 1, run.err
    assert (shown.end(), plain.end()) == (0, 0)
    assert max(map(len, shown.screens)) <= 10
    assert shown.said.count(b"\x1b[2J") == 1
    assert b"\x1b[1m" in shown.said
    # in a screen so low `top` has no line left for the task that failed
    assert b"\x1b[31m" in shown.said or command == ("top",)
    assert shown.said.count(b"\x1b[?7h") == shown.said.count(b"\x1b[?7l"), "the terminal wraps lines as before"
    assert b"No distributor answers any more" in shown.said
    assert not re.search(rb"\x1b\[\d*m", plain.said)
    heads = [line.split()[0] for line in plain.screens[0] if line.startswith(("task ", "worker "))]
    assert heads == (["worker", "task"] if command == ("top",) else ["task", "worker"])
    left_out = "and 2 more workers" if command == ("top",) else "more lines"
    assert any(left_out in line for line in shown.screens[0]), shown.screens[0]


def test_ctrl_c_ends_it(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """With 130; nothing is written over what was shown last."""
    workshop.write("app.py", APP)
    workshop.start("-m", "app", "run", "--workers", "1")
    eventually(lambda: list(workshop.folder.glob("began-*")), "an item that runs")
    shown = OnTerminal(workshop, "-m", "app", "top", rows=24, columns=80)
    eventually(lambda: shown.screens and b"\x1b[?7h" in shown.said, "a screen")
    shown.process.send_signal(signal.SIGINT)
    assert shown.end() == 130
    assert shown.said.endswith(b"\x1b[?7h\r\n")


def test_once_it_is_plain(workshop: Workshop, eventually: Callable[..., None]) -> None:
    """`status` alone leaves what is on the terminal."""
    workshop.write("app.py", APP)
    workshop.start("-m", "app", "run", "--workers", "1")
    eventually(lambda: list(workshop.folder.glob("began-*")), "an item that runs")
    shown = OnTerminal(workshop, "-m", "app", "status", rows=24, columns=80)
    assert shown.end() == 0
    assert b"\x1b" not in shown.said
    assert b"held at ipc://" in shown.said
