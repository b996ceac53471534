"""How other threads wake a role's loop, which waits for files."""

from __future__ import annotations

import ctypes
import socket
import threading

# Called with the interpreter held, which `socket.send` and `os.write` let go of. Then the loop would take it at once,
# and the thread that wakes it, which has its next item to begin, get it back after all that the loop was woken for. The
# write is to a socket that does not block. ``python -m examples.benchmarks overhead`` loses a tenth of a point less so.
_write = ctypes.PyDLL(None).write


class Waker:
    """A file, `file`, that can be read from once `wake` was called, until `clear`."""

    def __init__(self) -> None:
        """OSError if there are no files left."""
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)
        self.file = self._out.fileno()
        # may be taken twice by one thread: a signal handler runs in the middle of anything
        self._lock = threading.RLock()
        self._to: int | None = self._in.fileno()

    def wake(self) -> None:
        """From any thread or signal handler; does nothing after `close`."""
        # once the file is closed, its number may be another one's
        with self._lock:
            if self._to is not None:
                # a full pipe wakes as well as one more byte in it would
                _write(self._to, b"\0", 1)

    def number(self) -> int:
        """The file that a byte can be written to instead, for `signal.set_wakeup_fd`; -1 after `close`."""
        return self._in.fileno()

    def clear(self) -> None:
        """Take all that was written; from the loop's thread."""
        try:
            while len(self._out.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Close both ends."""
        with self._lock:
            self._to = None
        self._in.close()
        self._out.close()
