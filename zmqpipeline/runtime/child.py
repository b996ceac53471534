"""Child processes: spawned (never forked) with a lifeline to their parent, and the child's own end of that line.

The lifeline is the child's standard input: a pipe. When the parent is gone, however it went, the pipe reports its end
and the child leaves. Where the system offers it (Linux), the kernel is asked to kill the child, too: a thread that
holds the GIL in one long C call would keep the reading thread from running. Down the same pipe the parent may say a
line now and then (`Child.tell`), which the child hears (`listen`). On a second pipe the child tells how far it is
(`tell_parent`); that, and not an exit status that user code may choose, is what its end is judged by.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn

from zmqpipeline.runtime.child_report import ANSWERED, EXIT, Told
from zmqpipeline.runtime.launch_words import HERE, LAUNCHED_FLAG, MARK, Greeting, unplain

if TYPE_CHECKING:
    import subprocess

PARENT_VARIABLE = "ZMQPIPELINE_PARENT"
"""Names to a child the parent's process id, and the file number on which it tells how far it is; taken out of the
environment again before user code runs."""

PATH_VARIABLE = "ZMQPIPELINE_PYTHONPATH"
"""The parent's own PYTHONPATH, which the child puts back for the programs that user code may start."""

IMPORTS_VARIABLE = "ZMQPIPELINE_IMPORTS"
"""Names to a child the modules that the app's functions are in; taken out of the environment again."""

MAX_LINE_LENGTH = 4000
"""The most bytes of a line that a parent says: what a pipe takes whole or not at all."""

KEPT_LINES = 1000
"""So many lines are kept for a child that does not listen yet, the newest ones."""

MAX_TOLD = 65536
"""Bytes; a child tells fewer."""

DRAIN = "drain"
"""The line that asks a child to drain which no signal reaches; it does then what it does on SIGTERM."""

LEAVE = "leave"
"""The line that asks a worker to drain, and to take as long for that as what it has begun takes."""

ANSWER = "answer"
"""The line that a child answers (`child_report.ANSWERED`), if it is not stopped, and nothing holds its interpreter."""

_PR_SET_PDEATHSIG = 1

_SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()
"""The current folder is searched by a child only if it is in our own `sys.path`."""


class Child:
    """One child process. `exited` is called once with this child, from a thread of its own, when it has ended."""

    def __init__(
        self,
        label: str,
        arguments: Sequence[str],
        exited: Callable[[Child], None],
        *,
        stdout: int | None = None,
        files: Sequence[int] = (),
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start ``python ARGUMENTS``. `label` is for log lines; `stdout` is a file descriptor, None inherits ours.

        It inherits these `files`, too, and has `environ` in its environment besides ours.
        """
        self._besides = files, environ
        self.label = label
        self.started = time.monotonic()
        self.status: int | None = None
        self.told = Told()
        """What it has told of itself; known when it has ended."""
        self._ear, self._heard = -1, b""
        self._line_guard = threading.Lock()
        self._process = self._start(arguments, stdout)
        self._exited = exited
        self._waiter = threading.Thread(target=self._wait, name=f"wait for {label}", daemon=True)
        self._waiter.start()

    def _start(self, arguments: Sequence[str], stdout: int | None) -> subprocess.Popen[bytes]:
        process, self._ear = _spawn(arguments, stdout, *self._besides)
        return process

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def terminate(self) -> None:
        """Ask it to drain (SIGTERM); nothing happens if it has ended."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once (SIGKILL); nothing happens if it has ended."""
        self._process.kill()

    def join(self, timeout: float) -> None:
        """Wait until it has ended, at most `timeout` seconds."""
        self._waiter.join(timeout)

    def tell(self, line: str) -> bool:
        """Say a line to the child; at once, or not at all: False if it has ended, or has not read for very long.

        Raises:
            ValueError: the line is none, or longer than MAX_LINE_LENGTH bytes.
        """
        said = self.said(line)
        stdin = self._process.stdin
        with self._line_guard, suppress(OSError):
            return stdin is not None and not stdin.closed and os.write(stdin.fileno(), said) == len(said)
        return False

    @staticmethod
    def said(line: str) -> bytes:
        """A line as it is said. Raises ValueError if it is none, or too long."""
        said = line.encode(errors="backslashreplace") + b"\n"
        if b"\n" in said[:-1] or len(said) > MAX_LINE_LENGTH:
            raise ValueError(
                f"One line of at most {MAX_LINE_LENGTH} bytes can be said, not {line[:80]!r} ({len(said)})."
            )
        return said

    def cut(self) -> None:
        """Cut the lifeline, as the parent's death would."""
        if self._process.stdin is not None:
            with self._line_guard, suppress(OSError):
                self._process.stdin.close()

    def has_told(self) -> Told:
        """What it has told of itself until now."""
        with self._line_guard:
            self._hear()
            return Told.read(self._heard)

    def _hear(self) -> None:
        """Take what it has told since the last time. Nobody waits for the end of it: forks of user code may hold it."""
        with suppress(BlockingIOError):
            self._heard += os.read(self._ear, MAX_TOLD) if self._ear >= 0 else b""

    def _wait(self) -> None:
        self.status = self._process.wait()
        self.told = Told.read(self._last_words())
        self.cut()
        self._exited(self)

    def _last_words(self) -> bytes:
        """All that it has told; called once, when it has ended."""
        with self._line_guard:
            self._hear()
            os.close(self._ear)
            self._ear = -1
            return self._heard


def _spawn(
    arguments: Sequence[str], stdout: int | None, files: Sequence[int], environ: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], int]:
    """Start it with SIGINT blocked, so that a Ctrl-C while it is still booting cannot kill it; `adopt` unblocks.

    Returns it, and the file number where it can be read what it tells, without waiting for more.
    """
    import subprocess

    ear, voice = os.pipe()
    os.set_blocking(ear, False)
    before = _mask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(
            [sys.executable, *_SAFE_PATH, *arguments],
            stdin=subprocess.PIPE,
            stdout=stdout,
            pass_fds=(voice, *files),
            env={**child_environ(os.environ, voice), **environ},
        )
    except BaseException:
        os.close(ear)
        raise
    finally:
        os.close(voice)
        if signal.SIGINT not in before:
            _mask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if process.stdin is not None:
        # a child that does not read, since something holds its GIL, must not hold up its parent
        os.set_blocking(process.stdin.fileno(), False)
    return process, ear


def _mask(how: int, signals: set[signal.Signals]) -> set[int]:
    if not hasattr(signal, "pthread_sigmask"):
        return set()
    return {int(number) for number in signal.pthread_sigmask(how, signals)}


def search_path() -> str:
    """Our `sys.path`, as the environment of a child has it."""
    return os.pathsep.join(dict.fromkeys(entry or os.getcwd() for entry in sys.path))  # noqa: PTH109


def child_environ(environ: Mapping[str, str], voice: int) -> dict[str, str]:
    """The environment of a child: ours, with our `sys.path` handed on, the parent's process id, and its file number."""
    return {
        **environ,
        "PYTHONPATH": search_path(),
        PATH_VARIABLE: environ.get("PYTHONPATH", ""),
        PARENT_VARIABLE: f"{os.getpid()} {voice}",
        IMPORTS_VARIABLE: " ".join(_imports),
    }


_imports: list[str] = []
"""The modules that children import after the app's own; in a child, those that its parent named."""


def hand_on_imports(modules: Iterable[str]) -> None:
    """Have each child that is started from here on import these modules after the app's own."""
    _imports[:] = dict.fromkeys([*_imports, *modules])


def parents_imports() -> Sequence[str]:
    """In a child, the modules that its parent named, for the processes that it imports the app in; else none."""
    return tuple(_imports) if is_child() else ()


def current_imports() -> tuple[str, ...]:
    """The modules that a child which is started now imports after the app's own."""
    return tuple(_imports)


def settings_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that are settings of this library."""
    ours = (PARENT_VARIABLE, PATH_VARIABLE, IMPORTS_VARIABLE)
    return {name: value for name, value in environ.items() if name.startswith("ZMQPIPELINE_") and name not in ours}


_adopted = threading.Event()
_voice: tuple[int, int, bytes] | None = None
"""In a child: its process id, the file number on which it tells its parent how far it is, and what each line there
begins with."""
_parents_host = ""
"""In a child that a launch command has started: the machine of its parent."""
_handed_keys: dict[str, str] = {}
"""In such a child: the keys that its parent has handed to it, until somebody takes them."""


class _Lines:
    """What the parent said: for who listens, or kept until somebody does."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._kept: deque[str] = deque(maxlen=KEPT_LINES)
        self._hear: Callable[[str], object] | None = None

    def listen(self, hear: Callable[[str], object] | None) -> None:
        with self._guard:
            self._hear = hear
            while hear is not None and self._kept:
                hear(self._kept.popleft())

    def say(self, line: str) -> None:
        with self._guard:
            if self._hear is None:
                self._kept.append(line)
            else:
                self._hear(line)


_lines = _Lines()


def listen(hear: Callable[[str], object] | None) -> None:
    """Have `hear` called with each line that the parent said or will say; None: they are kept for the next who asks.

    It is called on the lifeline's thread, where it must neither raise nor block, and before this returns for what was
    said already.
    """
    _lines.listen(hear)


def is_child() -> bool:
    """True in a process that a supervisor of this library started."""
    return _adopted.is_set()


def parents_host() -> str:
    """In a child that a launch command has started, the name of the machine of who did; else empty."""
    return _parents_host


def take_handed_keys() -> dict[str, str]:
    """In a child that a launch command has started, the keys that it is to connect with, once; else nothing."""
    keys = dict(_handed_keys)
    _handed_keys.clear()
    return keys


def adopt() -> None:
    """Called first thing in a child: ignore Ctrl-C, hold the lifeline, put the environment back. Elsewhere, nothing."""
    global _voice  # noqa: PLW0603 - one a process
    if sys.argv[1:2] == [LAUNCHED_FLAG]:
        sys.argv[1:] = unplain(sys.argv[2:])
        _adopt_launched()
        return
    parent, _, voice = os.environ.pop(PARENT_VARIABLE, "").partition(" ")
    if not (parent.isdecimal() and voice.isdecimal()):
        return
    _adopted.set()
    # what user code starts shall not hold it
    os.set_inheritable(int(voice), False)
    _voice = (os.getpid(), int(voice), b"")
    _restore_path(os.environ.pop(PATH_VARIABLE, ""))
    _imports[:] = os.environ.pop(IMPORTS_VARIABLE, "").split()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _mask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _hold_lifeline(b"")
    _die_with_parent(int(parent))


def _adopt_launched() -> None:
    """The same for a worker behind a launch command: what is between it and its parent passes on three files only."""
    global _voice, _parents_host  # noqa: PLW0603 - one a process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # user code may close, or send elsewhere, the one that it knows
    _voice = (os.getpid(), os.dup(2), MARK)
    host = socket.gethostname()
    tell_parent(f"{HERE} {os.getpid()} {host}")
    if os.isatty(0):
        # its key was shown there, and is withdrawn with its end
        _refuse("that is a terminal, which shows what is sent to it, the worker's key as well")
    line, rest = _first_line()
    greeting = Greeting.read(line)
    if greeting is None:
        _refuse(f"it began with {line[:40]!r}" if line else "it was empty")
    _adopted.set()
    _parents_host = greeting.host
    if PATH_VARIABLE in os.environ:
        _restore_path(os.environ.pop(PATH_VARIABLE))
    _imports[:] = greeting.imports
    _handed_keys.update(greeting.keys)
    for name, value in greeting.environ.items():
        os.environ.setdefault(name, value)
    _hold_lifeline(rest)
    if greeting.host == host and greeting.pid == os.getppid():
        # the command has become this process, as nice and taskset do
        _die_with_parent(greeting.pid)


def _refuse(seen: str) -> NoReturn:
    """End a worker whose standard input is no lifeline."""
    sys.stderr.write(
        f"Error: A worker that a launch command starts hears of its run on standard input, and {seen}. The command "
        "before it must pass standard input on: ssh without -n, -f and -t, docker run with -i and without -t.\n"
    )
    sys.stderr.flush()
    tell_parent(f"{EXIT} 2")
    os._exit(2)


def _first_line() -> tuple[bytes, bytes]:
    """The first line of standard input, and what else came with it; what there is of it, if that ends before."""
    read = b""
    with suppress(OSError):  # it is closed
        while b"\n" not in read and (more := os.read(0, 65536)):
            read += more
    line, _, rest = read.partition(b"\n")
    return line, rest


def tell_parent(word: str) -> bool:
    """Tell the parent how far this child is, in one of the words of `child_report`; False in any other process."""
    if _voice is None or _voice[0] != os.getpid():
        return False
    # a parent that is gone need not know: the lifeline ends this process
    with suppress(ConnectionError):
        os.write(_voice[1], _voice[2] + f"{word}\n".encode())
    return True


def _restore_path(before: str) -> None:
    if before:
        os.environ["PYTHONPATH"] = before
    else:
        os.environ.pop("PYTHONPATH", None)


def _hold_lifeline(heard: bytes) -> None:
    """Move the pipe away from standard input, which user code may read and must find empty."""
    line = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_leave_at_end, args=(line, heard), name="lifeline", daemon=True).start()


def _leave_at_end(line: int, heard: bytes) -> None:
    *whole, rest = heard.split(b"\n")
    while True:
        for one in whole:
            _obey_or_keep(one.decode(errors="replace"))
        read = b""
        with suppress(OSError):  # sshd has sockets in the place of pipes, and those may break
            read = os.read(line, 4096)
        if not read:
            os._exit(1)
        *whole, rest = (rest + read).split(b"\n")


def _obey_or_keep(line: str) -> None:
    if line == DRAIN and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        # it still starts; the first process of a container does not die of the signal
        os._exit(128 + signal.SIGTERM)
    elif line == DRAIN:
        os.kill(os.getpid(), signal.SIGTERM)
    elif line == ANSWER:
        tell_parent(ANSWERED)
    else:
        _lines.say(line)


def _die_with_parent(parent: int) -> None:
    """Second line on Linux: SIGKILL from the kernel when the parent's spawning thread is gone."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (OSError, AttributeError):
        return  # no prctl in this C library: the lifeline alone has to do
    if os.getppid() != parent:
        os._exit(1)


def death_notice(pid: int, how: str) -> str:
    """The line that tells a child how another one died: ``died 4711 killed by SIGKILL``; `how` is `describe_death`."""
    return f"died {pid} {how}"


def read_death_notice(line: str) -> tuple[int, str] | None:
    """What such a line says: the process id, and how it died; None if it is another one."""
    word, pid, how = (*line.split(" ", 2), "", "")[:3]
    return (int(pid), how) if word == "died" and pid.isdecimal() and how else None


def desired_notice(task: str, number: int) -> str:
    """The line that tells a distributor how many workers a task is given: ``desired 8 "C"``."""
    return f"desired {number} {json.dumps(task)}"


def read_desired_notice(line: str) -> tuple[str, int] | None:
    """What such a line says; None if it is another one."""
    word, number, task = (*line.split(" ", 2), "", "")[:3]
    if word != "desired" or not number.isdecimal():
        return None
    with suppress(ValueError):
        return str(json.loads(task)), int(number)
    return None


def describe_death(status: int) -> str:
    """How a process died, as the end of a sentence: ``killed by SIGKILL`` or ``exit status 70``."""
    return f"killed by {describe_status(status)}" if status < 0 else f"exit {describe_status(status)}"


def describe_status(status: int) -> str:
    """How a process ended, in words: ``SIGKILL`` or ``status 1``."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"
