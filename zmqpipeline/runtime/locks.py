"""A lock file beside an ipc socket, and the removal of both.

libzmq binds an ipc path that another process is bound to without a word, and that process is deaf from then on. So the
bound side holds an flock on ``PATH.lock`` for life; the system lets go of it when the process dies, however it dies.
What it has forked does not hold it on (`forks.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from zmqpipeline.runtime import forks


def without_file(path: str | Path) -> str:
    """Why the system says that there is no file where one is to be made, and what to do: the end of a sentence."""
    folder = Path(path).parent
    if folder.is_dir():
        # /proc and its like
        return f"the folder {str(folder)!r} takes no files. Name another one."
    return f"there is no folder {str(folder)!r}. Make it, or correct the path."


class PathLock:
    """An exclusive lock, held from the construction until `release`.

    Raises:
        BlockingIOError: another process, or another lock of this one, holds it.
        OSError: the file cannot be made, as the folder is missing or not writable.
    """

    def __init__(self, path: str) -> None:
        """Take the lock for the socket at `path`, on the file ``PATH.lock``, which is made if need be."""
        self._socket = Path(path).absolute()
        self._path = self._socket.with_name(f"{self._socket.name}.lock")
        while True:
            with forks.guard:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._file = forks.OwnFile(file)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_current():
                    return
            except BaseException:
                self._file.close()
                raise
            self._file.close()

    def _is_current(self) -> bool:
        # The last holder may have removed the file between our open and our flock.
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.number))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Remove the lock's file and let go of the lock; in a forked child, which never had it, do nothing."""
        if self._file.number < 0:
            return
        # Whoever locks next takes a file that is left as well as a new one.
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._file.close()

    def remove_socket(self) -> None:
        """Remove the socket's file, which libzmq leaves; while the lock is held it is nobody else's."""
        if self._file.number < 0:
            return
        with contextlib.suppress(OSError):
            self._socket.unlink()
