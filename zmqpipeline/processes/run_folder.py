"""The folder of one run: its sockets and its metadata. It is gone afterwards, also if the run is killed.

For as long as it lives, a run holds a lock on a file in its folder; the system lets go of that when the process dies,
however it dies. So whoever makes such a folder first removes those beside it that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zmqpipeline.runtime import forks

_PREFIX = "zmqpipeline-"
_HELD = "held"


@contextmanager
def run_folder(parent: Path) -> Iterator[Path]:
    """A new folder of mode 0700 below `parent`, gone afterwards. OSError if it cannot be made."""
    remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        draft = folder / "new"
        with forks.guard:
            lock = forks.OwnFile(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            # a file system that has no locks: this folder will stay if the run is killed
            with suppress(OSError):
                fcntl.flock(lock.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # only now may others see the file: a folder with one that nobody holds is removed
                draft.rename(folder / _HELD)
            yield folder
        finally:
            lock.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of this user's dead runs from below `parent`; what cannot be removed stays."""
    for folder in parent.glob(f"{_PREFIX}*"):
        if _is_ours(folder) and (lock := _take(folder / _HELD)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _is_ours(folder: Path) -> bool:
    try:
        return folder.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return False  # another run was faster


def _take(held: Path) -> int | None:
    """The lock of a dead run; None if it lives, or if this is no folder of a run."""
    try:
        lock = os.open(held, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock
