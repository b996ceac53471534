"""Child processes and their lifeline, with real processes."""

from __future__ import annotations

import os
import queue
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zmqpipeline.runtime import child as processes
from zmqpipeline.runtime.child import (
    KEPT_LINES,
    MAX_LINE_LENGTH,
    Child,
    death_notice,
    describe_death,
    describe_status,
    read_death_notice,
)
from zmqpipeline.runtime.child_report import Told

pytestmark = pytest.mark.processes

ADOPTED = "from zmqpipeline.runtime import child as processes; processes.adopt(); import os, sys, time; "
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
        return self.ended.get(timeout=60).status

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.join(60)
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
        "import sys, time; from zmqpipeline.runtime.child import Child; "
        f"child = Child('hog', ['-c', {ADOPTED + hog!r}], lambda child: None); time.sleep(60)"
    )
    middle = nest.start(code)
    grandchild = int(nest.line())
    middle.kill()
    assert nest.status() == -signal.SIGKILL
    descriptor = _watch(grandchild)
    assert _is_gone(descriptor, 60.0), "the grandchild outlived its parent by a minute"


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


HEARD = "processes.listen(lambda line: print(line, flush=True)); "


def test_a_child_hears_what_its_parent_says(nest: Nest) -> None:
    """Each line arrives whole and in order, also what was said before anybody listened; user code never sees one."""
    child = nest.start(ADOPTED + READY.replace("time.sleep", HEARD + "time.sleep"))
    assert nest.line() == "ready"
    said = [f"line {number}: {'x' * number}." for number in range(200)]
    assert all(child.tell(line) for line in said)
    assert [nest.line() for _ in said] == said


def test_what_is_said_before_anybody_listens_is_kept(nest: Nest) -> None:
    """Lines wait for the one who asks for them first."""
    gate = "sys.stdout.write('ready\\n'); sys.stdout.flush(); processes.listen(print); processes.listen(None); "
    wait = "[time.sleep(0.01) for _ in iter(lambda: len(processes._lines._kept), 3)]; "
    child = nest.start(ADOPTED + wait + gate + "print('done', flush=True); time.sleep(60)")
    assert all(child.tell(line) for line in ("one", "two \udcff", "three"))
    assert [nest.line() for _ in range(5)] == ["ready", "one", "two \\udcff", "three", "done"]


def test_lines_that_nobody_wants_are_forgotten() -> None:
    """Only the newest are kept: a child that never listens does not grow."""
    lines = processes._Lines()
    for number in range(KEPT_LINES + 5):
        lines.say(str(number))
    heard: list[str] = []
    lines.listen(heard.append)
    assert heard == [str(number) for number in range(5, KEPT_LINES + 5)]
    lines.listen(None)
    lines.say("later")
    lines.listen(heard.append)
    assert heard[-1] == "later"


def test_a_child_that_does_not_read_holds_nobody_up(nest: Nest) -> None:
    """When its pipe is full, or it is gone, `tell` says False, at once."""
    child = nest.start("print('ready', flush=True); import time; time.sleep(60)")
    assert nest.line() == "ready"
    told = 0
    while child.tell("x" * (MAX_LINE_LENGTH - 1)):
        told += 1
        assert told < 10_000
    assert told > 1
    child.kill()
    child.join(60)
    assert child.tell("anybody there?") is False


SAYING = ADOPTED + "say = processes.tell_parent; "


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("say('ready'); os._exit(2)", Told(is_ready=True)),
        ("say('ready'); say('starting'); os.kill(os.getpid(), 9)", Told(is_starting=True)),
        ("[say(one) for one in ('ready', 'starting', 'working')]; os._exit(0)", Told(is_ready=True, has_worked=True)),
        ("say('exit 2'); os._exit(2)", Told(status=2)),
        ("say('ready'); say('closing'); os._exit(0)", Told(is_ready=True, is_closing=True)),
        ("say('ready'); say('replace'); say('exit 0')", Told(is_ready=True, wants_successor=True, status=0)),
        ("say('ready'); os.fork() or (say('exit 2'), os._exit(0)); os.wait()", Told(is_ready=True)),
        ("os.fork() or time.sleep(90); say('ready'); os._exit(3)", Told(is_ready=True)),
        ("import subprocess; subprocess.Popen(['sleep', '90'], close_fds=False)", Told()),
        ("", Told()),
    ],
)
def test_what_a_child_tells_is_known_at_its_end(code: str, told: Told, nest: Nest) -> None:
    """However it ends; neither a fork that says something, nor one or a program that stays, changes or delays that."""
    child = nest.start(SAYING + code)
    began = time.monotonic()
    nest.status()
    assert child.told == told
    assert time.monotonic() - began < 60


def test_a_process_that_nobody_supervises_tells_nobody() -> None:
    """Nobody hears, and nothing happens."""
    assert processes.tell_parent("ready") is False


@pytest.mark.parametrize("line", ["two\nlines", "x" * MAX_LINE_LENGTH])
def test_only_a_short_line_is_said(line: str, nest: Nest) -> None:
    """A pipe takes a short line whole or not at all; anything else is refused."""
    child = nest.start(ADOPTED + READY)
    with pytest.raises(ValueError, match="One line of at most"):
        child.tell(line)


@pytest.mark.parametrize(
    ("status", "how"), [(-9, "killed by SIGKILL"), (-99, "killed by signal 99"), (70, "exit status 70")]
)
def test_a_notice_of_a_death_is_read_as_it_was_written(status: int, how: str) -> None:
    """Process id and cause go there and back."""
    assert read_death_notice(death_notice(4711, describe_death(status))) == (4711, how)


@pytest.mark.parametrize("line", ["", "died", "died 12", "died x killed by SIGKILL", "lived 12 long"])
def test_another_line_is_no_notice(line: str) -> None:
    """What is no such line says nothing."""
    assert read_death_notice(line) is None


def test_a_process_that_nobody_supervises_is_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable, adopt does nothing."""
    monkeypatch.delenv(processes.PARENT_VARIABLE, raising=False)
    before = signal.getsignal(signal.SIGINT)
    processes.adopt()
    assert signal.getsignal(signal.SIGINT) is before
    assert not processes.is_child()
