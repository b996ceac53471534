"""SIGTERM and SIGINT: the first drains, the second waits for nothing any more."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from zmqpipeline.protocol.events import Drain
from zmqpipeline.runtime import handlers
from zmqpipeline.runtime.loop import Loop


class draining:  # noqa: N801 - a context manager, used as a verb
    """While this context is entered, a signal drains the role; `signum` is the one that came, or None.

    It is entered before the role opens anything: a KeyboardInterrupt that comes between a socket that is made and
    the one who shall close it would leave it open, and its context waits for that for ever. What came before the loop
    is there drains it as soon as it is.

    A second SIGINT ends the drain: the role waits for nothing that runs, but still tells the others. A second SIGTERM
    raises SystemExit(143), one more SIGINT, or one after the loop, KeyboardInterrupt; and from then on a signal has its
    default effect: the process dies of it. In any thread but the main one, where Python takes no signals, this does
    nothing.
    """

    def __init__(self, drain_seconds: float, ignore_sigint: bool = False) -> None:
        """`drain_seconds` is how long the role may take. `ignore_sigint` is for children that a supervisor tells."""
        self.signum: int | None = None
        self._loop: Loop | None = None
        self._early: list[Drain] = []
        self._seconds = drain_seconds
        self._ignore_sigint = ignore_sigint
        self._takes_signals = self._is_waking = False
        self._is_ending = False
        self._is_hurried = False

    def __enter__(self) -> draining:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            self._takes_signals = True
            handlers.install(signal.SIGTERM, self._drain)
            handlers.install(signal.SIGINT, signal.SIG_IGN if self._ignore_sigint else self._drain)
        return self

    def attach(self, loop: Loop) -> None:
        """Drain this loop from here on, and now if a signal came before."""
        if self._takes_signals:
            # So that the poll ends although the system may give the signal to another thread.
            self._is_waking = True
            handlers.wake(loop.wake_file())
        self._loop = loop
        for drain in self._early:
            loop.post(drain)

    def _post(self, drain: Drain) -> None:
        if self._loop is None:
            self._early.append(drain)
        else:
            self._loop.post(drain)

    def stop_waking(self) -> None:
        """Write no more to the loop's file, which is about to be closed; the handlers stay."""
        self._is_ending = True
        if self._is_waking:
            self._is_waking = False
            handlers.wake_no_more()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Put the handlers back that were there before."""
        self.stop_waking()
        if self._takes_signals:
            # its supervisor may ask it to end while it does already: that shall not cut its last steps short
            handlers.restore(signal.SIGTERM, ignore=self._ignore_sigint)
            handlers.restore(signal.SIGINT)

    def _drain(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is None:
            self.signum = signum
            # Ctrl-C is a person's, who ends the run; SIGTERM is a machine's, which may start this role again
            self._post(Drain(self._seconds, final=signum == signal.SIGINT))
            return
        if signum == signal.SIGINT and not self._is_ending and not self._is_hurried:
            self._is_hurried = True
            self.signum = signum
            self._post(Drain(0.0, final=True))
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signum)
