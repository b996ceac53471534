"""Where the runs of a pipeline are: `run` has addresses of its own, and leaves a note of them for as long as it lives.

A note is a file that holds the base address, under a lock that the system lets go of when the process dies, however it
dies. A note that nobody holds is of a run that was killed, and is removed by whoever finds it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zmqpipeline.runtime.locks import PathLock

_PREFIX = "run-"


@contextmanager
def announced(folder: Path, base: str) -> Iterator[None]:
    """Leave a note in this folder that a run is at this base address. OSError if it cannot be written."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"{os.getpid()}-{os.urandom(4).hex()}"
    lock = PathLock(os.fspath(folder / (_PREFIX + name)))
    try:
        # whoever reads must find all of it, or none
        draft = folder / f"new-{name}"
        draft.write_text(base, encoding="utf-8", errors="surrogateescape")
        draft.rename(folder / (_PREFIX + name))
        yield
    finally:
        lock.remove_socket()
        lock.release()


def announced_in(folder: Path) -> list[str]:
    """The base addresses of the runs that live, by the notes in this folder, the oldest first."""
    with suppress(FileNotFoundError):
        notes = [path for path in folder.glob(f"{_PREFIX}*") if path.suffix != ".lock"]
        found = [(_born(path), text) for path in notes if (text := _read(path))]
        return [text for _, text in sorted(found)]
    return []


def _born(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read(path: Path) -> str:
    """What a note says, or an empty string if its run is over."""
    try:
        lock = PathLock(os.fspath(path))
    except BlockingIOError:
        with suppress(FileNotFoundError):
            return path.read_text(encoding="utf-8", errors="surrogateescape")
        return ""
    lock.remove_socket()
    lock.release()
    return ""
