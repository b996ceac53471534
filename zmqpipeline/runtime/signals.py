"""SIGTERM and SIGINT: the first drains, the second waits for nothing any more."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from zmqpipeline.protocol.events import Drain
from zmqpipeline.runtime.loop import Loop


class draining:  # noqa: N801 - a context manager, used as a verb
    """While this context is entered, a signal drains the loop's role; `signum` is the one that came, or None.

    A second SIGINT ends the drain: the role waits for nothing that runs, but still tells the others. A second SIGTERM
    raises SystemExit(143), one more SIGINT, or one after the loop, KeyboardInterrupt; and from then on a signal has its
    default effect: the process dies of it. In any thread but the main one, where Python takes no signals, this does
    nothing.
    """

    def __init__(self, loop: Loop, drain_seconds: float, ignore_sigint: bool = False) -> None:
        """`drain_seconds` is how long the role may take. `ignore_sigint` is for children that a supervisor tells."""
        self.signum: int | None = None
        self._loop = loop
        self._seconds = drain_seconds
        self._ignore_sigint = ignore_sigint
        self._before: dict[int, Any] = {}
        self._file_before = -1
        self._is_looping = True
        self._is_hurried = False

    def __enter__(self) -> draining:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            # So that the poll ends although the system may give the signal to another thread.
            self._file_before = signal.set_wakeup_fd(self._loop.wake_file(), warn_on_full_buffer=False)
            self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._drain)
            on_interrupt = signal.SIG_IGN if self._ignore_sigint else self._drain
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, on_interrupt)
        return self

    def stop_waking(self) -> None:
        """Write no more to the loop's file, which is about to be closed; the handlers stay."""
        self._is_looping = False
        if self._before:
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
            # Ctrl-C is a person's, who ends the run; SIGTERM is a machine's, which may start this role again
            self._loop.post(Drain(self._seconds, final=signum == signal.SIGINT))
            return
        if signum == signal.SIGINT and self._is_looping and not self._is_hurried:
            self._is_hurried = True
            self.signum = signum
            self._loop.post(Drain(0.0, final=True))
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signum)
