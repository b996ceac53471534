"""Child processes and their lifeline, with real processes."""

from __future__ import annotations

import os
import queue
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from zmqpipeline.runtime import processes
from zmqpipeline.runtime.processes import Child, describe_status

pytestmark = pytest.mark.processes

ADOPTED = "from zmqpipeline.runtime import processes; processes.adopt(); import os, sys, time; "
READY = "print('ready', flush=True); time.sleep(60)"


class Nest:
    """Starts children whose output can be read and whose end is told by a queue; kills them on the way out."""

    def __init__(self) -> None:
        self.ended: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self.children: list[Child] = []
        self.read, self.write = os.pipe()

    def start(self, code: str) -> Child:
        child = Child("child", ["-c", code], self.ended.put, stdout=self.write)
        self.children.append(child)
        return child

    def line(self) -> str:
        text = b""
        while not text.endswith(b"\n"):
            text += os.read(self.read, 1)
        return text.decode().strip()

    def status(self) -> int | None:
        return self.ended.get(timeout=20).status

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.join(5)
            assert child.status is not None
        os.close(self.read)
        os.close(self.write)


@pytest.fixture
def nest() -> Iterator[Nest]:
    """A nest that leaves no process behind."""
    nest = Nest()
    yield nest
    nest.close()


def test_the_end_of_a_child_is_told_once_with_its_status(nest: Nest) -> None:
    """A child's exit status arrives by the callback, once."""
    nest.start("raise SystemExit(7)")
    assert nest.status() == 7
    assert nest.ended.empty()


def test_a_child_that_is_killed_reports_the_signal(nest: Nest) -> None:
    """A signal is a negative status, worded by its name."""
    child = nest.start(ADOPTED + READY)
    assert nest.line() == "ready"
    child.kill()
    status = nest.status()
    assert status == -signal.SIGKILL
    assert describe_status(status) == "SIGKILL"
    assert describe_status(3) == "status 3"


def test_a_child_ends_when_its_lifeline_is_cut(nest: Nest) -> None:
    """An adopted child leaves by itself at the end of the pipe, without any signal."""
    child = nest.start(ADOPTED + READY)
    assert nest.line() == "ready"
    child.cut()
    assert nest.status() == 1


def test_a_child_dies_with_its_parent_even_while_it_holds_the_gil(nest: Nest) -> None:
    """The kernel ends a grandchild that is busy in C, when the process that started it is killed."""
    hog = "print(os.getpid(), flush=True); sum(range(10**12))"
    code = (
        "import sys, time; from zmqpipeline.runtime.processes import Child; "
        f"child = Child('hog', ['-c', {ADOPTED + hog!r}], lambda child: None); time.sleep(60)"
    )
    middle = nest.start(code)
    grandchild = int(nest.line())
    middle.kill()
    assert nest.status() == -signal.SIGKILL
    descriptor = _watch(grandchild)
    assert _is_gone(descriptor, 5.0), "the grandchild outlived its parent by five seconds"


def _watch(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _is_gone(descriptor: int | None, seconds: float) -> bool:
    if descriptor is None:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def test_a_child_ignores_ctrl_c_from_its_first_moment(nest: Nest) -> None:
    """SIGINT that comes while the child is still booting, or later, does not end it."""
    child = nest.start(ADOPTED + READY)
    for _ in range(20):
        os.kill(child.pid, signal.SIGINT)
    assert nest.line() == "ready"
    os.kill(child.pid, signal.SIGINT)
    child.terminate()
    assert nest.status() == -signal.SIGTERM


def test_a_child_has_our_path_and_not_our_variables(
    nest: Nest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What we can import a child can import; what user code starts there sees the environment as it was."""
    (tmp_path / "only_here.py").write_text("word = 'found'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "/before")
    nest.start(
        ADOPTED
        + "import only_here; print(only_here.word, os.environ['PYTHONPATH'], processes.PARENT_VARIABLE in os.environ)"
    )
    assert nest.line() == "found /before False"
    assert nest.status() == 0


def test_standard_input_of_a_child_is_empty(nest: Nest) -> None:
    """User code that reads standard input finds its end at once, not the lifeline."""
    nest.start(ADOPTED + "print(repr(sys.stdin.read()), flush=True)")
    assert nest.line() == "''"


def test_a_process_that_nobody_supervises_is_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable, adopt does nothing."""
    monkeypatch.delenv(processes.PARENT_VARIABLE, raising=False)
    before = signal.getsignal(signal.SIGINT)
    processes.adopt()
    assert signal.getsignal(signal.SIGINT) is before
    assert not processes.is_child()
