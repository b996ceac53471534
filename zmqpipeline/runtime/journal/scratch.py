"""The journal of a pipeline with stages whose user has asked for none: a file that is gone when its run is over.

It is where a collector that is started again at the same address finds it: in a private folder below that for temporary
files, by a name made of the address, or in the run's own folder, if that is there. (Sockets may be in a folder that is
kept in memory, which this must not fill.) Among threads of one process nobody comes again: there it has a folder of its
own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import JournalError, JournalUnavailable
from zmqpipeline.runtime.journal.database import locked
from zmqpipeline.runtime.journal.writer import Journal


def open_scratch(acks: EndpointAddress, pipeline: str, fed: Iterable[str]) -> Journal:
    """That of the collector at this address, which is locked for this process.

    Raises:
        JournalError: there is no place for it, or it is in use.
    """
    path = _place_of(acks)
    try:
        return Journal(path, pipeline=pipeline, fed=fed, scratch=True)
    except JournalError as error:
        # what is in the way is ours: of another pipeline at this address, of another version, or torn
        if isinstance(error, JournalUnavailable):
            raise
        _remove(path)
        return Journal(path, pipeline=pipeline, fed=fed, scratch=True)


def remove_scratch(journal: Journal, *, goes_on: bool) -> None:
    """Remove the file of a journal that is closed, unless another process may go on with it or has it by now."""
    if journal.path.parent.name.startswith(_OWN):
        # nobody comes again, and a thread that does not end may keep it open
        shutil.rmtree(journal.path.parent, ignore_errors=True)
        return
    if goes_on:
        return
    try:
        lock = locked(journal.path)
    except JournalUnavailable:
        return
    try:
        _remove(journal.path)
    finally:
        lock.release()


_OWN = "zmqpipeline-outbox-"


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm", ".lock"):
        with suppress(FileNotFoundError):
            path.with_name(f"{path.name}{ending}").unlink()


def _place_of(acks: EndpointAddress) -> Path:
    if acks.protocol == "inproc":
        return Path(tempfile.mkdtemp(prefix=_OWN)) / "outbox.db"
    name, temporary = acks.encode(), Path(tempfile.gettempdir())
    if acks.protocol == "ipc" and not acks.path.startswith("@"):
        path = Path(acks.path).resolve()
        if path.is_relative_to(temporary.resolve()):
            # that of a run goes with its folder
            return path.with_name(f"{path.name}.outbox")
        name = bytes(path)
    folder = temporary / f"zmqpipeline-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    seen = folder.lstat()
    if seen.st_uid != os.getuid() or not stat.S_ISDIR(seen.st_mode) or seen.st_mode & 0o022:
        raise JournalError(
            f"The folder {str(folder)!r} belongs to another user, or is open to others: what results give to other "
            "tasks cannot be kept there. Remove it, or name a journal: --journal FILE."
        )
    return folder / f"{hashlib.blake2b(name, digest_size=16).hexdigest()}.outbox"
