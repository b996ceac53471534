"""The groups of a journal: what came of one result, kept until it is all there; see `protocol.collection.gathering`.

All of it is in tables, so that a group of a million items takes no memory before it is given. What is to be written is
kept for a moment, as in the outboxes: until the commit, and until a savepoint begins; so one that is undone undoes what
was done since, if what is known here is forgotten with it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from zmqpipeline.protocol.collection.gathering import Parent, Span
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem

MAX_UNWRITTEN = 1000
"""So many rows wait at most to be written, with at most `MAX_UNWRITTEN_BYTES` of results."""

MAX_UNWRITTEN_BYTES = 1024 * 1024

MAX_KNOWN = 10_000
"""Of so many groups it is known without looking how many are open."""

_PLACES = {"parents": "?, ?, ?, ?, ?", "members": "?, ?, ?, ?, ?", "gathered": "?, ?, ?, ?, ?, ?"}


class Groups:
    """Those of one journal: a `GroupStore`, within its transactions."""

    def __init__(
        self,
        db: sqlite3.Connection,
        task_key: Callable[[str], int],
        written: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """`task_key` gives the number that stands for a task in the tables; what is `written` is so in a transaction.

        That turns what sqlite raises into JournalLost.
        """
        self._db, self._task_key, self._written = db, task_key, written
        self._keys: dict[str, int] = {}
        self._open: dict[tuple[int, int], int] = {}
        self._changed: set[tuple[int, int]] = set()
        """Those of these that are to be written."""
        self._rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _PLACES}
        self._bytes = 0
        self._found: dict[tuple[int, int], tuple[int, int, int]] = {}
        """By gather and task, the members that were looked up last: start, stop, group."""

    def open(self) -> None:
        """A run goes on: failed members that are to be sent again are waited for again, where the group was not given.

        Also those that the run before did not come to: a second time finds them no more.
        """
        again = self._db.execute(
            "SELECT g.gather, g.number, g.task, g.item FROM zmqpipeline_gathered AS g JOIN zmqpipeline_failed AS f "
            "ON f.task = g.task AND f.number = g.item WHERE g.failed AND f.retrying"
        ).fetchall()
        self._db.executemany(
            "DELETE FROM zmqpipeline_gathered WHERE gather = ? AND number = ? AND task = ? AND item = ?", again
        )
        self._db.executemany(
            "UPDATE zmqpipeline_groups SET open = open + 1 WHERE gather = ? AND number = ?", [one[:2] for one in again]
        )

    # what the machine does ------------------------------------------------------------------------------------------

    def begin(self, gather: str, group: int, parent: Parent) -> None:
        """See `GroupStore`."""
        which = (self._key(gather), group)
        self._note(which, 1)
        self._add("parents", (*which, parent.result, parent.attempt, parent.depth), len(parent.result))

    def group_of(self, gather: str, task: str, number: int) -> int | None:
        """See `GroupStore`."""
        which = (self._key(gather), self._key(task))
        start, stop, group = self._found.get(which, (0, 0, 0))
        if start <= number < stop:
            return group
        self._write("members")
        row = self._row(
            "SELECT start, stop, number FROM zmqpipeline_members WHERE gather = ? AND task = ? AND start <= ? "
            "ORDER BY start DESC LIMIT 1",
            (*which, number),
        )
        if row is None or row[1] <= number:
            return None
        self._found[which] = row
        return int(row[2])

    def add_members(self, gather: str, group: int, task: str, span: Span) -> None:
        """See `GroupStore`."""
        self._add("members", (self._key(gather), self._key(task), *span, group))

    def count(self, gather: str, group: int, change: int) -> int:
        """See `GroupStore`."""
        which = (self._key(gather), group)
        now = self._open.get(which)
        if now is None:
            (now,) = self._row("SELECT open FROM zmqpipeline_groups WHERE gather = ? AND number = ?", which)
        self._note(which, now + change, changed=change != 0)
        return int(now) + change

    def keep(self, gather: str, group: int, task: str, number: int, result: bytes | None) -> None:
        """See `GroupStore`."""
        row = (self._key(gather), group, self._key(task), number, result is None, result or b"")
        self._add("gathered", row, len(row[-1]))

    def delete(self, gather: str, group: int) -> None:
        """See `GroupStore`."""
        self.flush()
        which = (self._key(gather), group)
        self._open.pop(which, None)
        self._found = {key: one for key, one in self._found.items() if (key[0], one[2]) != which}
        for table in ("groups", "parents", "members", "gathered"):
            self._row(f"DELETE FROM zmqpipeline_{table} WHERE gather = ? AND number = ?", which)

    # what is written when -------------------------------------------------------------------------------------------

    def _note(self, which: tuple[int, int], count: int, *, changed: bool = True) -> None:
        self._open[which] = count
        if changed:
            self._changed.add(which)

    def _add(self, table: str, row: tuple[Any, ...], size: int = 0) -> None:
        rows = self._rows[table]
        rows.append(row)
        self._bytes += size
        if len(rows) >= MAX_UNWRITTEN or self._bytes >= MAX_UNWRITTEN_BYTES:
            self.flush()

    @property
    def is_unwritten(self) -> bool:
        """Whether a commit has something to write."""
        return bool(self._changed) or any(self._rows.values())

    def flush(self) -> None:
        """Write what is not written."""
        for table in _PLACES:
            self._write(table)
        self._bytes = 0
        if self._changed:
            counts = [(*which, self._open[which]) for which in self._changed]
            self._changed.clear()
            self._execute_many("INSERT OR REPLACE INTO zmqpipeline_groups VALUES (?, ?, ?)", counts)
        if len(self._open) > MAX_KNOWN:
            self._open.clear()

    def _write(self, table: str) -> None:
        rows = self._rows[table]
        if rows:
            self._rows[table] = []
            self._execute_many(f"INSERT INTO zmqpipeline_{table} VALUES ({_PLACES[table]})", rows)

    def forget(self) -> None:
        """A savepoint is undone, before which everything was written: the tables say what is so."""
        self._open.clear()
        self._changed.clear()
        self._found.clear()
        self._bytes = 0
        for table in _PLACES:
            self._rows[table] = []

    def _key(self, task: str) -> int:
        found = self._keys.get(task)
        if found is None:
            found = self._keys[task] = self._task_key(task)
        return found

    def _row(self, sql: str, values: tuple[Any, ...]) -> Any:
        """The first row, or None."""
        if self._db.in_transaction:
            # there are some of these for each item: `_written` is for what begins one, and for what goes wrong
            try:
                return self._db.execute(sql, values).fetchone()
            except sqlite3.Error as error:
                with self._written():
                    raise error
        with self._written():
            return self._db.execute(sql, values).fetchone()

    def _execute_many(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        with self._written():
            self._db.executemany(sql, rows)

    # what a group has when it is given ------------------------------------------------------------------------------

    def parent(self, gather: str, group: int) -> Parent:
        """What began it."""
        self.flush()
        row = self._row(
            "SELECT result, attempt, depth FROM zmqpipeline_parents WHERE gather = ? AND number = ?",
            (self._key(gather), group),
        )
        return Parent(*row)

    def results(self, gather: str, group: int, task: str) -> Iterator[bytes]:
        """Those of this task, in the order of its items."""
        self.flush()
        with self._written():
            rows = self._db.execute(
                "SELECT result FROM zmqpipeline_gathered WHERE gather = ? AND number = ? AND task = ? AND NOT failed "
                "ORDER BY item",
                (self._key(gather), group, self._key(task)),
            )
            for row in rows:
                yield row[0]

    def failures(self, gather: str, group: int) -> list[FailedItem]:
        """The members that have failed for good, in the order of tasks and items."""
        self.flush()
        with self._written():
            rows = self._db.execute(
                "SELECT t.name, f.number, f.attempts, f.stage, f.error, f.message, f.traceback, f.payload, f.key "
                "FROM zmqpipeline_gathered AS g JOIN zmqpipeline_failed AS f ON f.task = g.task AND f.number = g.item "
                "JOIN zmqpipeline_tasks AS t ON t.id = g.task WHERE g.gather = ? AND g.number = ? AND g.failed "
                "ORDER BY g.task, g.item",
                (self._key(gather), group),
            ).fetchall()
        return [
            FailedItem(task, number, attempts, stage, ErrorInfo(*raised), payload, key)
            for task, number, attempts, stage, *raised, payload, key in rows
        ]
