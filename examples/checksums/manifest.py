"""The pure half of the example: which files there are, how a line is written, how the manifest gets to its place."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

CHUNK = 1024 * 1024
"""How many bytes are read at once; hashlib lets go of the GIL for each."""


def walk(root: Path, leave_out: Path) -> Iterator[dict[str, str]]:
    """Each regular file below `root` as ``{"path": relative name}``, but not `leave_out`.

    What cannot be looked at (a broken link, a folder that must not be read) is an item, too, so that it fails and is
    listed; the folder's has the key ``error``. Raises NotADirectoryError if `root` is no folder.
    """
    if not root.is_dir():
        raise NotADirectoryError(f"{str(root)!r} is no folder. Give one: --meta path=FOLDER")
    unread: list[OSError] = []
    hidden = os.path.realpath(leave_out)
    for folder, folders, names in os.walk(root, onerror=unread.append):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)  # noqa: PTH118 (a Path a file costs more than its stat)
            if _is_wanted(path) and not (name == leave_out.name and os.path.realpath(path) == hidden):
                yield {"path": os.path.relpath(path, root)}
    for error in unread:
        yield {"path": os.path.relpath(error.filename, root), "error": str(error)}


def _is_wanted(path: str) -> bool:
    """False for sockets, pipes and devices; True for what cannot even be asked."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return True


def digest(root: str, path: str) -> str:
    """The SHA-256 of the file of that path below `root`, in hexadecimal. Raises OSError if it cannot be read."""
    found = hashlib.sha256()
    with open(os.path.join(root, path), "rb", buffering=0) as file:  # noqa: PTH118, PTH123 (a Path costs 5 us a file)
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def line(path: str, sha256: str) -> bytes:
    """One line of the manifest; names that would break it are escaped as GNU sha256sum does, marked by a backslash."""
    name = os.fsencode(path)
    escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    mark = b"\\" if escaped != name else b""
    return mark + sha256.encode() + b"  " + escaped + b"\n"


def write(out: Path, rows: Iterable[tuple[str, str]]) -> int:
    """Write the manifest of these (path, digest) rows, sorted, whole or not at all; return how many lines it has."""
    lines = [line(path, sha256) for path, sha256 in sorted(rows, key=lambda row: os.fsencode(row[0]))]
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(b"".join(lines))
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return len(lines)


def printable(path: str) -> str:
    """The name as any terminal can show it: undecodable bytes and control characters as escapes."""
    return path.encode("utf-8", "backslashreplace").decode().translate({code: f"\\x{code:02x}" for code in range(32)})
