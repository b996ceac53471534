"""Key files: who has which, how they are made, and that nobody else can read them.

A folder of keys, of mode 0700, its files of mode 0600::

    server.pub   server.secret      the pair of every bound socket: distributor, collector, broker
    worker.pub   worker.secret      one pair for each role that connects; NAME.pub and NAME.secret for those handed out
    authorized/workers/NAME.pub     who is let in as a worker; likewise distributors, clients, metadata

A file has lines ``name = value``, and comments that begin with ``#``. A machine needs its own pair and ``server.pub``.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

import zmq

from zmqpipeline.errors import KeysError
from zmqpipeline.protocol.dataclass import dataclass

SERVER = "server"
"""The name of the pair of every bound socket."""

ROLES = {"distributor": "distributors", "worker": "workers", "client": "clients", "metadata": "metadata"}
"""The roles that connect, each with the folder below ``authorized`` that lets its keys in."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_MAX_FILE_LENGTH = 4096
_WRITABLE = 0o022


@dataclass(frozen=True)
class Pair:
    """A key: its name, and its two halves as 40 characters of Z85."""

    name: str
    public: bytes
    secret: bytes


def require_curve(has_curve: bool | None = None) -> None:
    """Raise KeysError if the installed libzmq was built without CURVE; `has_curve` is what it says of itself."""
    if not (zmq.has("curve") if has_curve is None else has_curve):
        raise KeysError(
            f"The libzmq of this pyzmq ({zmq.zmq_version()}) was built without CURVE, so it can use no keys. "
            "Install the wheel of pyzmq (`pip install --only-binary pyzmq pyzmq`), or libzmq with libsodium."
        )


# making ---------------------------------------------------------------------------------------------------------------


def make_all(folder: Path) -> list[Path]:
    """Make the server's pair and one pair for each role, all authorized; the files that were made.

    Raises:
        KeysError: one of them is there already (then none is made), the folder is open to others, or cannot be written.
    """
    return _make(folder, [(SERVER, ""), *((role, role) for role in ROLES)])


def make_one(folder: Path, role: str, name: str) -> list[Path]:
    """Make one more pair for a role, authorized in this folder; the files that were made.

    Raises:
        KeysError: as `make_all`, or it cannot be a name.
    """
    if not _NAME.fullmatch(name):
        raise KeysError(f"{name!r} cannot name a key. Use letters, digits, '.', '_' and '-', at most 64 of them.")
    if name == SERVER or (name in ROLES and name != role):
        raise KeysError(f"{name!r} is the name of another role's key. Choose another for this {role}.")
    return _make(folder, [(name, role)])


def _make(folder: Path, wanted: Iterable[tuple[str, str]]) -> list[Path]:
    require_curve()
    wanted = list(wanted)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(folder, folder=True)
        for name, role in wanted:
            for path in _files(folder, name, role):
                _refuse_existing(path)
        return [path for name, role in wanted for path in _write_pair(folder, name, role)]
    except OSError as error:
        raise KeysError(f"No keys can be made in {str(folder)!r}: {error.strerror}. Choose another folder.") from error


def _files(folder: Path, name: str, role: str) -> list[Path]:
    files = [folder / f"{name}.pub", folder / f"{name}.secret"]
    return [*files, authorized(folder, role) / f"{name}.pub"] if role else files


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise KeysError(
            f"{str(path)!r} is there already, and a key is never overwritten; nothing was made. "
            "Name another, or remove it first."
        )


def _write_pair(folder: Path, name: str, role: str) -> list[Path]:
    public, secret = (half.decode() for half in zmq.curve_keypair())
    files = _files(folder, name, role)
    who = f"the {role} {name!r}" if role else "the server: the distributor, the collector and the broker"
    lines = f"role = {role or SERVER}\npublic = {public}\n"
    _write(files[0], f"# The public half of the key of {who}.\n{lines}")
    _write(files[1], f"# The key of {who}. Whoever has this file can act as it.\n{lines}secret = {secret}\n")
    for path in files[2:]:
        for level in (path.parent.parent, path.parent):
            level.mkdir(mode=0o700, exist_ok=True)
        _write(path, f"# Lets in {who}; remove this file, and it is out at its next connection.\n{lines}")
    return files


def _write(path: Path, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "w", encoding="ascii") as stream:
        stream.write(text)


# reading --------------------------------------------------------------------------------------------------------------


def authorized(folder: Path, role: str) -> Path:
    """The folder of the public halves that are let in as this role."""
    return folder / "authorized" / ROLES[role]


def check_private(path: Path, *, folder: bool = False, public: bool = False) -> None:
    """Check that a key file, or a folder of them, is this user's (or root's) and closed to others.

    A `public` one may be read by others, but not written. Raises KeysError, or OSError if it is not there.
    """
    seen = path.stat()
    if stat.S_ISDIR(seen.st_mode) != folder:
        raise KeysError(f"{str(path)!r} is {'no' if folder else 'a'} folder. Name a folder that `keygen` made.")
    if seen.st_uid not in (os.geteuid(), 0):
        raise KeysError(f"{str(path)!r} belongs to another user. Make keys of your own, with `keygen`.")
    if seen.st_mode & (_WRITABLE if public else 0o077):
        mode, right = stat.S_IMODE(seen.st_mode), "700" if folder else "600"
        raise KeysError(f"{str(path)!r} is open to other users (mode {mode:o}). Run `chmod {right} {path}`.")


def server_pair(folder: Path) -> Pair:
    """The pair of the bound sockets. Raises KeysError if it is missing, wrong, or open to others."""
    _check_folder(folder)
    path = folder / f"{SERVER}.secret"
    if not path.exists():
        raise KeysError(
            f"There is no {SERVER}.secret in {str(folder)!r}, which a role needs that binds. "
            "Make a folder with all keys by `keygen DIR`, or name the folder that has it."
        )
    return _pair(path)


def server_public(folder: Path) -> bytes:
    """The public half of the server's pair, 40 characters of Z85. Raises KeysError if it is missing or wrong."""
    _check_folder(folder)
    path = folder / f"{SERVER}.pub"
    if not path.exists():
        raise KeysError(f"There is no {SERVER}.pub in {str(folder)!r}. Copy it there from the server's folder of keys.")
    check_private(path, public=True)
    return read_public(path)


def role_pair(folder: Path, role: str) -> Pair:
    """The pair of a role that connects: ``ROLE.secret``, or the only other one of this role.

    Raises:
        KeysError: there is none, or several; it is wrong, or open to others.
    """
    _check_folder(folder)
    path = folder / f"{role}.secret"
    if path.exists():
        return _pair(path)
    others = [one for one in sorted(folder.glob("*.secret")) if _read(one, secret=True).get("role") == role]
    if len(others) == 1:
        return _pair(others[0])
    seen = f"several keys of a {role} ({', '.join(one.name for one in others)})" if others else f"no key of a {role}"
    todo = "Keep one of them there" if others else f"Make one: {_making(folder, role)}"
    raise KeysError(f"There is {seen} in {str(folder)!r}. {todo}.")


def role_of(path: Path) -> str:
    """The role of the secret in this file; empty if it says none. Raises KeysError if it is open to others."""
    return _read(path, secret=True).get("role", "")


def check_key(path: Path) -> None:
    """Raise KeysError if this .secret or .pub file holds no key, or is open to others."""
    if path.suffix == ".secret":
        _pair(path)
    else:
        read_public(path)


def text_of(path: Path) -> str:
    """All that a key file says. Raises KeysError if it cannot be read, or others could change it."""
    try:
        check_private(path, public=path.suffix != ".secret")
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(
            f"{str(path)!r} cannot be read ({error}). Give this user the right to, or remove it."
        ) from error


def _making(folder: Path, role: str) -> str:
    """How to come by the key of a role, on the server or on another machine."""
    if role not in ("worker", "client"):
        return f"`keygen {folder}`"
    return (
        f"`keygen {folder} --{role} NAME`, and copy NAME.pub into authorized/{role}s of the server's keys; or the same "
        f"command there, and copy NAME.secret to here"
    )


def _check_folder(folder: Path) -> None:
    try:
        check_private(folder, folder=True)
    except OSError as error:
        raise KeysError(
            f"The folder of keys {str(folder)!r} cannot be used: {error.strerror}. Make it with `keygen {folder}`."
        ) from error


def _pair(path: Path) -> Pair:
    found = _read(path, secret=True)
    public, secret = found.get("public", ""), found.get("secret", "")
    if not (_Z85.fullmatch(secret) and _is_pair(public, secret)):
        raise KeysError(f"{str(path)!r} holds no key, or not a whole one. Make a new one with `keygen`.")
    return Pair(path.name.removesuffix(".secret"), public.encode(), secret.encode())


def _is_pair(public: str, secret: str) -> bool:
    require_curve()
    with contextlib.suppress(ValueError):
        return zmq.curve_public(secret.encode()) == public.encode()
    return False


def read_public(path: Path) -> bytes:
    """The public half in a file, 40 characters of Z85. Raises KeysError if it holds none."""
    public = _read(path).get("public", "")
    if not _Z85.fullmatch(public):
        raise KeysError(f"{str(path)!r} holds no public key. Copy there a .pub file that `keygen` made.")
    return public.encode()


def _read(path: Path, *, secret: bool = False) -> dict[str, str]:
    try:
        if secret:
            check_private(path)
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_LENGTH).decode("ascii", "replace")
    except OSError as error:
        raise KeysError(f"{str(path)!r} cannot be read: {error.strerror}. Give this user the right to.") from error
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in lines}
