"""SIGTERM and SIGINT: the first drains, the second waits for nothing any more."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from zmqpipeline.protocol.events import Drain
from zmqpipeline.runtime.loop import Loop


class draining:
    """While this context is entered, a signal drains the loop's role; `signum` is the one that came, or None.

    A second SIGINT ends the drain: the role waits for nothing that runs, but still tells the others. A second SIGTERM
    raises SystemExit(143), one more SIGINT, or one after the loop, KeyboardInterrupt; and from then on a signal has its
    default effect: the process dies of it. In any thread but the main one, where Python takes no signals, this does
    nothing.

    A signal may come before there is a loop: while addresses are bound, which must not be cut short, since a context
    waits for ever for a socket that nobody knows. It is kept until `attach`; a second one is not.
    """

    def __init__(self, loop: Loop | None, drain_seconds: float, ignore_sigint: bool = False) -> None:
        """`drain_seconds` is how long the role may take. `ignore_sigint` is for children that a supervisor tells.

        Without a loop, `attach` gives it one.
        """
        self.signum: int | None = None
        self._loop = loop
        self._seconds = drain_seconds
        self._ignore_sigint = ignore_sigint
        self._before: dict[int, Any] = {}
        self._file_before = -1
        self._is_looping = False
        self._is_hurried = self._is_posted = False

    def __enter__(self) -> draining:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._drain)
            on_interrupt = signal.SIG_IGN if self._ignore_sigint else self._drain
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, on_interrupt)
        if self._loop is not None:
            self.attach(self._loop)
        return self

    def attach(self, loop: Loop) -> None:
        """The loop is there; a signal that came before it drains it now."""
        if self._before:
            # So that the poll ends although the system may give the signal to another thread.
            self._file_before = signal.set_wakeup_fd(loop.wake_file(), warn_on_full_buffer=False)
        self._loop, self._is_looping = loop, True
        if self.signum is not None and not self._is_posted:
            self._post(self._seconds, self.signum)

    def _post(self, seconds: float, signum: int) -> None:
        """Ctrl-C is a person's, who ends the run; SIGTERM is a machine's, which may start this role again."""
        if self._loop is not None:
            self._is_posted = True
            self._loop.post(Drain(seconds, final=signum == signal.SIGINT))

    def stop_waking(self) -> None:
        """Write no more to the loop's file, which is about to be closed; the handlers stay."""
        was_looping, self._is_looping = self._is_looping, False
        if self._before and was_looping:
            signal.set_wakeup_fd(self._file_before)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Put the handlers back that were there before."""
        self.stop_waking()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._ignore_sigint and self._before:
            # its supervisor may ask it to end while it does already: that shall not cut its last steps short
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _drain(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum
            self._post(self._seconds, signum)
            return
        if signum == signal.SIGINT and self._is_looping and not self._is_hurried:
            self._is_hurried = True
            self.signum = signum
            self._post(0.0, signum)
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signum)
