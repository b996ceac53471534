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
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType
from typing import TypeAlias

from zmqpipeline.protocol.commands import Fetch
from zmqpipeline.protocol.data.ranges import RangeSet, merged, pairs
from zmqpipeline.protocol.events import Fetched
from zmqpipeline.protocol.messages import KEY_BYTES, Blobs, ErrorInfo, Outbox, Spans
from zmqpipeline.runtime.journal.groups import Groups
from zmqpipeline.runtime.journal.paced import Paced
from zmqpipeline.serialization.packed import Packed

PIECE_ITEMS = 1000
PIECE_BYTES = 256 * 1024
"""A row has at most so many items, and so many bytes unless it is a single one."""

_SAVEPOINT, _RELEASE, _UNDO = (f"{word} zmqpipeline_feed" for word in ("SAVEPOINT", "RELEASE", "ROLLBACK TO"))


_State: TypeAlias = tuple[int, int, list[bytes], int, int, int]


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
        "numbered",
        "piece",
        "roots",
        "settled",
        "waiting",
    )

    def __init__(self, name: str, key: int, row: tuple[int, int, int, int] = (0, 0, 0, 0)) -> None:
        """`key` stands for the task in the tables; `row` is that of `zmqpipeline_fed`, from `count` on."""
        self.name, self.key = name, key
        self.count, self.roots, self.closed, self.numbered = row[0], row[1], bool(row[2]), row[3]
        self.waiting = 0
        """How many bytes the items have that are not done."""
        self.settled, self.failed = RangeSet(), RangeSet()
        self.piece: list[bytes] = []
        """What is not written yet: the last items of `count`."""
        self.bytes = self.depth = 0
        self.is_new = False
        """Its row is to be written."""

    def state(self) -> _State:
        """What `restore` needs. The piece itself is kept: when it is written, another one takes its place."""
        return self.count, self.waiting, self.piece, len(self.piece), self.bytes, self.depth

    def restore(self, state: _State) -> None:
        """It is as it was; what was written since is undone with it."""
        self.count, self.waiting, self.piece, length, self.bytes, self.depth = state
        del self.piece[length:]


class Outboxes:
    """Those of one journal."""

    def __init__(
        self,
        db: sqlite3.Connection,
        task_key: Callable[[str], int],
        written: Callable[[], AbstractContextManager[None]],
        explained: Callable[[], AbstractContextManager[None]],
        groups: Groups,
    ) -> None:
        """`task_key` gives the number that stands for a task in the tables; what is `written` is so in a transaction.

        That, and `explained` for what is read, turn what sqlite raises into JournalLost. Savepoints are for the
        `groups`, too.
        """
        self._db = db
        self._written, self._explained = written, explained
        self._task_key, self._groups = task_key, groups
        self._boxes: dict[str, Box] = {}
        self._paced = Paced(db)
        self._pending: list[tuple[str, bytes, bytes, int, bytes]] = []
        self._pending_bytes = 0
        self._before: list[tuple[Box, _State]] | None = None
        """Within a savepoint: what each held when it began."""
        self._found: tuple[str, int, int, int] = ("", 0, 0, 0)
        """The piece whose depth was looked up last: its task, start and stop, and the depth."""

    def open(self, names: Iterable[str]) -> None:
        """Look up what there is for these tasks, within a transaction, and forget what was known."""
        self._pending.clear()
        self._pending_bytes, self._before, self._found = 0, None, ("", 0, 0, 0)
        self._boxes = {}
        self._paced.forget()
        fed = "SELECT count, roots, closed, numbered FROM zmqpipeline_fed WHERE task = ?"
        for name in names:
            key = self._task_key(name)
            row = self._db.execute(fed, (key,)).fetchone()
            box = self._boxes[name] = Box(name, key, row or (0, 0, 0, 0))
            box.waiting = self._paced.bytes_of(key)
            for start, stop in self._db.execute("SELECT start, stop FROM zmqpipeline_done WHERE task = ?", (key,)):
                box.settled.add(start, stop)
            failed = "SELECT number FROM zmqpipeline_failed WHERE task = ? AND NOT retrying"
            for (number,) in self._db.execute(failed, (key,)):
                box.settled.add(number, number + 1)
                box.failed.add(number, number + 1)
            pieces = "SELECT start, stop, length(payloads) FROM zmqpipeline_outbox WHERE task = ?"
            for start, stop, size in self._db.execute(pieces, (key,)):
                box.waiting += size if box.settled.missing((start, stop)) else 0

    def begin_rates(self, values: Mapping[str, Callable[[bytes], bytes]]) -> None:
        """A run begins or goes on: these tasks have a rate for each value, and this makes its digest of an item.

        The app may have been changed since. What waits without a number gets one if its task has no such rate any more;
        what has a number, of a task that had none, gets its value.
        """
        with self._written():
            for name, box in self._boxes.items():
                if name in values:
                    self._add_values(box, values[name])
                else:
                    self._number_all(box)

    def _number_all(self, box: Box) -> None:
        left = self._paced.count_of(box.key)
        while left:
            some = self._paced.take_first(box.key, PIECE_ITEMS, PIECE_BYTES)
            for depth, many in groupby(some, key=lambda one: one[0]):
                payloads = [payload for _, payload in many]
                self._insert(box, box.count - left, payloads, depth)
                left -= len(payloads)

    def _add_values(self, box: Box, value_of: Callable[[bytes], bytes]) -> None:
        without = self._db.execute(
            "SELECT start FROM zmqpipeline_outbox WHERE task = ? AND length(rate_values) != ? * (stop - start)",
            (box.key, KEY_BYTES),
        ).fetchall()
        for (start,) in without:
            stop, data = self._db.execute(
                "SELECT stop, payloads FROM zmqpipeline_outbox WHERE task = ? AND start = ?", (box.key, start)
            ).fetchone()
            made = b"".join([value_of(one) for one in Packed(stop - start, data)])
            self._db.execute(
                "UPDATE zmqpipeline_outbox SET rate_values = ? WHERE task = ? AND start = ?", (made, box.key, start)
            )
        numbered = box.count - self._paced.count_of(box.key)
        box.is_new = box.is_new or box.numbered != numbered
        box.numbered = numbered

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

    def give(self, name: str, payload: bytes, digest: bytes = b"", depth: int = 0, value: bytes = b"") -> None:
        """An item that the call which is under way gives; with a digest only if that is new. See `accept`.

        `value` is the digest of what its rate goes by, if there is such a rate.
        """
        self._pending.append((name, payload, digest, depth, value))
        self._pending_bytes += len(payload)
        if len(self._pending) >= PIECE_ITEMS or self._pending_bytes >= PIECE_BYTES:
            self.begin()
            self.place()

    def add(self, name: str, payload: bytes, digest: bytes = b"", depth: int = 0, value: bytes = b"") -> None:
        """The only item of a call that has returned."""
        box = self._boxes[name]
        if digest and not self._is_new(box, digest):
            return
        if value:
            with self._written():
                self._paced.add(box.key, value, payload, depth)
            box.count += 1
            box.waiting += len(payload)
            box.is_new = True
            return
        piece = box.piece
        if len(piece) >= PIECE_ITEMS or depth != box.depth or box.bytes + len(payload) > PIECE_BYTES:
            self._write(box)
            box.depth, piece = depth, box.piece
        piece.append(payload)
        box.bytes += len(payload)
        box.count += 1

    def begin(self) -> None:
        """A call is under way of which something is written before it has returned: in a savepoint from here on."""
        if self._before is not None:
            return
        self._groups.flush()
        with self._written():
            self._db.execute(_SAVEPOINT)
        self._before = [(box, box.state()) for box in self._boxes.values()]

    def promised(self, name: str) -> int:
        """How many items of this task have no number yet that are items in any case: without a key."""
        return sum(one[0] == name and not one[2] for one in self._pending)

    def place(self) -> None:
        """Give numbers to what the call which is under way has given so far; within its savepoint."""
        if self._pending:
            self._append()

    def accept(self) -> None:
        """The call has returned: what it gave counts."""
        self.place()
        if self._before is not None:
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
            for box, state in self._before:
                box.restore(state)
            self._groups.forget()
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
                row = (box.key, box.count, box.roots, box.closed, box.numbered)
                with self._written():
                    self._db.execute("INSERT OR REPLACE INTO zmqpipeline_fed VALUES (?, ?, ?, ?, ?)", row)

    def _write(self, box: Box) -> None:
        if not box.piece:
            return
        self._insert(box, box.count - len(box.piece), box.piece, box.depth)
        box.waiting += box.bytes
        box.piece, box.bytes, box.is_new = [], 0, True

    def _insert(self, box: Box, start: int, payloads: list[bytes], depth: int, values: bytes = b"") -> None:
        row = (box.key, start, start + len(payloads), depth, b"".join(payloads), values)
        with self._written():
            self._db.execute("INSERT INTO zmqpipeline_outbox VALUES (?, ?, ?, ?, ?, ?)", row)

    @property
    def is_unwritten(self) -> bool:
        """Whether a commit has something to write."""
        return any(box.piece or box.is_new for box in self._boxes.values())

    # reading ---------------------------------------------------------------------------------------------------------

    def fetch(self, command: Fetch) -> Fetched:
        """The items that are asked for, or those that follow them, as many as come in one piece or fit with it.

        With a rate for each value they may get their numbers by this: then it must not be told before the next commit.
        """
        if command.apart:
            return self._fetch_paced(command)
        with self._explained():
            return self._fetch(command)

    def _fetch_paced(self, command: Fetch) -> Fetched:
        """What has a number already comes as it did before; if there is none, those that are next get theirs."""
        box = self._boxes[command.task]
        if command.start < box.numbered:
            with self._explained():
                found = self._fetch(replace(command, stop=min(command.stop, box.numbered)))
            if found.spans:
                return found
        with self._written():
            most = min(command.stop - command.start, PIECE_ITEMS)
            chosen = self._paced.choose(box.key, most, command)
        start, values = box.numbered, chosen.values
        for depth, many in groupby(zip(chosen.payloads, chosen.depths, values, strict=True), key=lambda one: one[1]):
            some = list(many)
            self._insert(box, box.numbered, [one[0] for one in some], depth, b"".join([one[2] for one in some]))
            box.numbered, box.is_new = box.numbered + len(some), True
        spans = (start, box.numbered) if chosen.payloads else ()
        return Fetched(command.task, spans, chosen.payloads, b"".join(values), chosen.until)

    def _fetch(self, command: Fetch) -> Fetched:
        box = self._boxes[command.task]
        rows = self._db.execute(
            "SELECT start, stop, payloads, rate_values FROM zmqpipeline_outbox WHERE task = ? AND start > ? "
            "AND stop > ? ORDER BY start",
            (box.key, command.start - PIECE_ITEMS, command.start),
        )
        most, room = command.stop - command.start, command.max_bytes
        spans: list[int] = []
        found: list[Packed | list[bytes]] = []
        values = b""
        for first, end, data, digests in rows:
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
            low = KEY_BYTES * (spans[-2] - first)
            values += digests[low : low + KEY_BYTES * (spans[-1] - spans[-2])]
            most -= spans[-1] - spans[-2]
            room -= len(data)
            if spans[-1] < end:
                break
        rows.close()
        return Fetched(command.task, merged(spans), _joined(found), values)

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
