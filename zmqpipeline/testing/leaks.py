"""Whether a test has left something of the library behind: a thread, an open socket, a file of its own."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from zmqpipeline.addresses import private_folder
from zmqpipeline.runtime.transport.transport import open_transports
from zmqpipeline.testing.hang_report import thread_lines

GRACE_SECONDS = 2.0
"""How long something that is about to end has to do so."""

_POLL_SECONDS = 0.01


class Leftovers:
    """Remembers what there is when it is made; `found` says what of the library's has come since and is still there.

    Threads and files of the user's own code are none of its business.
    """

    def __init__(self) -> None:
        """Look now."""
        self._threads = set(threading.enumerate())
        self._transports = set(open_transports())
        self._folders: dict[Path, set[str]] = {}

    def watch_app(self, name: str, file: str = "") -> None:
        """Also look at the private folder of the pipeline of this name, made in this file, from now on."""
        folder = private_folder(name, file)
        self._folders.setdefault(folder, _listed(folder))

    def found(self, grace: float = GRACE_SECONDS) -> list[str]:
        """What is left behind, a text each; empty if all is well. It waits up to `grace` seconds for what is ending."""
        end = time.monotonic() + grace
        while (left := self._look()) and time.monotonic() < end:
            # there is no event for the end of a thread of which only the name is known
            time.sleep(_POLL_SECONDS)
        return left

    def _look(self) -> list[str]:
        threads = [one for one in set(threading.enumerate()) - self._threads if _is_ours(one)]
        left = thread_lines(threads)
        told = "\n".join(left)
        left += [f"thread {one.name}" for one in threads if f"thread {one.name} " not in told]
        sockets = len(set(open_transports()) - self._transports)
        if sockets:
            left.append(
                f"the sockets of {sockets} role{'s' if sockets > 1 else ''} or client{'s' if sockets > 1 else ''}"
            )
        for folder, before in self._folders.items():
            left += [f"file {folder / name}" for name in sorted(_listed(folder) - before)]
        return left


def _is_ours(thread: threading.Thread) -> bool:
    return thread.name.startswith("zmqpipeline") or type(thread).__module__.startswith("zmqpipeline.")


def _listed(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()} if folder.is_dir() else set()
