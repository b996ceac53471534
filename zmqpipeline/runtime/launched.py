"""A worker that a launch command starts (ssh, srun, docker, nice, ...), as `run` sees it: a child like any other.

The child of `run` is the command; the worker may be a process of another machine behind it. Standard input and
standard error are all that is between them:

- the lifeline is standard input: whoever of the two, and of what is between them, is gone, the worker leaves;
- a drain is asked for by a line down that pipe: a signal would end ssh, and the worker with it;
- what the worker tells comes on its standard error (`launch_words`); the rest of it goes on to ours.

The command has a session of its own, so that a Ctrl-C in the terminal does not end it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

from zmqpipeline.runtime.child import DRAIN, MAX_TOLD, Child, current_imports, settings_of
from zmqpipeline.runtime.child_report import Told
from zmqpipeline.runtime.launch_words import MAX_GREETING, NO_KEYS, Greeting, Words


class LaunchedChild(Child):
    """One worker behind a launch command; `pid` is that of the command, `told.pid` and `told.host` are the worker's."""

    def __init__(
        self,
        label: str,
        command: Sequence[str],
        exited: Callable[[Child], None],
        *,
        environ: Mapping[str, str],
        stdout: int | None = None,
        keys: Mapping[str, str] = NO_KEYS,
    ) -> None:
        """Start `command`, the launch command and the worker's own behind it, with this environment.

        `keys` are handed to the worker by its standard input.
        """
        self._environ, self._keys = environ, keys
        super().__init__(label, command, exited, stdout=stdout)
        self._keys = NO_KEYS  # they are the worker's now

    def _start(self, arguments: Sequence[str], stdout: int | None) -> subprocess.Popen[bytes]:
        greeting = greeting_line(self._keys)
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=self._environ,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stderr is not None
        os.set_blocking(process.stdin.fileno(), False)
        if not _greet(process.stdin.fileno(), greeting):
            process.kill()
            process.communicate()
            raise OSError("The system gives pipes of too few bytes to this user. Start fewer workers.")
        # the file number is the relay's, for longer than the process is there
        self._relay = _Relay(os.dup(process.stderr.fileno()))
        process.stderr.close()
        threading.Thread(target=self._relay.run, name=f"stderr of {self.label}", daemon=True).start()
        return process

    def terminate(self) -> None:
        """Ask it to drain. A command that is still on its way to the worker is ended instead: nothing is lost by it."""
        if not self._relay.told:
            self.cut()
            self._signal(signal.SIGTERM)
        elif not self.tell(DRAIN):
            self.cut()

    def kill(self) -> None:
        """End at once the command, what it has started on this machine, and, by the lifeline, the worker."""
        self.cut()
        self._signal(signal.SIGKILL)

    def has_told(self) -> Told:
        """As `Child.has_told`."""
        return Told.read(self._relay.told)

    def _last_words(self) -> bytes:
        self._relay.take()
        return self._relay.told

    def _signal(self, signum: int) -> None:
        """To all of its session; to none that is another user's, as sudo's is: that one leaves by the lifeline."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signum)


def greeting_line(keys: Mapping[str, str] = NO_KEYS) -> bytes:
    """What a worker is sent first; `keys` are its own. Raises OSError if it is longer than one takes."""
    greeting = Greeting(socket.gethostname(), os.getpid(), current_imports(), settings_of(os.environ), keys).line()
    if len(greeting) > MAX_GREETING:
        raise OSError(f"The ZMQPIPELINE_ variables are {len(greeting)} bytes; a launched worker takes fewer.")
    return greeting


def _greet(file: int, greeting: bytes) -> bool:
    """Send it; False if the pipe does not take all of it."""
    try:
        return os.write(file, greeting) == len(greeting)
    except BrokenPipeError:
        return True  # it has ended already: so it will be seen


class _Relay:
    """Passes on to our standard error what comes on that of a child, and keeps what is for us."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._is_over = False
        self._guard = threading.Lock()
        self._words = Words()
        os.set_blocking(file, False)

    @property
    def told(self) -> bytes:
        """The words so far."""
        return self._words.told

    def run(self) -> None:
        """In a thread, to the end of the pipe: what user code started may have it for longer than the child."""
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        while self.take():
            poll.poll()
        os.close(self._file)

    def take(self) -> bool:
        """Take what is there, without waiting for more; False if there will not be more."""
        with self._guard:
            while not self._is_over:
                try:
                    data = os.read(self._file, MAX_TOLD)
                except BlockingIOError:
                    return True
                write_all(2, self._words.take(data) if data else self._words.last())
                self._is_over = not data
            return False


def write_all(number: int, data: bytes) -> None:
    """Write it all to a file; if that is closed, nobody is there to read it."""
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(number, data) :]
