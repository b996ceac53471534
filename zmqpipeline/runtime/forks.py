"""What a forked child does not keep: the locks of its parent, and the sockets that are bound.

User code may fork: a ProcessPoolExecutor in a source or in a collector's function does, on Linux. The child has a copy
of every descriptor, and may outlive its parent. A lock on an open file and a bound address are let go of when the last
copy is closed: so a role that was killed would keep its address and its journal in use, by a process that knows nothing
of them. Record locks (`fcntl.lockf`) belong to one process, but they do not keep two threads of it apart, and vanish
when any descriptor of the file is closed; and there is no such thing for sockets. So the child closes both, first of
all.

libzmq tells no descriptors: its sockets are known by the address that they are bound to, or were accepted at.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

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
