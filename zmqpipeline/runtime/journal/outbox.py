"""The outboxes of a journal: what results have given to other tasks, until it is done.

Items are written in pieces, many packed values end to end in one row, and a row is deleted when all of its items are
collected. One with an item that failed stays: that may be sent again (`dead retry`).

What one result gives is `pending` until its call has returned; more than fits into a piece is written before that,
within a savepoint. So a call that raises leaves nothing, however much it gave before, and nothing is kept in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType

from zmqpipeline.protocol.commands import Fetch
from zmqpipeline.protocol.data.ranges import RangeSet, merged, pairs
from zmqpipeline.protocol.events import Fetched
from zmqpipeline.protocol.messages import Blobs, ErrorInfo, Outbox, Spans
from zmqpipeline.serialization.packed import Packed

PIECE_ITEMS = 1000
PIECE_BYTES = 256 * 1024
"""A row has at most so many items, and so many bytes unless it is a single one."""

_SAVEPOINT, _RELEASE, _UNDO = (f"{word} zmqpipeline_feed" for word in ("SAVEPOINT", "RELEASE", "ROLLBACK TO"))


class Box:
    """What there is for one fed task."""

    __slots__ = (
        "bytes",
        "closed",
        "count",
        "depth",
        "failed",
        "is_new",
        "key",
        "name",
        "piece",
        "roots",
        "settled",
        "waiting",
    )

    def __init__(self, name: str, key: int, row: tuple[int, int, int] = (0, 0, 0)) -> None:
        """`key` stands for the task in the tables; `row` is how many items it has, how many first ones, and if all."""
        self.name, self.key = name, key
        self.count, self.roots, self.closed = row[0], row[1], bool(row[2])
        self.waiting = 0
        """How many bytes the items have that are not done."""
        self.settled, self.failed = RangeSet(), RangeSet()
        self.piece: list[bytes] = []
        """What is not written yet: the last items of `count`."""
        self.bytes = self.depth = 0
        self.is_new = False
        """Its row is to be written."""


class Outboxes:
    """Those of one journal."""

    def __init__(
        self,
        db: sqlite3.Connection,
        task_key: Callable[[str], int],
        written: Callable[[], AbstractContextManager[None]],
        explained: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """`task_key` gives the number that stands for a task in the tables; what is `written` is so in a transaction.

        That, and `explained` for what is read, turn what sqlite raises into JournalLost.
        """
        self._db = db
        self._written, self._explained = written, explained
        self._task_key = task_key
        self._boxes: dict[str, Box] = {}
        self._pending: list[tuple[str, bytes, bytes, int]] = []
        self._pending_bytes = 0
        self._before: list[tuple[Box, int, int]] | None = None
        """Within a savepoint: what each held when it began."""
        self._found: tuple[str, int, int, int] = ("", 0, 0, 0)
        """The piece whose depth was looked up last: its task, start and stop, and the depth."""

    def open(self, names: Iterable[str]) -> None:
        """Look up what there is for these tasks, within a transaction, and forget what was known."""
        self._pending.clear()
        self._pending_bytes, self._before, self._found = 0, None, ("", 0, 0, 0)
        self._boxes = {}
        for name in names:
            key = self._task_key(name)
            row = self._db.execute("SELECT count, roots, closed FROM zmqpipeline_fed WHERE task = ?", (key,)).fetchone()
            box = self._boxes[name] = Box(name, key, row or (0, 0, 0))
            for start, stop in self._db.execute("SELECT start, stop FROM zmqpipeline_done WHERE task = ?", (key,)):
                box.settled.add(start, stop)
            failed = "SELECT number FROM zmqpipeline_failed WHERE task = ? AND NOT retrying"
            for (number,) in self._db.execute(failed, (key,)):
                box.settled.add(number, number + 1)
                box.failed.add(number, number + 1)
            pieces = "SELECT start, stop, length(payloads) FROM zmqpipeline_outbox WHERE task = ?"
            for start, stop, size in self._db.execute(pieces, (key,)):
                box.waiting += size if box.settled.missing((start, stop)) else 0

    def __bool__(self) -> bool:
        """Whether any task is fed."""
        return bool(self._boxes)

    def box(self, name: str) -> Box:
        """That of this task."""
        return self._boxes[name]

    def told(self, rooted: Collection[str], troubles: Mapping[str, ErrorInfo] = MappingProxyType({})) -> list[Outbox]:
        """What a distributor is told, after a commit.

        The `rooted` tasks have first items of their own; `troubles` are what has ended some of these.
        """
        told = []
        for name, box in self._boxes.items():
            trouble = troubles.get(name)
            closed = box.closed or name not in rooted or trouble is not None
            told.append(Outbox(name, box.count, box.waiting, closed, trouble))
        return told

    # giving ----------------------------------------------------------------------------------------------------------

    def give(self, name: str, payload: bytes, digest: bytes = b"", depth: int = 0) -> None:
        """An item that the call which is under way gives; with a digest only if that is new. See `accept`."""
        self._pending.append((name, payload, digest, depth))
        self._pending_bytes += len(payload)
        if len(self._pending) >= PIECE_ITEMS or self._pending_bytes >= PIECE_BYTES:
            if self._before is None:
                self.flush()
                with self._written():
                    self._db.execute(_SAVEPOINT)
                self._before = [(box, box.count, box.waiting) for box in self._boxes.values()]
            self._append()

    def add(self, name: str, payload: bytes, digest: bytes = b"", depth: int = 0) -> None:
        """The only item of a call that has returned."""
        box = self._boxes[name]
        if digest and not self._is_new(box, digest):
            return
        piece = box.piece
        if len(piece) >= PIECE_ITEMS or depth != box.depth or box.bytes + len(payload) > PIECE_BYTES:
            self._write(box)
            box.depth, piece = depth, box.piece
        piece.append(payload)
        box.bytes += len(payload)
        box.count += 1

    def accept(self) -> None:
        """The call has returned: what it gave counts."""
        if self._pending:
            self._append()
        if self._before is not None:
            self.flush()
            with self._written():
                self._db.execute(_RELEASE)
            self._before = None

    def undo(self) -> None:
        """The call has raised: what it gave is nothing."""
        self._pending.clear()
        self._pending_bytes = 0
        if self._before is not None:
            with self._written():
                self._db.execute(_UNDO)
                self._db.execute(_RELEASE)
            for box, count, waiting in self._before:
                box.count, box.waiting = count, waiting
                box.piece, box.bytes = [], 0
            self._before = None

    def note_roots(self, name: str, count: int, *, closed: bool) -> None:
        """So many more of its own first items were given; all of them, if it is `closed`."""
        box = self._boxes[name]
        box.roots += count
        box.closed = box.closed or closed
        box.is_new = True

    def _append(self) -> None:
        for one in self._pending:
            self.add(*one)
        self._pending.clear()
        self._pending_bytes = 0

    def _is_new(self, box: Box, digest: bytes) -> bool:
        with self._written():
            added = self._db.execute("INSERT OR IGNORE INTO zmqpipeline_fed_keys VALUES (?, ?)", (box.key, digest))
        return added.rowcount == 1

    def flush(self) -> None:
        """Write what is not written, and how many there are."""
        for box in self._boxes.values():
            if box.piece:
                self._write(box)
            if box.is_new:
                box.is_new = False
                row = (box.key, box.count, box.roots, box.closed)
                with self._written():
                    self._db.execute("INSERT OR REPLACE INTO zmqpipeline_fed VALUES (?, ?, ?, ?)", row)

    def _write(self, box: Box) -> None:
        if not box.piece:
            return
        row = (box.key, box.count - len(box.piece), box.count, box.depth, b"".join(box.piece))
        with self._written():
            self._db.execute("INSERT INTO zmqpipeline_outbox VALUES (?, ?, ?, ?, ?)", row)
        box.waiting += box.bytes
        box.piece, box.bytes, box.is_new = [], 0, True

    @property
    def is_unwritten(self) -> bool:
        """Whether a commit has something to write."""
        return any(box.piece or box.is_new for box in self._boxes.values())

    # reading ---------------------------------------------------------------------------------------------------------

    def fetch(self, command: Fetch) -> Fetched:
        """The items that are asked for, or those that follow them, as many as come in one piece or fit with it."""
        with self._explained():
            return self._fetch(command)

    def _fetch(self, command: Fetch) -> Fetched:
        box = self._boxes[command.task]
        rows = self._db.execute(
            "SELECT start, stop, payloads FROM zmqpipeline_outbox WHERE task = ? AND start > ? AND stop > ? "
            "ORDER BY start",
            (box.key, command.start - PIECE_ITEMS, command.start),
        )
        most, room = command.stop - command.start, command.max_bytes
        spans: list[int] = []
        found: list[Packed | list[bytes]] = []
        for first, end, data in rows:
            is_whole = end - first <= most and len(data) <= room and first >= command.start
            if (found and not is_whole) or first >= box.count or most <= 0:
                break
            if is_whole:
                found.append(Packed(end - first, data))
                spans += (first, end)
            else:
                begin = max(first, command.start)
                some = Packed(end - first, data)[begin - first :]
                some = some[: cut(some, most, room)]
                found.append(some)
                spans += (begin, begin + len(some))
            most -= spans[-1] - spans[-2]
            room -= len(data)
            if spans[-1] < end:
                break
        rows.close()
        return Fetched(command.task, merged(spans), _joined(found))

    def depth_of(self, name: str, number: int) -> int:
        """How many results led to this item of a fed task."""
        task, start, stop, depth = self._found
        if task == name and start <= number < stop:
            return depth
        with self._explained():
            row = self._db.execute(
                "SELECT start, stop, depth FROM zmqpipeline_outbox WHERE task = ? AND start <= ? "
                "ORDER BY start DESC LIMIT 1",
                (self._boxes[name].key, number),
            ).fetchone()
        assert row is not None, f"{name} has no item {number}"
        self._found = (name, *row)
        return int(row[2])

    # done ------------------------------------------------------------------------------------------------------------

    def settle(self, name: str, spans: Spans, *, failed: bool = False) -> None:
        """These are collected, or have failed for good: within a transaction, a piece that is done is deleted."""
        box = self._boxes.get(name)
        if box is None:
            return
        if failed:
            box.failed.update(spans)
        else:
            box.failed.difference_update(spans)
        for start, stop in pairs(box.settled.missing(spans)):
            box.settled.add(start, stop)
            pieces = self._db.execute(
                "SELECT start, stop, length(payloads) FROM zmqpipeline_outbox WHERE task = ? AND start > ? "
                "AND start < ? AND stop > ?",
                (box.key, start - PIECE_ITEMS, stop, start),
            ).fetchall()
            for first, end, size in pieces:
                if not box.settled.missing((first, end)):
                    box.waiting -= size
                    if not box.failed.common((first, end)):
                        self._db.execute(
                            "DELETE FROM zmqpipeline_outbox WHERE task = ? AND start = ?", (box.key, first)
                        )


def cut(payloads: list[bytes], most: int, room: int) -> int:
    """How many of the first of these are at most `most`, and have at most so many bytes; at least one."""
    for index, one in enumerate(payloads[:most]):
        room -= len(one)
        if room < 0 and index:
            return index
    return max(1, min(most, len(payloads)))


def _joined(found: list[Packed | list[bytes]]) -> Blobs:
    """Pieces that are whole need not be opened."""
    if all(type(one) is Packed for one in found):
        whole = [one for one in found if type(one) is Packed]
        return Packed(sum(one.size for one in whole), b"".join([one.data for one in whole]))
    return [payload for one in found for payload in one]
