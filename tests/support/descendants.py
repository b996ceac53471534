"""The processes that came of this one, however far away: also those whose parents have ended, if it adopts them."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """From now on who loses its parent among our descendants becomes a child of ours, not of the first process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def children_of(pid: int) -> list[int]:
    """The processes that have this one as their parent; none if it is gone."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (thread / "children").read_text().split())
    return found


def descendants(pid: int) -> Iterator[int]:
    """Those that run, and what came of them."""
    for child in children_of(pid):
        if runs(child):
            yield child
        yield from descendants(child)


def runs(pid: int) -> bool:
    """False of one that is gone, or dead and not yet fetched by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent_of(pid: int) -> int:
    """The parent's process id; 0 if it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def name_of(pid: int) -> str:
    """The name of its program; empty if it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def text_of(pid: int, which: str) -> str:
    """Its `cmdline` or `environ`, with blanks between the words; empty if it is gone."""
    with suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/{which}").read_bytes()).replace("\0", " ").strip()
    return ""


def signal_to(pid: int, number: int) -> bool:
    """Send it a signal; False if it is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def fetch_orphans(known: set[int]) -> None:
    """Take note of the ends of those that we have adopted; not of `known` ones, which others wait for."""
    for pid in children_of(os.getpid()):
        if pid not in known and not runs(pid):
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def end_all(pid: int) -> None:
    """End everything that came of it, each by its process id."""
    while left := list(descendants(pid)):
        for one in left:
            signal_to(one, signal.SIGKILL)
