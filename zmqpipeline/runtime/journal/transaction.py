"""What users' functions get as `journal`: the open transaction, and what keeps them from ending it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from zmqpipeline.errors import JournalError
from zmqpipeline.runtime.journal.database import PREFIX, TABLES

# Of the disk, not of the statement: the item is not to blame, and sqlite has often undone the whole transaction.
_TROUBLES = {
    "database or disk is full",
    "disk I/O error",
    "attempt to write a readonly database",
    "database disk image is malformed",
    "unable to open database file",
}
_HARMLESS = {sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN = {
    sqlite3.SQLITE_TRANSACTION: "BEGIN, COMMIT or ROLLBACK",
    sqlite3.SQLITE_SAVEPOINT: "SAVEPOINT or RELEASE",
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
}
_READING = {"data_version", "encoding", "foreign_keys", "page_count", "page_size", "user_version"}
_PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"}


class Rows:
    """What a statement returned: an iterator with the methods of a cursor that do not change anything."""

    __slots__ = ("_rows", "description", "lastrowid", "rowcount")

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        """Take all rows: a statement that is still running would not survive the end of its item's savepoint."""
        self._rows = iter(cursor.fetchall())
        self.description, self.lastrowid, self.rowcount = cursor.description, cursor.lastrowid, cursor.rowcount

    def __iter__(self) -> Iterator[Any]:
        return self._rows

    def fetchone(self) -> Any:
        """The next row, or None."""
        return next(self._rows, None)

    def fetchmany(self, size: int = 1) -> list[Any]:
        """The next rows, at most `size`."""
        return [row for _, row in zip(range(size), self._rows, strict=False)]

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        return list(self._rows)


class Transaction:
    """The open transaction of the journal, which functions get as `journal`; usable during their call only.

    What they write is committed together with the mark that the item is done, at most 10 ms after the call, or undone
    if the call raises. Tables are theirs to make; names that begin with ``zmqpipeline_`` are not.
    """

    __slots__ = ("_guard",)
    _guard: Guard

    def __init__(self, guard: Guard) -> None:
        """Made by the journal itself."""
        object.__setattr__(self, "_guard", guard)

    def execute(self, sql: str, parameters: Any = ()) -> Rows:
        """Execute one statement, as `sqlite3.Connection.execute` does.

        Raises:
            sqlite3.Error: as sqlite3 raises it.
            JournalError: it is outside a call, or the statement would end the transaction or change the marks.
        """
        return self._guard.run("execute", sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any]) -> Rows:
        """Execute one statement for each of these parameters, as `sqlite3.Connection.executemany` does."""
        return self._guard.run("executemany", sql, parameters)

    def __getattr__(self, name: str) -> Any:
        if hasattr(sqlite3.Connection, name) and not name.startswith("__"):
            raise JournalError(_refusal(f"journal.{name}"))
        raise AttributeError(f"The journal has no {name!r}. It has execute and executemany.")

    def __setattr__(self, name: str, value: object) -> None:
        raise JournalError(_refusal(f"Setting journal.{name}"))


class Guard:
    """Carries out users' statements during a call, and no others; `trouble` is what the disk did to one of them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Watch this connection."""
        self.trouble: sqlite3.Error | None = None
        self._db = db
        self._caller = 0
        self._on = False
        self._denied = ""
        self._altered = ""
        db.set_authorizer(self._authorize)

    def admit(self, thread: int | None = None) -> None:
        """A call begins, on this thread, or on that with this ident."""
        self._caller = thread or threading.get_ident()

    def dismiss(self) -> None:
        """It is over."""
        self._caller = 0

    def run(self, method: str, sql: str, parameters: Any) -> Rows:
        """Carry out a user's statement. `method` is one of sqlite3.Connection. Raises what `Transaction` says."""
        if self._caller != threading.get_ident():
            raise JournalError(
                "The journal was used outside a call: it is the transaction of one item, for the function that takes "
                "it, on that function's own thread, until it returns. Do not keep it: take `journal` where you need it."
            )
        if self.trouble is not None or not self._db.in_transaction:
            raise JournalError("The transaction was rolled back by an earlier statement. Let this call fail.")
        self._on, self._denied, self._altered = True, "", ""
        try:
            rows = Rows(getattr(self._db, method)(sql, parameters))
        except sqlite3.Error as error:
            if self._denied:
                raise JournalError(_refusal(self._denied)) from error
            if str(error) in _TROUBLES:
                self.trouble = error
            raise
        finally:
            self._on = False
        if self._altered and (taken := self._taken_names()):
            # sqlite does not tell the authorizer the new name
            before = self._altered.replace('"', '""')
            self._db.execute(f'ALTER TABLE "{taken[0]}" RENAME TO "{before}"')
            raise JournalError(_refusal(f"Giving the name {taken[0]}, one of those that begin with {PREFIX},"))
        return rows

    def _taken_names(self) -> list[str]:
        """The users' tables with names like ours."""
        names = (str(name) for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
        return [name for name in names if name.lower().startswith(PREFIX) and name not in TABLES]

    def _authorize(self, action: int, first: str | None, second: str | None, *where: str | None) -> int:
        """Asked by sqlite about each part of a statement that is prepared."""
        if not self._on or action in _HARMLESS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_PRAGMA and (first in _PRAGMAS or (first in _READING and second is None)):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_ALTER_TABLE:
            self._altered = str(second)
        if action in _FORBIDDEN:
            self._denied = f"A statement that says {_FORBIDDEN[action]}"
        elif action == sqlite3.SQLITE_PRAGMA:
            self._denied = f"PRAGMA {first}"
        elif any(str(name).lower().startswith(PREFIX) for name in (first, second)):
            self._denied = f"Changing what has a name that begins with {PREFIX}"
        else:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY


def _refusal(what: str) -> str:
    return (
        f"{what} is not for the functions of a pipeline: the transaction is the journal's own, which commits what a "
        "call wrote together with the mark that its item is done, and undoes it if the call raises. Take it out."
    )
