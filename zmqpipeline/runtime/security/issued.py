"""Keys that a run issues: each worker that it places elsewhere gets a pair of its own, let in while it is placed.

The public halves are files in a folder of the run, by the name of which anybody of the run can tell in one look whether
a key is let in: distributor and collector look there at each handshake. So one that was started again knows the same,
and when the folder of the run is gone, so are all its keys. The secret half is nowhere but on its way to the worker and
in the worker's memory: on no disk, on no command line, in no environment.

A worker that ends takes its key along: `KeyIssuer.withdraw`. The one that takes its place gets another.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import TypeVar

import zmq

from zmqpipeline.errors import KeysUnavailable
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.runtime.launch_words import NO_KEYS
from zmqpipeline.runtime.security.keyfiles import check_private, require_curve

log = logging.getLogger("zmqpipeline.security")

_WITHDRAWN = "withdrawn"

ChildT = TypeVar("ChildT")


@dataclass(frozen=True)
class HandedKeys:
    """What a placed worker is handed: its pair, and the server's public half, as 40 characters of Z85."""

    public: str
    secret: str = field(repr=False)
    server: str

    @classmethod
    def read(cls, said: Mapping[str, str]) -> HandedKeys | None:
        """What the greeting of a worker says of them; None if nothing."""
        return cls(said["public"], said["secret"], said["server"]) if said else None


@dataclass(frozen=True)
class RunKeys:
    """The keys of one run that a role has, beside those of its options."""

    handed: HandedKeys | None = None
    """Of a worker: what it connects with, whatever folder of keys its options name."""

    admitted: Path | None = None
    """Of a distributor and a collector: the folder of the keys that are let in as workers, too."""


NO_RUN_KEYS = RunKeys()
"""Of all roles but those of a run that places workers elsewhere."""


class KeyIssuer:
    """Makes and withdraws the keys of one run; from any thread."""

    def __init__(self, folder: Path, server: bytes) -> None:
        """Make the folder; `server` is the public half of the server's pair. Raises KeysUnavailable if that fails."""
        self.folder = folder
        self._server = server.decode()
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise _unavailable("The keys of this run", folder, error) from error

    def issue(self, name: str) -> HandedKeys:
        """A new pair, let in from now on; `name` is what the log calls it. Raises KeysUnavailable."""
        require_curve()
        public, secret = (half.decode() for half in zmq.curve_keypair())
        new = self.folder / f"new-{os.urandom(8).hex()}"
        try:
            new.touch(mode=0o600)
            new.write_text(name, encoding="utf-8", errors="backslashreplace")
            new.replace(_file(self.folder, public))
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            raise _unavailable(f"The key of the {name}", self.folder, error) from error
        return HandedKeys(public, secret, self._server)

    def withdraw(self, public: str) -> None:
        """Let this key in no more; nothing happens if it is not let in."""
        file = _file(self.folder, public)
        try:
            # the run may be over, and its folder gone
            with suppress(FileNotFoundError):
                file.replace(file.with_name(f"{file.name}-{_WITHDRAWN}"))
        except OSError as error:
            log.warning("The key of a worker that has ended is let in until the run is over: %s", error)


@contextmanager
def keys_for_worker(
    issuer: KeyIssuer | None, name: str, exited: Callable[[ChildT], None]
) -> Iterator[tuple[Mapping[str, str], Callable[[ChildT], None]]]:
    """What a worker that is started in the block is handed, and what is called in the place of `exited` at its end.

    That withdraws its key before it calls `exited`. The key is withdrawn, too, if the block raises. Without an issuer
    the run has no keys, and nothing is handed.

    Raises:
        KeysUnavailable: the key cannot be noted.
    """
    if issuer is None:
        yield NO_KEYS, exited
        return
    keys = issuer.issue(name)

    def ended(child: ChildT) -> None:
        issuer.withdraw(keys.public)
        exited(child)

    try:
        yield vars(keys), ended
    except BaseException:
        issuer.withdraw(keys.public)
        raise


def _unavailable(what: str, folder: Path, error: OSError) -> KeysUnavailable:
    return KeysUnavailable(
        f"{what} cannot be noted in {str(folder)!r}: {error.strerror}. Make room there, or name another folder by "
        "TMPDIR."
    )


def issued_to(folder: Path, public: bytes) -> str | None:
    """The name of the worker that this public half was issued to, or None if it is not let in.

    Raises:
        KeysError, OSError: the folder is open to others, or cannot be read.
    """
    return _name_in(folder, _file(folder, public.decode("ascii")))


def withdrawn_from(folder: Path, public: bytes) -> str | None:
    """The name of the worker whose key this was before it left, or None. Raises as `issued_to`."""
    file = _file(folder, public.decode("ascii"))
    return _name_in(folder, file.with_name(f"{file.name}-{_WITHDRAWN}"))


def _name_in(folder: Path, file: Path) -> str | None:
    try:
        check_private(folder, folder=True)
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _file(folder: Path, public: str) -> Path:
    return folder / public.encode("ascii").hex()
