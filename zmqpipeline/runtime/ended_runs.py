"""Notes of the runs that have ended on this host, by the address at which their workers would have come in.

A worker that waits finds no distributor any more when a run was short, or when it came late. So a distributor leaves
a note, a small file in a private folder of its user, when its run is over: the run's id and the time of the clock that
all processes of a machine share. A note of an ipc address is named after its path, one of tcp after its port; whoever
connects to another machine finds none.

Who ends a run early leaves another note, at each of its addresses, with the time at which its user interrupted it: for
roles that were still starting then (`protocol.early_end`).
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.runtime.bind import is_near

KEPT_SECONDS = 300.0
"""How long a note is kept; nobody asks for one that is older."""

_EARLY = "early-"

_FOLDER = "~ended"
"""Beside the folders of the pipelines, none of which can have this name."""


def leave_note(addresses: Iterable[EndpointAddress], run: str) -> None:
    """Say that this run is over, to those that look for one at these addresses. OSError if that cannot be written."""
    _leave([name for name in map(_bound_name, addresses) if name], time.monotonic(), run)


def leave_early_note(
    role: str, moment: float, *, bound: Iterable[EndpointAddress], connected: Iterable[EndpointAddress] = ()
) -> None:
    """Say that this role was interrupted at that moment (time.monotonic), and the run with it. OSError as above."""
    names = {*map(_bound_name, bound), *map(_connected_name, connected)} - {""}
    _leave([f"{_EARLY}{name}" for name in names], moment, role)


def _leave(names: list[str], moment: float, text: str) -> None:
    if not names:
        return
    folder = _folder()
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not _is_private(folder):
        raise PermissionError(f"{str(folder)!r} belongs to another user, or is open to others")
    _remove_old(folder)
    for name in names:
        draft = folder / f"new-{os.getpid()}-{name}"
        draft.write_text(f"{moment:.6f} {text}", encoding="utf-8")
        draft.replace(folder / name)


def find_note(address: EndpointAddress) -> tuple[str, float] | None:
    """The run that was over last at this address, and how many seconds ago; None if nothing is known of one."""
    return _find(_connected_name(address))


def find_early_note(
    *, bound: Iterable[EndpointAddress] = (), connected: Iterable[EndpointAddress] = ()
) -> tuple[str, float] | None:
    """The role that was interrupted last at one of these addresses, and how many seconds ago; None if none was."""
    names = {*map(_bound_name, bound), *map(_connected_name, connected)} - {""}
    found = [note for name in names if (note := _find(f"{_EARLY}{name}"))]
    return min(found, key=lambda note: note[1], default=None)


def _find(name: str) -> tuple[str, float] | None:
    if not name:
        return None
    folder = _folder()
    try:
        moment, _, text = (folder / name).read_text(encoding="utf-8").partition(" ")
        seconds = time.monotonic() - float(moment)
        is_private = _is_private(folder)
    except (OSError, ValueError):
        return None
    # the clock begins anew when the machine does
    return (text, seconds) if is_private and 0.0 <= seconds <= KEPT_SECONDS else None


def _folder() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    root = Path(runtime, "zmqpipeline") if runtime else Path(tempfile.gettempdir(), f"zmqpipeline-{os.getuid()}")
    return root / _FOLDER


def _is_private(folder: Path) -> bool:
    """Whether nobody else can have written here."""
    return all(
        seen.st_uid == os.getuid() and stat.S_ISDIR(seen.st_mode) and not seen.st_mode & 0o022
        for seen in (folder.lstat(), folder.parent.lstat())
    )


def _remove_old(folder: Path) -> None:
    for note in folder.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - note.stat().st_mtime > KEPT_SECONDS:
                note.unlink()


def _bound_name(address: EndpointAddress) -> str:
    if address.protocol == "tcp":
        return f"tcp-{address.port}"
    return _path_name(address)


def _connected_name(address: EndpointAddress) -> str:
    if address.protocol == "tcp":
        return f"tcp-{address.port}" if is_near(address) else ""
    return _path_name(address)


def _path_name(address: EndpointAddress) -> str:
    if address.protocol != "ipc":
        return ""
    path = address.path if address.path.startswith("@") else os.path.realpath(address.path)
    return f"ipc-{hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()}"
