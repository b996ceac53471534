"""The failed items of a journal: read beside a run, and sent again by the next one."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Any

from zmqpipeline.errors import JournalError
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.runtime.journal.database import BEGIN, COMMIT, explained, locked, read, writable

# A failed item with a key may have been sent again by its source, and collected: then it is not dead.
_DEAD = (
    "FROM zmqpipeline_failed AS f JOIN zmqpipeline_tasks AS t ON t.id = f.task WHERE NOT EXISTS "
    "(SELECT 1 FROM zmqpipeline_keys AS k WHERE k.task = f.task AND k.digest = f.key)"
)


@dataclass(frozen=True)
class DeadItem:
    """An item that was given up; `failed_at` as of `time.time()`. A `retrying` one is to be sent again.

    The stage is one of those of `FailedItem`, or "unknown" for one that failed before the journal began.
    """

    task: str
    number: int
    attempts: int
    stage: str
    error: str
    message: str
    traceback: str
    payload: bytes
    failed_at: float
    retrying: bool


def dead_items(path: str | Path) -> list[DeadItem]:
    """The failed items of a journal, in the order of their failure; may be read while a collector writes it.

    Raises:
        JournalError: there is none, or it is no sound journal.
    """

    def rows_of(db: sqlite3.Connection | None) -> list[DeadItem]:
        columns = "t.name, f.number, attempts, stage, error, message, traceback, payload, failed_at, retrying"
        rows = _existing(path, db).execute(f"SELECT {columns} {_DEAD} ORDER BY failed_at, t.id, f.number")
        return [_dead_item(row) for row in rows]

    return read(Path(path).resolve(), rows_of)


def retry(path: str | Path, ids: Collection[tuple[str, int]] | None) -> int:
    """Have failed items sent again: those whose task and number are in `ids`, or all (None); returns how many.

    They are no longer among the failed ones that a collector begins with, so that a distributor which comes upon them
    in its sources sends them. A finished run is not finished any more.

    Raises:
        JournalError: there is no journal, it is not sound, or a collector is running with it.
    """
    real = Path(path).resolve()
    lock = locked(real)
    try:
        read(real, lambda found: _existing(path, found))
        with explained(real), contextlib.closing(writable(real)) as db:
            db.execute(BEGIN)
            # one that was to be sent again in a run that is over was not: its source did not yield it
            left = "(NOT retrying OR (SELECT over FROM zmqpipeline_run))"
            rows = db.execute(f"SELECT t.name, f.task, f.number {_DEAD} AND {left}").fetchall()
            chosen = [row[1:] for row in rows if ids is None or (row[0], row[2]) in ids]
            db.executemany("UPDATE zmqpipeline_failed SET retrying = 1 WHERE task = ? AND number = ?", chosen)
            if chosen:
                db.execute("UPDATE zmqpipeline_run SET over = 0, finished = 0, ok = 0")
            db.execute(COMMIT)
            return len(chosen)
    finally:
        lock.release()


def _dead_item(row: tuple[Any, ...]) -> DeadItem:
    values = [*row[:-1], bool(row[-1])]
    return DeadItem(*values)


def _existing(path: str | Path, db: sqlite3.Connection | None) -> sqlite3.Connection:
    if db is None:
        raise JournalError(f"There is no journal {path}, or it is empty. Check the path.")
    return db
