"""The handlers of SIGTERM and SIGINT that drain, while they are installed, and what a forked child has instead.

A child that user code forks is none of the pipeline: it has the handler of SIGTERM that was there before, so that
`terminate()` of `multiprocessing` ends it. SIGINT comes from a terminal to all of its processes, and the first one says
that what is begun is finished: so a child, which may be at work for an item, takes no notice of it; the next one has
its effect from before, and so has the first one where the role has had its signal already. Nor does a signal of the
child wake the loop of its parent.

Both signals are blocked while a thread forks: one that came to the child before it has its handlers would be lost.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], Any] | signal.Handlers

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Ours:
    """A handler that was installed here; it notes that its signal has come."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self._handler = handler
        self.has_come = False

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.has_come = True
        self._handler(signum, frame)


@dataclass(eq=False)
class _Entry:
    """One `install`."""

    number: int
    ours: Any
    before: Any
    is_over: bool = False
    """True after `restore`, if the signal is ignored since."""


class _Installed:
    """What is installed in this process, newest last."""

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self.wakers: list[tuple[int, int]] = []
        """Our file that is written to, and the one before."""

    def newest(self, number: int) -> _Entry:
        """What is to be restored next."""
        return next(one for one in reversed(self.entries) if one.number == number and not one.is_over)

    def before(self, number: int) -> Any:
        """The handler that was there before ours; that of the user, if it is not ours now."""
        found = signal.getsignal(number)
        for one in reversed(self.entries):
            if one.number == number and found == one.ours:
                found = one.before
        return found


class _Mask(threading.local):
    """What this thread had blocked before it forked; None: it is not known, and not changed."""

    before: set[int] | None = None


_installed, _mask = _Installed(), _Mask()


def install(number: int, handler: Handler) -> None:
    """Take this signal; on the main thread. `restore` ends it."""
    ours = handler if isinstance(handler, signal.Handlers) else _Ours(handler)
    _installed.entries.append(_Entry(number, ours, signal.getsignal(number)))
    signal.signal(number, ours)


def restore(number: int, ignore: bool = False) -> None:
    """Put back the handler that was there before the newest `install` for this signal, or ignore the signal."""
    entry = _installed.newest(number)
    if ignore:
        # not forgotten: what is forked from now on shall not take that for the user's
        entry.ours, entry.is_over = signal.SIG_IGN, True
        signal.signal(number, signal.SIG_IGN)
        return
    signal.signal(number, _settable(entry.before))
    _installed.entries.remove(entry)


def before(number: int) -> Any:
    """The handler that `restore` would put back."""
    return _installed.newest(number).before


def wake(file: int) -> None:
    """Have a byte written to this file at each signal; on the main thread. `wake_no_more` ends it."""
    _installed.wakers.append((file, signal.set_wakeup_fd(file, warn_on_full_buffer=False)))


def wake_no_more() -> None:
    """Write to the file from before again."""
    signal.set_wakeup_fd(_installed.wakers.pop()[1])


def _settable(handler: Any) -> Any:
    """The same for `signal.signal`, which does not take a handler that no Python code has installed."""
    return signal.SIG_DFL if handler is None else handler


def _before_fork() -> None:
    if _installed.entries:
        _mask.before = {int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)}


def _unmask() -> None:
    mask, _mask.before = _mask.before, None
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    if _installed.wakers and (file := signal.set_wakeup_fd(-1)) not in (ours for ours, _ in _installed.wakers):
        signal.set_wakeup_fd(file)
    now = {number: signal.getsignal(number) for number in _SIGNALS}
    _sigint_in_child(now[signal.SIGINT], any(isinstance(one, _Ours) and one.has_come for one in now.values()))
    former = _installed.before(signal.SIGTERM)
    if former != now[signal.SIGTERM]:
        signal.signal(signal.SIGTERM, _settable(former))
    _unmask()


def _sigint_in_child(now: Any, is_draining: bool) -> None:
    former = _settable(_installed.before(signal.SIGINT))
    if former == _settable(now):
        return
    if is_draining:
        # the next one ends the role, too
        signal.signal(signal.SIGINT, former)
    else:
        # not ignored: what the child may become by `exec` would ignore it for ever
        signal.signal(signal.SIGINT, lambda *_: signal.signal(signal.SIGINT, former))


os.register_at_fork(before=_before_fork, after_in_parent=_unmask, after_in_child=_in_child)
