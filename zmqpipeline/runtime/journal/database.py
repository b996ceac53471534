"""The file of a journal: its tables, how it is made, locked, opened and checked, and what is said if it is not sound.

Nothing here opens the file but sqlite: closing any other descriptor of it would drop the locks that sqlite holds on it
in this process (fcntl locks are the process's).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TypeVar

from zmqpipeline.errors import JournalError, JournalUnavailable
from zmqpipeline.protocol.data.ranges import spans_of
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.events import Restored
from zmqpipeline.protocol.messages import TaskCounts, TaskPause, TaskProgress
from zmqpipeline.runtime.locks import PathLock, without_file

APPLICATION_ID = 0x7A6D7170
"""``zmqp``, in the header of the file: what tells a journal from other sqlite files."""

FORMAT = 4
"""The version of the tables, the file's ``user_version``."""

LOCKED_SECONDS = 20.0
"""So long another program that writes the file may make the collector wait; shorter than a drain may take."""

PREFIX = "zmqpipeline_"
"""How the names of our tables begin; all others are users'."""

TABLES = {
    "zmqpipeline_run": "(id INTEGER PRIMARY KEY CHECK (id = 1), pipeline TEXT NOT NULL, run TEXT NOT NULL, "
    "run_id TEXT NOT NULL DEFAULT '', metadata BLOB NOT NULL, over INTEGER NOT NULL DEFAULT 0, "
    "finished INTEGER NOT NULL DEFAULT 0, ok INTEGER NOT NULL DEFAULT 0, "
    "counts TEXT NOT NULL DEFAULT '[]', ack_task TEXT NOT NULL DEFAULT '', ack_data BLOB NOT NULL DEFAULT x'', "
    "pauses TEXT NOT NULL DEFAULT '[]')",
    "zmqpipeline_tasks": "(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, repeated INTEGER NOT NULL DEFAULT 0)",
    "zmqpipeline_done": "(task INTEGER, start INTEGER, stop INTEGER NOT NULL, PRIMARY KEY (task, start)) WITHOUT ROWID",
    "zmqpipeline_keys": "(task INTEGER, digest BLOB, PRIMARY KEY (task, digest)) WITHOUT ROWID",
    "zmqpipeline_failed": "(task INTEGER, number INTEGER, attempts INTEGER NOT NULL, stage TEXT NOT NULL, "
    "error TEXT NOT NULL, message TEXT NOT NULL, traceback TEXT NOT NULL, payload BLOB NOT NULL, key BLOB NOT NULL, "
    "failed_at REAL NOT NULL, retrying INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (task, number))",
    "zmqpipeline_fed": "(task INTEGER PRIMARY KEY, count INTEGER NOT NULL, roots INTEGER NOT NULL, "
    "closed INTEGER NOT NULL, numbered INTEGER NOT NULL DEFAULT 0)",
    "zmqpipeline_outbox": "(task INTEGER, start INTEGER, stop INTEGER NOT NULL, depth INTEGER NOT NULL, "
    "payloads BLOB NOT NULL, rate_values BLOB NOT NULL DEFAULT x'', PRIMARY KEY (task, start))",
    "zmqpipeline_paced": "(id INTEGER PRIMARY KEY, task INTEGER NOT NULL, value BLOB NOT NULL, depth INTEGER NOT NULL, "
    "payload BLOB NOT NULL, UNIQUE (task, value, id))",
    "zmqpipeline_values": "(task INTEGER, value BLOB, even REAL NOT NULL, PRIMARY KEY (task, value), "
    "UNIQUE (task, even, value)) WITHOUT ROWID",
    "zmqpipeline_fed_keys": "(task INTEGER, digest BLOB, PRIMARY KEY (task, digest)) WITHOUT ROWID",
    "zmqpipeline_groups": "(gather INTEGER, number INTEGER, open INTEGER NOT NULL, "
    "PRIMARY KEY (gather, number)) WITHOUT ROWID",
    "zmqpipeline_parents": "(gather INTEGER, number INTEGER, result BLOB NOT NULL, attempt INTEGER NOT NULL, "
    "depth INTEGER NOT NULL, PRIMARY KEY (gather, number))",
    "zmqpipeline_members": "(gather INTEGER, task INTEGER, start INTEGER, stop INTEGER NOT NULL, "
    "number INTEGER NOT NULL, PRIMARY KEY (gather, task, start)) WITHOUT ROWID",
    "zmqpipeline_gathered": "(gather INTEGER, number INTEGER, task INTEGER, item INTEGER, failed INTEGER NOT NULL, "
    "result BLOB NOT NULL, PRIMARY KEY (gather, number, task, item))",
}
"""Done items are half-open ranges that do not touch; a `retrying` failure is to be sent again, and counts no more.

A fed task has `count` items, of which so many `roots` are its own first ones, all of them if it is `closed`; those that
are not done are in its outbox, many in a row, end to end. With a rate for each value of a field, so many are
`numbered`; the others are `paced`: they wait for their value, which is `even` with its rate at that time by the
distributor's clock.

A group of a task that gathers has the number of the item that began it, whose result is its parent, and so many `open`
members. What its members have given is gathered, until the group is given: then it is in none of these tables.

A run is `over` when every item is done, and `finished` when its `finished` function has returned, too. `pauses` are
those of its tasks: (task, seconds, when it began by the time of day), as JSON.
"""

INDEXES = {"zmqpipeline_members_of": "ON zmqpipeline_members (gather, number)"}

# The comments keep these apart from the same words of a user: sqlite asks about a statement when it is first prepared.
BEGIN, COMMIT, ROLLBACK = (f"{word} /* {PREFIX} */" for word in ("BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"))


MAX_LOOKS = 100
"""So often a file is read again that others begin or cease to write meanwhile."""

Found = TypeVar("Found")

_OF_A_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Held:
    """What a journal says of its run. `metadata` is a packed dict; `ok` and `counts` are known when it is `over`.

    `over`: every item is done; `finished`: the `finished` function has returned, too. `run_id` is what the user calls
    it, `run` what its processes do.
    """

    pipeline: str
    run: str
    metadata: bytes
    over: bool
    finished: bool
    ok: bool
    counts: list[TaskCounts]
    run_id: str = ""

    def goes_on(self, run_id: str | None) -> bool:
        """Whether a run that the user calls by this id is this one; by none, it is."""
        return run_id is None or run_id == self.run_id


def peek(path: str | Path) -> Held | None:
    """What a journal says of its run, read without changing it; None if there is no file, or no run in it yet.

    Raises:
        JournalError: it is no sound journal.
    """
    return read(Path(path).resolve(), lambda db: None if db is None else held_in(db))


# opening --------------------------------------------------------------------------------------------------------------


def read(path: Path, use: Callable[[sqlite3.Connection | None], Found]) -> Found:
    """What `use` returns for a read-only connection to a journal that was found sound; None: no file, or an empty one.

    It is called again if somebody began or ceased to write the file meanwhile, so it must not mind.

    Raises:
        JournalError: it is no sound journal, or sqlite cannot read it.
    """
    log = path.with_name(f"{path.name}-wal")
    for _ in range(MAX_LOOKS):
        if not _has_content(path, log):
            return use(None)
        before = _moment(path, log)
        is_alone = before[0] is None
        # Without a log nobody has it open. "immutable" then keeps sqlite from making one, and needs no right to do so;
        # but it takes no locks either: if somebody came to write meanwhile, what was read may be of two states.
        how = "mode=ro&immutable=1" if is_alone else "mode=ro"
        try:
            with explained(path), contextlib.closing(_connect(f"{path.as_uri()}?{how}", uri=True)) as db:
                _check(path, log, db)
                found = use(db)
        except JournalError:
            if _moment(path, log) == before:
                raise
        else:
            if not is_alone or _moment(path, log) == before:
                return found
    raise JournalUnavailable(f"{_name(path)} is opened and closed by others all the time. Try again later.")


def _moment(path: Path, log: Path) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """What changes if somebody writes the file, or opens it to write: which log there is, if any, and which file."""

    def stamp(one: Path) -> tuple[int, ...] | None:
        try:
            found = one.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    return stamp(log), stamp(path)


def writable(path: Path, *, durable: bool = True) -> sqlite3.Connection:
    """A connection that writes, in WAL mode, durable with each commit. Check the file with `read` first."""
    _check_rights(path)
    with explained(path):
        db = _connect(path)
        try:
            (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise JournalError(f"{_name(path)} cannot be in WAL mode here. Put it on a disk of this machine.")
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        except BaseException:
            db.close()
            raise
    return db


def in_memory(name: str) -> sqlite3.Connection:
    """A journal that ends with its connection."""
    db = _connect(name)
    _make_tables(db)
    return db


def make(path: Path) -> None:
    """Make a new journal, whole or not at all: beside its place first."""
    _check_rights(path)
    scratch = path.with_name(f".{path.name}.new")
    with explained(path):
        scratch.unlink(missing_ok=True)
        try:
            with contextlib.closing(_connect(scratch)) as db:
                db.execute("PRAGMA journal_mode = OFF")
                _make_tables(db)
            with contextlib.closing(_connect(scratch)) as db:
                db.execute("PRAGMA journal_mode = WAL")
            scratch.replace(path)
        except BaseException:
            for left in path.parent.glob(f"{glob.escape(scratch.name)}*"):
                left.unlink(missing_ok=True)
            raise
        _sync(path.parent)


def locked(path: Path) -> PathLock:
    """Take the writer's lock of a journal.

    Raises:
        JournalUnavailable: another process, or another collector of this one, has it.
        JournalError: the folder cannot be written.
    """
    notice = path.with_name(f"{path.name}.lock")
    try:
        lock = PathLock(str(path))
    except BlockingIOError as error:
        raise JournalUnavailable(
            f"{_name(path)} is in use by {_holder(notice)}: one collector at a time writes it. "
            "Wait for that one, end it, or name another file."
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise JournalError(f"{_name(path)} cannot be made: {without_file(path)}") from error
    except OSError as error:
        raise _of_the_system(path, error) from error
    with contextlib.suppress(OSError):
        # only for the message of whom it keeps out
        notice.write_text(f"{os.getpid()}\n", encoding="utf-8")
    return lock


def _connect(target: str | Path, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(target, timeout=LOCKED_SECONDS, uri=uri, isolation_level=None, check_same_thread=False)


def _make_tables(db: sqlite3.Connection) -> None:
    db.execute(BEGIN)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {FORMAT}")
    for name, columns in TABLES.items():
        db.execute(f"CREATE TABLE {name} {columns}")
    for name, columns in INDEXES.items():
        db.execute(f"CREATE INDEX {name} {columns}")
    db.execute(COMMIT)


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _holder(notice: Path) -> str:
    try:
        number = notice.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        number = ""
    return f"the process {number}" if number.isdigit() else "another process"


# checking -------------------------------------------------------------------------------------------------------------


def _has_content(path: Path, log: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise _forbidden(path, error.strerror) from error
    if found is not None and not stat.S_ISREG(found.st_mode):
        raise JournalError(f"{_name(path)} is no file, but a folder or a device. Name a file.")
    if found is not None and found.st_size:
        return True
    if _size(log):
        raise _torn(path, f"it is empty, but its log {log.name} is not")
    return False


def _check(path: Path, log: Path, db: sqlite3.Connection) -> None:
    if _pragma(db, "application_id") != APPLICATION_ID:
        raise JournalError(
            f"{_name(path)} is a sqlite file, but no journal: it belongs to another program. It is left as it is. "
            "Name another file."
        )
    version = _pragma(db, "user_version")
    if version != FORMAT:
        raise JournalError(
            f"{_name(path)} has the format {version}; this version of zmqpipeline knows {FORMAT}. It is left as it "
            "is. Use the version that wrote it, or name another file."
        )
    # what is in the log alone is not in the file yet
    promised = _pragma(db, "page_count") * _pragma(db, "page_size")
    if not _size(log) and path.stat().st_size < promised:
        raise _torn(path, f"it has {path.stat().st_size} bytes of {promised}")
    for table in TABLES:
        (found,) = db.execute(f"PRAGMA quick_check({table})").fetchone()
        if found != "ok":
            raise _torn(path, str(found).replace("*** in database main ***\n", "").partition("\n")[0])


def _pragma(db: sqlite3.Connection, name: str) -> int:
    (value,) = db.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _check_rights(path: Path) -> None:
    for one in (path, path.parent):
        if one.exists() and not os.access(one, os.W_OK):
            raise _forbidden(path, f"{'the file' if one is path else 'its folder'} is read-only")


# what is said ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what sqlite or the system raises about a journal's file into a JournalError."""
    try:
        yield
    except OSError as error:
        raise _of_the_system(path, error) from error
    except sqlite3.Error as error:
        text = str(error)
        if "not a database" in text:
            raise JournalError(
                f"{_name(path)} is no sqlite file, so no journal. It is left as it is. Name another file."
            ) from error
        if "malformed" in text or isinstance(error, sqlite3.IntegrityError):
            raise _torn(path, f"sqlite says: {text}") from error
        if not may_pass(error):
            raise JournalError(f"{_name(path)} cannot be used; sqlite says: {text}.") from error
        todo = "End the program that holds it" if "locked" in text else "Free some space, if the disk is full"
        raise JournalUnavailable(
            f"{_name(path)} cannot be used now; sqlite says: {text}. {todo}, or name a file on another disk."
        ) from error


def may_pass(error: sqlite3.Error) -> bool:
    """Whether it is not the file that is wrong, but its disk is full or fails, or another program holds it."""
    return any(words in str(error) for words in ("is full", "I/O error", "is locked"))


def _of_the_system(path: Path, error: OSError) -> JournalError:
    if error.errno in _OF_A_FULL_DISK:
        return JournalUnavailable(f"{_name(path)} cannot be used now: {error.strerror}. Free some space.")
    return _forbidden(path, error.strerror)


def _torn(path: Path, why: str) -> JournalError:
    return JournalError(
        f"{_name(path)} is torn or damaged: {why}. It is left as it is. Put a copy of it in its place, or move it away "
        "and start anew."
    )


def _forbidden(path: Path, why: str | None) -> JournalError:
    return JournalError(
        f"{_name(path)} cannot be opened: {why}. Get the right to write the file and its folder, or name another file."
    )


def _name(path: Path) -> str:
    return f"The journal {path}"


# what is in it --------------------------------------------------------------------------------------------------------


def held_in(db: sqlite3.Connection) -> Held | None:
    """The run of a journal; None if none has begun in it."""
    columns = "pipeline, run, metadata, over, finished, ok, counts, run_id"
    row = db.execute(f"SELECT {columns} FROM zmqpipeline_run").fetchone()
    if row is None:
        return None
    pipeline, run, metadata, over, finished, ok, counts, run_id = row
    known = [TaskCounts(**one) for one in json.loads(counts)]
    return Held(pipeline, run, metadata, bool(over), bool(finished), bool(ok), known, run_id)


def restored_from(db: sqlite3.Connection, held: Held) -> Restored:
    """All that a collector needs to go on with the run."""
    progress: list[TaskProgress] = []
    keys: dict[str, set[bytes]] = {}
    failed_keys: dict[str, dict[int, bytes]] = {}
    for task, name, repeated in db.execute("SELECT id, name, repeated FROM zmqpipeline_tasks").fetchall():
        done = db.execute("SELECT start, stop FROM zmqpipeline_done WHERE task = ? ORDER BY start", (task,))
        failed = db.execute("SELECT number, key FROM zmqpipeline_failed WHERE task = ? AND NOT retrying", (task,))
        digests = {row[0] for row in db.execute("SELECT digest FROM zmqpipeline_keys WHERE task = ?", (task,))}
        failures: dict[int, bytes] = dict(failed)
        failed_digests = {number: key for number, key in failures.items() if key}
        collected = tuple(chain.from_iterable(done))
        progress.append(
            TaskProgress(name, collected, spans_of(list(failures)), len(digests), len(failed_digests), repeated)
        )
        if digests:
            keys[name] = digests
        if failed_digests:
            failed_keys[name] = failed_digests
    ack_task, ack_data, pauses = db.execute("SELECT ack_task, ack_data, pauses FROM zmqpipeline_run").fetchone()
    return Restored(
        *(held.run, held.metadata, progress, keys, failed_keys, held.finished, held.ok, held.counts),
        *(ack_task, ack_data, held.over),
        pauses=_pauses_left(json.loads(pauses)),
    )


def _pauses_left(kept: list[tuple[str, float, float]]) -> list[TaskPause]:
    """What goes on of these, each with its seconds and the time of day at which it began.

    No clock that was set back makes one longer.
    """
    now = time.time()
    left = ((task, min(seconds, begun + seconds - now)) for task, seconds, begun in kept)
    return [TaskPause(task, seconds) for task, seconds in left if seconds > 0]


def retrying_in(db: sqlite3.Connection) -> dict[tuple[int, int | bytes], int]:
    """The number of each item that is to be tried again, by task and number, and by task and key."""
    found: dict[tuple[int, int | bytes], int] = {}
    for task, number, key in db.execute("SELECT task, number, key FROM zmqpipeline_failed WHERE retrying"):
        found[task, number] = number
        if key:
            found[task, key] = number
    return found
