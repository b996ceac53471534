"""What a forked child does not keep: the locks of its parent, and the sockets that are bound; and where it ends.

User code may fork: a ProcessPoolExecutor in a source or in a collector's function does, on Linux. The child has a copy
of every descriptor, and may outlive its parent. A lock on an open file and a bound address are let go of when the last
copy is closed: so a role that was killed would keep its address and its journal in use, by a process that knows nothing
of them. Record locks (`fcntl.lockf`) belong to one process, but they do not keep two threads of it apart, and vanish
when any descriptor of the file is closed; and there is no such thing for sockets. So the child closes both, first of
all.

libzmq tells no descriptors: its sockets are known by the address that they are bound to, or were accepted at.

A child that comes back from the function that has forked would go on as a second one of its parent, without any other
thread, and with the parent's sockets and journal. So whoever calls a function of the user asks afterwards, before
anything else: ``forks.end_child()``, and for each item ``if forks.in_child: forks.end_child()``, since a call costs as
much as a trivial function does. What was raised need not be asked about where `trouble_of` is called first: that asks.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from zmqpipeline.addresses import EndpointAddress

guard = threading.RLock()
"""Held by whoever opens what is registered here, until it is, and while it is closed; nobody forks meanwhile."""

_files: set[OwnFile] = set()
_addresses: Counter[EndpointAddress] = Counter()


class OwnFile:
    """A descriptor that a forked child does not keep; made under `guard`."""

    def __init__(self, number: int) -> None:
        """Take over an open descriptor."""
        self.number = number
        """The descriptor; -1 once it is closed, as it is in a child from the beginning."""
        _files.add(self)

    def close(self) -> None:
        """Close it; closing again does nothing."""
        with guard:
            _files.discard(self)
            number, self.number = self.number, -1
            if number >= 0:
                os.close(number)


def bound(address: EndpointAddress) -> None:
    """A socket is bound to this address, with its real port: a child closes it, and what is accepted there."""
    _addresses[address] += 1


def unbound(address: EndpointAddress) -> None:
    """That one is closed."""
    _addresses[address] -= 1
    if _addresses[address] <= 0:
        del _addresses[address]


def _close_in_child() -> None:
    guard.release()
    for file in list(_files):
        file.close()
    if _addresses:
        for number in _descriptors():
            if _is_bound(number):
                os.close(number)
    _addresses.clear()


def _descriptors() -> list[int]:
    folder = Path("/proc/self/fd")
    with suppress(OSError):
        return [int(entry.name) for entry in (folder if folder.is_dir() else Path("/dev/fd")).iterdir()]
    return []


def _is_bound(number: int) -> bool:
    """Whether this descriptor is a socket at one of our addresses."""
    try:
        found = socket.socket(fileno=number)
    except OSError:
        return False
    try:
        place = found.getsockname()
    except OSError:
        return False
    finally:
        found.detach()
    return any(_is_at(found.family, place, address) for address in _addresses)


def _is_at(family: int, place: object, address: EndpointAddress) -> bool:
    if address.protocol == "ipc" and family == socket.AF_UNIX:
        wanted = address.path
        return place == (b"\0" + os.fsencode(wanted[1:]) if wanted.startswith("@") else wanted)
    if address.protocol == "tcp" and isinstance(place, tuple):
        return place[1] == address.port and (
            address.host in ("0.0.0.0", "::", "*") or str(place[0]).removeprefix("::ffff:") == address.host
        )
    return False


os.register_at_fork(before=guard.acquire, after_in_parent=guard.release, after_in_child=_close_in_child)


# where it ends --------------------------------------------------------------------------------------------------------

in_child = False
"""Whether this process was forked by a function of the user that is called here. Then ask `end_child`."""

_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep


class _Caller(threading.local):
    """What is known of this thread."""

    is_one = False
    """It calls functions of the user."""
    later: Callable[[Callable[[], object]], object] | None = None
    """Has something called in the next turn of its event loop."""


class _Fork:
    """The one that this process came from."""

    thread = 0
    """The only one that is left."""
    function: FrameType | None = None
    """The call of the user's function, which is over once this is no longer on the stack."""
    place = ""
    """The line that has forked."""


_caller, _fork = _Caller(), _Fork()


def calls_user_code(later: Callable[[Callable[[], object]], object] | None = None) -> None:
    """This thread calls functions of the user from here on, on an event loop if there is `later`, its `call_soon`."""
    _caller.is_one, _caller.later = True, later


def end_child(error: BaseException | None = None) -> None:
    """End this process, if it is the child of a fork that has come back from the function that had forked.

    It ends as a child of a plain program would that comes to its end or raises `error`, but leaves alone what is the
    parent's: exit handlers, threads, sockets. A function that is still at work, which has called us, goes on.
    """
    if not in_child or not _has_come_back(sys._getframe(1)):
        return
    status = 1
    try:
        if error is None:
            _say("returned from the function that had forked; it ends here, with status 0")
        status = 0 if error is None else _status_of(error)
        for stream in (sys.stdout, sys.stderr):
            # there may be none
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.flush()
    finally:
        os._exit(status)


def _end_at_loop() -> None:
    """In the next turn of the event loop, which is the parent's, as is all that would be called in it."""
    try:
        _say("came back to the event loop of its parent, to wait there perhaps; it ends here, with status 1")
    finally:
        os._exit(1)


def _has_come_back(frame: FrameType | None) -> bool:
    if threading.get_ident() != _fork.thread:
        return False
    while frame is not None and frame is not _fork.function:
        frame = frame.f_back
    return frame is None


def _say(what: str) -> None:
    _write(f"A forked child (process {os.getpid()}, forked at {_fork.place}) {what}. End it with os._exit() there.\n")


def _write(text: str) -> None:
    # at once, since others write to the same file; it may be closed, or none
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()


def _status_of(error: BaseException) -> int:
    """What the interpreter would end with, after it has said why."""
    if not isinstance(error, SystemExit):
        first = error.__traceback__
        while first is not None and first.tb_frame is not _fork.function:
            first = first.tb_next
        _write("".join(traceback.format_exception(type(error), error, first or error.__traceback__)))
        return 1
    if error.code is None or isinstance(error.code, int):
        return int(error.code or 0) & 0xFF
    _write(f"{error.code}\n")
    return 1


def _look_in_child() -> None:
    """Which call of a user's function has forked, if one has: the first that is not ours above the newest of ours."""
    global in_child  # noqa: PLW0603 - what is asked for after each call is to cost as little as can be
    frame: FrameType | None = sys._getframe(1)
    forker, function = frame, None
    while frame is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
        function, frame = frame, frame.f_back
    in_child = _caller.is_one and frame is not None
    if in_child and forker is not None:
        _fork.thread, _fork.function = threading.get_ident(), function
        _fork.place = f"{forker.f_code.co_filename}:{forker.f_lineno}"
        if _caller.later is not None:
            _caller.later(_end_at_loop)


os.register_at_fork(after_in_child=_look_in_child)
