"""Journal: one run's file, open for writing."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

from zmqpipeline.errors import JournalError, JournalUnavailable
from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.protocol.data.dedup import split_keys
from zmqpipeline.protocol.data.ranges import numbers_of, pairs, spans_of
from zmqpipeline.protocol.events import Restored
from zmqpipeline.protocol.messages import FailedItem, Spans, TaskCounts, TaskPause, TaskProgress
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.journal import database
from zmqpipeline.runtime.journal.database import BEGIN, COMMIT, ROLLBACK, TABLES
from zmqpipeline.runtime.journal.groups import Groups
from zmqpipeline.runtime.journal.outbox import Outboxes
from zmqpipeline.runtime.journal.transaction import Guard, Transaction
from zmqpipeline.runtime.locks import PathLock

MEMORY = ":memory:"
"""The path of a journal that is in no file, for test runs."""

_SAVEPOINT, _RELEASE, _UNDO = (f"{word} zmqpipeline_item" for word in ("SAVEPOINT", "RELEASE", "ROLLBACK TO"))


class JournalLost(JournalError):
    """The journal can no longer be written. What is not committed is not in it: roll back, and collect no more."""


class JournalHeldUp(JournalLost, JournalUnavailable):
    """The same, for a reason that may pass: with the same journal the run may go on later."""


class Journal:
    """One run's file, open for writing. Made on one thread, it may be used on another; on one at a time.

    Methods raise JournalLost if sqlite cannot do what they are for.
    """

    path: Path
    """The file, as it was given."""

    restored: Restored | None
    """What it held when it was opened; None for a new one, and for one that is to begin afresh."""

    forgotten: database.Held | None
    """The run that it held and that is not to go on, since it has another `run_id`."""

    transaction: Transaction
    """What users' functions get; `item` lets them use it."""

    outboxes: Outboxes
    """What results give to tasks."""

    groups: Groups
    """What is gathered of results until it is all there."""

    commits: tuple[int, float]
    """How many transactions it has written, and how many seconds these took."""

    def __init__(
        self,
        path: str | Path,
        *,
        pipeline: str,
        fresh: bool = False,
        run_id: str | None = None,
        durable: bool = True,
        fed: Iterable[str] = (),
        scratch: bool = False,
    ) -> None:
        """Open the file, which is made if there is none, and lock it.

        Args:
            path: the file, or ":memory:".
            pipeline: the name of the pipeline whose run it holds, or will hold.
            fresh: forget what it holds of an earlier run, as late as the new one begins; users' tables stay.
            run_id: what the user calls the run; the file is `fresh` if it holds one that is called otherwise.
            durable: False for a simulation, which the machine's own end need not outlive.
            fed: the tasks that results of others feed.
            scratch: nobody has asked for a journal: what it holds counts for a distributor that is at work on that very
                run. It is not durable.

        Raises:
            JournalError: it cannot be used; it is as it was before.
        """
        self.path = Path(path)
        self.restored = self.forgotten = None
        self.commits = 0, 0.0
        self._pipeline, self._fresh, self._durable = pipeline, fresh, durable and not scratch
        self._fed, self._scratch = tuple(fed), scratch
        self._run_id = run_id
        self._marks: dict[str, tuple[list[int], list[bytes]]] = {}
        self._last_ack: tuple[str, bytes] | None = None
        self._task_ids: dict[str, int] = {}
        self._retrying: dict[tuple[int, int | bytes], int] = {}
        self._lock: PathLock | None = None
        self._db = database.in_memory(MEMORY) if str(path) == MEMORY else self._open(self.path.resolve())
        self._guard = Guard(self._db)
        self.transaction = Transaction(self._guard)
        self.groups = Groups(self._db, self._task_id, self._written)
        self.outboxes = Outboxes(self._db, self._task_id, self._written, self._explained, self.groups)
        if self.restored is not None and self._fed:
            self._restore_outboxes(self.restored)

    def _open(self, path: Path) -> sqlite3.Connection:
        self._lock = database.locked(path)
        try:
            if not database.read(path, lambda found: self._read(path, found)):
                database.make(path)
            return database.writable(path, durable=self._durable)
        except BaseException:
            self._lock.release()
            raise

    def _read(self, path: Path, found: sqlite3.Connection | None) -> bool:
        """Take over what the file holds; False if there is none."""
        if found is None:
            return False
        held = database.held_in(found)
        if held is not None and held.pipeline != self._pipeline:
            raise JournalError(
                f"The journal {path} belongs to the pipeline {held.pipeline!r}, not to {self._pipeline!r}. "
                "Name another file."
            )
        if held is not None and not self._fresh and not held.goes_on(self._run_id):
            self._fresh, self.forgotten = True, held
        if held is not None and not self._fresh:
            self.restored = database.restored_from(found, held)
            self._retrying = database.retrying_in(found)
        return True

    def _restore_outboxes(self, restored: Restored) -> None:
        try:
            with self._written():
                self.outboxes.open(self._fed)
                self.groups.open()
            self.commit()
        except BaseException:
            self.close()
            raise
        # which tasks have first items of their own is said when the run goes on
        self.restored = replace(restored, outboxes=self.outboxes.told(self._fed), aside=self._scratch)

    # what the collector does with it ----------------------------------------------------------------------------------

    def begin(self, command: SetRun) -> None:
        """Write down that this run has begun, and what is known of it; nothing to do if it comes from this journal."""
        if command.restored:
            return
        with self._written():
            for table in TABLES if self._fresh or self._scratch else ():
                self._db.execute(f"DELETE FROM {table}")
            self._task_ids.clear()
            self._db.execute(
                "INSERT OR IGNORE INTO zmqpipeline_run (id, pipeline, run, run_id, metadata, ack_task, ack_data) "
                "VALUES (1, ?, ?, ?, ?, ?, ?)",
                (
                    *(self._pipeline, command.run, self._run_id or "", command.metadata),
                    *(command.ack_task, command.ack_data),
                ),
            )
            (held,) = self._db.execute("SELECT run FROM zmqpipeline_run").fetchone()
            if held != command.run:
                raise self._lost(f"it holds the run {held}, not {command.run}")
            for known in command.progress:
                self._write_progress(known, command.failed_keys.get(known.task, {}))
            for task, digests in command.keys.items():
                self._write_keys(self._task_id(task), digests)
            self.outboxes.open(self._fed)
        self.commit()
        self._fresh = False

    def collected(self, task: str, numbers: Sequence[int], keys: bytes, ack_data: bytes = b"") -> None:
        """Mark these items as collected with the next commit.

        `keys` are their digests, or empty; `ack_data` is what the ACK that is sent after the commit will carry.
        """
        if numbers:
            self._last_ack = (task, ack_data)
        marks = self._marks.setdefault(task, ([], []))
        marks[0].extend(numbers)
        marks[1].extend(split_keys(keys))

    def failed(self, items: Sequence[FailedItem]) -> None:
        """Write down these failures with the next commit, in the place of earlier ones of the same items."""
        with self._written():
            for item in items:
                task = self._task_id(item.task)
                self._last_ack = (item.task, b"")
                self._drop_retried(task, (item.number, item.key))
                self._write_failed(task, item)
                self.outboxes.settle(item.task, (item.number, item.number + 1), failed=True)

    def over(self, ok: bool, counts: Sequence[TaskCounts]) -> None:
        """Write down, with the next commit, that every item is done, before the `finished` function is called.

        They are not if a source raised: what that has not yielded is still to be sent, so the run goes on when it is
        started again. If the metadata function raised there is nothing to go on with, and a new run begins.
        """
        states = {one.state for one in counts}
        if "failed" in states:
            return
        if states == {"aborted"}:
            with self._written():
                self._db.execute("DELETE FROM zmqpipeline_run")
            return
        told = json.dumps([asdict(one) for one in counts])
        with self._written():
            self._db.execute("UPDATE zmqpipeline_run SET over = 1, ok = ?, counts = ?", (ok, told))

    def pause(self, pauses: Sequence[TaskPause]) -> None:
        """Write down with the next commit that these tasks pause, and no others."""
        now = time.time()
        told = json.dumps([(one.task, one.seconds, now) for one in pauses])
        with self._written():
            self._db.execute("UPDATE zmqpipeline_run SET pauses = ?", (told,))

    def finish(self) -> None:
        """Write down, with the next commit, that the `finished` function has returned, if every item is done."""
        with self._written():
            self._db.execute("UPDATE zmqpipeline_run SET finished = over")

    def commit(self) -> None:
        """Make durable what was said since the last commit: on return it is on the disk."""
        is_unwritten = self.outboxes.is_unwritten or self.groups.is_unwritten
        if self._marks or self._db.in_transaction or is_unwritten:
            began = time.perf_counter()
            with self._written():
                self._write_marks()
                self.outboxes.flush()
                self.groups.flush()
                self._db.execute(COMMIT)
            self.commits = self.commits[0] + 1, self.commits[1] + time.perf_counter() - began

    def rollback(self) -> None:
        """Undo what was said since the last commit, users' rows too."""
        self._marks.clear()
        self._last_ack = None
        self._task_ids.clear()
        if self._db.in_transaction:
            with self._written():
                self._db.execute(ROLLBACK)

    def close(self) -> None:
        """Undo what is not committed, close the file and let go of its lock."""
        try:
            self._db.close()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    @contextlib.contextmanager
    def item(self, thread: int | None = None) -> Iterator[Transaction]:
        """One call of a function that takes `journal`: what it wrote is undone, that alone, if the body raises.

        It may be used on this thread, or on the one with this ident, which this one waits for.

        Raises:
            JournalLost: the transaction did not survive the call, whatever the body raised.
        """
        with self._written():
            self._db.execute(_SAVEPOINT)
        self._guard.admit(thread)
        try:
            yield self.transaction
            forks.end_child()
        except BaseException as error:
            forks.end_child(error)
            self._end_item(_UNDO, _RELEASE)
            raise
        else:
            self._end_item(_RELEASE)
        finally:
            self._guard.dismiss()

    def _end_item(self, *statements: str) -> None:
        trouble = self._guard.trouble
        if trouble is not None:
            raise self._lost(f"sqlite says: {trouble}", may_pass=database.may_pass(trouble)) from trouble
        if not self._db.in_transaction:
            raise self._lost("a function rolled back its whole transaction (OR ROLLBACK: write OR ABORT instead)")
        with self._written():
            for statement in statements:
                self._db.execute(statement)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Within the transaction, which begins if need be; sqlite's errors become JournalLost."""
        with self._explained():
            if not self._db.in_transaction:
                self._db.execute(BEGIN)
            yield

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Sqlite's errors become JournalLost."""
        try:
            yield
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise self._lost(
                    f"another program has kept it locked for {database.LOCKED_SECONDS:.0f} s (sqlite says: {error})",
                    "End that program, or have it write elsewhere",
                    may_pass=True,
                ) from error
            mend, may_pass = "Mend that (free space, if the disk is full)", database.may_pass(error)
            raise self._lost(f"sqlite says: {error}", mend, may_pass=may_pass) from error

    def _lost(self, why: str, mend: str = "Mend that", *, may_pass: bool = False) -> JournalLost:
        kind = JournalHeldUp if may_pass else JournalLost
        return kind(
            f"The journal {self.path} cannot be written: {why}. Nothing more is collected; nothing that was "
            f"acknowledged is lost. {mend}, and start again with the same journal."
        )

    # how it is written ------------------------------------------------------------------------------------------------

    def _task_id(self, task: str) -> int:
        found = self._task_ids.get(task)
        if found is None:
            self._db.execute("INSERT OR IGNORE INTO zmqpipeline_tasks (name) VALUES (?)", (task,))
            (found,) = self._db.execute("SELECT id FROM zmqpipeline_tasks WHERE name = ?", (task,)).fetchone()
            self._task_ids[task] = found
        return int(found)

    def _write_marks(self) -> None:
        for name, (numbers, keys) in self._marks.items():
            task = self._task_id(name)
            if self._retrying:
                self._drop_retried(task, chain(numbers, keys))
            spans = spans_of(numbers)
            self._write_done(task, spans)
            self.outboxes.settle(name, spans)
            self._write_keys(task, keys)
        self._marks.clear()
        if self._last_ack is not None:
            self._db.execute("UPDATE zmqpipeline_run SET ack_task = ?, ack_data = ?", self._last_ack)
            self._last_ack = None

    def _write_done(self, task: int, spans: Spans) -> None:
        """Add ranges, each merged with those that it touches: one that begins below it, any number that begin in it."""
        execute = self._db.execute
        for start, end in pairs(spans):
            stop = end
            below = execute(
                "SELECT start, stop FROM zmqpipeline_done WHERE task = ? AND start < ? ORDER BY start DESC LIMIT 1",
                (task, start),
            ).fetchone()
            within = execute(
                "SELECT start, stop FROM zmqpipeline_done WHERE task = ? AND start BETWEEN ? AND ?", (task, start, stop)
            ).fetchall()
            if within:
                execute("DELETE FROM zmqpipeline_done WHERE task = ? AND start BETWEEN ? AND ?", (task, start, stop))
                stop = max(stop, within[-1][1])
            if below is not None and below[1] >= start:
                execute(
                    "UPDATE zmqpipeline_done SET stop = ? WHERE task = ? AND start = ?",
                    (max(stop, below[1]), task, below[0]),
                )
            else:
                execute("INSERT INTO zmqpipeline_done VALUES (?, ?, ?)", (task, start, stop))

    def _write_keys(self, task: int, digests: Iterable[bytes]) -> None:
        self._db.executemany("INSERT OR IGNORE INTO zmqpipeline_keys VALUES (?, ?)", ((task, one) for one in digests))

    def _write_progress(self, known: TaskProgress, failed_keys: dict[int, bytes]) -> None:
        task = self._task_id(known.task)
        self._db.execute("UPDATE zmqpipeline_tasks SET repeated = ? WHERE id = ?", (known.repeated, task))
        self._write_done(task, known.collected)
        message = "It failed before this journal began, so that nothing more is known of it."
        self._db.executemany(
            "INSERT OR IGNORE INTO zmqpipeline_failed VALUES (?, ?, 0, 'unknown', '', ?, '', x'', ?, ?, 0)",
            ((task, one, message, failed_keys.get(one, b""), time.time()) for one in numbers_of(known.failed)),
        )

    def _write_failed(self, task: int, item: FailedItem) -> None:
        trouble = item.trouble
        self._db.execute(
            "INSERT OR REPLACE INTO zmqpipeline_failed VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
            (
                *(task, item.number, item.attempts, item.stage, trouble.error, trouble.message, trouble.traceback),
                *(item.payload, item.key, time.time()),
            ),
        )

    def _drop_retried(self, task: int, marks: Iterable[int | bytes]) -> None:
        """Delete the rows of items that were to be tried again, and were: found by number, or by key."""
        for mark in marks:
            number = self._retrying.pop((task, mark), None)
            if number is not None:
                self._db.execute("DELETE FROM zmqpipeline_failed WHERE task = ? AND number = ?", (task, number))
