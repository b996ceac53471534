"""Who is let in: a list a folder, read again when the folder changes, and the socket that libzmq asks (ZAP, RFC 27).

libzmq asks at each handshake, by a message to ``inproc://zeromq.zap.01`` of the context; each bound socket asks in a
domain of its own, the name of its hop. The gate is one more socket of the role's poll loop: there is no thread for it.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from pathlib import Path

import zmq
from zmq.utils import z85

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import KeysError
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.runtime.bind import Socket
from zmqpipeline.runtime.security.issued import issued_to, withdrawn_from
from zmqpipeline.runtime.security.keyfiles import ROLES, authorized, check_private, read_public
from zmqpipeline.runtime.security.warnings import RateLimitedWarnings

ADDRESS = "inproc://zeromq.zap.01"
"""Where libzmq asks."""

REMEMBERED = 1000
"""So many refused keys are told apart in the log; beyond that they share a line."""

_Sign = tuple[tuple[str, int, int, int, int], ...]


class AllowList:
    """The public halves in one folder, by their file's name. What cannot be read lets nobody in, and is told once."""

    def __init__(self, folder: Path) -> None:
        """Read nothing yet."""
        self._folder = folder
        self._sign: _Sign | None = None
        self._names: dict[bytes, str] = {}
        self._limited = RateLimitedWarnings()

    def name_of(self, public: bytes) -> str | None:
        """The name of this public half (40 characters of Z85), or None if it is not in the folder now."""
        try:
            check_private(self._folder.parent, folder=True)
            check_private(self._folder, folder=True)
            sign = self._look()
        except FileNotFoundError:
            return None
        except (OSError, KeysError) as error:
            self._limited.tell(("folder",), f"Nobody is let in by {str(self._folder)!r}: {error}")
            return None
        if sign != self._sign:
            self._names = dict(self._read(sign))
            self._sign = sign
        return self._names.get(public)

    def _look(self) -> _Sign:
        files = [one for one in self._folder.iterdir() if one.suffix == ".pub"]
        return tuple(sorted((one.name, *_sign(one)) for one in files))

    def _read(self, sign: _Sign) -> list[tuple[bytes, str]]:
        found = []
        for name, *_ in sign:
            path = self._folder / name
            try:
                check_private(path, public=True)
                found.append((read_public(path), name.removesuffix(".pub")))
            except (OSError, KeysError) as error:
                self._limited.tell((name,), f"A file lets nobody in: {error}")
        return found


def _sign(path: Path) -> tuple[int, int, int, int]:
    """What changes when a file is written anew."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        # removed a moment ago
        return 0, 0, 0, 0
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


@dataclass(frozen=True)
class Domain:
    """One bound socket: where it is, and as which role it lets keys in."""

    address: EndpointAddress
    folder: Path
    role: str
    issued: Path | None = None
    """Where the keys are that the run has issued, which are let in, too."""


class ZapHandler:
    """Answers libzmq's questions for the sockets of one context. `file` tells when there is one, as a hop's does."""

    def __init__(self, context: zmq.Context[Socket], poller: select.poll) -> None:
        """Listen from now on; `close` before the context is terminated."""
        self._socket: Socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(ADDRESS)
        self._poller = poller
        self._domains: dict[bytes, Domain] = {}
        self._lists: dict[Path, AllowList] = {}
        self._limited = RateLimitedWarnings(REMEMBERED)
        self.file = int(self._socket.getsockopt(zmq.FD))
        self._poller.register(self.file, select.POLLIN)

    def admit(self, domain: str, where: Domain) -> None:
        """Answer for this domain, too."""
        self._domains[domain.encode()] = where

    def answer(self) -> None:
        """Answer what was asked. The descriptor is true again afterwards: the last thing is a look that finds none."""
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            connection, _, version, request, domain, peer, _, mechanism, *credentials = frames
            user = None
            if version == b"1.0" and mechanism == b"CURVE" and len(credentials) == 1:
                user = self._name_of(domain, credentials[0], peer.decode("ascii", "replace"))
            verdict = [b"400", b"not authorized", b""] if user is None else [b"200", b"", user.encode()]
            self._socket.send_multipart([connection, b"", b"1.0", request, *verdict, b""])

    def _name_of(self, domain: bytes, key: bytes, peer: str) -> str | None:
        where = self._domains.get(domain)
        if where is None or len(key) != 32:
            return None
        public = z85.encode(key)
        name = self._list(where.folder, where.role).name_of(public) or self._issued(where, public, issued_to)
        if name is None:
            self._tell(where, public, peer)
        return name

    def _issued(self, where: Domain, public: bytes, look: Callable[[Path, bytes], str | None]) -> str | None:
        try:
            return None if where.issued is None else look(where.issued, public)
        except (OSError, KeysError) as error:
            self._limited.tell(("issued",), f"No key that this run has issued is let in: {error}")
            return None

    def _list(self, folder: Path, role: str) -> AllowList:
        path = authorized(folder, role)
        return self._lists.setdefault(path, AllowList(path))

    def _tell(self, where: Domain, public: bytes, peer: str) -> None:
        if name := self._issued(where, public, withdrawn_from):
            self._limited.tell(
                (where.address, public),
                f"{where.address} refused the key of the {name}{f' at {peer}' if peer else ''}: `run` has seen the "
                "end of that worker, and issued another key to the one in its place.",
            )
            return
        path = authorized(where.folder, where.role)
        others = (f"{role} {name}" for role in ROLES if (name := self._list(where.folder, role).name_of(public)))
        other = next(others, "")
        whose = (
            f"it is that of the {other}, and only a {where.role} is let in here" if other else f"it is not in {path}"
        )
        key = public.decode()
        self._limited.tell(
            (where.address, public),
            f"{where.address} refused the key {key}{f' of {peer}' if peer else ''}: {whose}. "
            f"To let it in, put its .pub file into {path}; that is read at the next attempt.",
        )

    def close(self) -> None:
        """Answer no more."""
        self._poller.unregister(self.file)
        self._socket.close(linger=0)
