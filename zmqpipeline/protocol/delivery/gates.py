"""What gates are asked with: each ACK, in order, with its own data.

The law:

* A gate is asked before each item with one ACK, at first with none. As long as it says yes, it is asked with that ACK.
  When it says no, it is asked with the next one, once with each, until it says yes or there is no further one; then it
  waits. So what it says does not depend on how fast ACKs come, or how many of them come together.
* If any task has a gate, the collector is told so, and says of each ACK what it carried (`AckNote`). It remembers some,
  and tells a distributor that has not heard them: after a connection broke, or because it is a new one.
* What a gate has not been asked about is kept, up to a bound: then the oldest are dropped, and it is never asked with
  these. A collector that was started anew remembers the last ACK only, of which its journal or the distributor tells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from zmqpipeline.protocol.messages import AckNote

if TYPE_CHECKING:
    from zmqpipeline.protocol.delivery.task_state import TaskState

MAX_NOTES = 4096
MAX_BYTES = 4 * 1024 * 1024
"""The bounds of what is remembered of ACKs. Neighbours of one task with the same data, as none, are one note."""

NOTES_A_MESSAGE = 1000
BYTES_A_MESSAGE = 1024 * 1024
"""So many notes and bytes of their data travel in one message, or a single note."""


class AckLog:
    """ACKs in order, the oldest dropped where they are too many."""

    def __init__(self) -> None:
        """None so far."""
        self._notes: deque[AckNote] = deque()
        self._bytes = 0
        self.dropped = 0
        """How many ACKs were dropped."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._notes)

    @property
    def oldest(self) -> int:
        """The number of the oldest one, or 0."""
        return self._notes[0].first if self._notes else 0

    def add(self, note: AckNote) -> None:
        """One or more that come after all others."""
        last = self._notes[-1] if self._notes else None
        if last is not None and (last.task, last.last + 1, last.data) == (note.task, note.first, note.data):
            self._notes[-1] = AckNote(note.task, last.first, note.last, note.data)
            return
        self._notes.append(note)
        self._bytes += len(note.data)
        while len(self._notes) > MAX_NOTES or (self._bytes > MAX_BYTES and len(self._notes) > 1):
            gone = self._notes.popleft()
            self._bytes -= len(gone.data)
            self.dropped += gone.last - gone.first + 1

    def take(self) -> list[AckNote]:
        """All of them; none are left."""
        taken = list(self._notes)
        self._notes.clear()
        self._bytes = 0
        return taken

    def next(self) -> AckNote | None:
        """The oldest one alone, which is not here any more."""
        if not self._notes:
            return None
        first = self._notes[0]
        if first.first == first.last:
            self._bytes -= len(first.data)
            return self._notes.popleft()
        self._notes[0] = AckNote(first.task, first.first + 1, first.last, first.data)
        return AckNote(first.task, first.first, first.first, first.data)

    def after(self, number: int) -> list[AckNote]:
        """Those with a higher number."""
        return list(beyond(self._notes, number))


class Hearing:
    """How far a distributor has heard the ACKs of its run, and the order in which it takes them."""

    def __init__(self) -> None:
        """Nothing is heard yet."""
        self.last = AckNote("", 0, 0, b"")
        """The newest ACK of all that were heard without a gap that could be mended."""
        self._known = 0
        """The highest number that is known of."""

    @property
    def lacks_any(self) -> bool:
        """Whether the collector remembers some that were not heard."""
        return self._known > self.last.last

    def hear(self, notes: Sequence[AckNote], *, kept_from: int, newest: int, most: int, news: bool) -> list[AckNote]:
        """What is to be told to the gates now.

        `kept_from` is the oldest number that the collector remembers, `newest` its newest one. No note stands for more
        than `most` ACKs. `news`: the message brought an item that is done; so its ACK is new, whatever its number is,
        since a collector that was started anew may count less than the one before.
        """
        if any(not 0 < note.first <= note.last < note.first + most for note in notes):
            return []
        heard = self.last.last
        if news and notes and notes[-1].last <= heard:
            shift = heard + 1 - notes[0].first
            notes = [AckNote(note.task, note.first + shift, note.last + shift, note.data) for note in notes]
        fresh: list[AckNote] = []
        for note in beyond(notes, heard):
            if note.first > heard + 1 and 0 < kept_from <= heard + 1:
                break
            fresh.append(note)
            heard = note.last
        if fresh:
            last = fresh[-1]
            self.last = AckNote(last.task, last.last, last.last, last.data)
        self._known = max(newest, heard)
        return fresh


class Gates:
    """The gates of a distributor's tasks, and the ACKs that open them. `feed` is called for a task that may go on."""

    def __init__(self, tasks: dict[str, TaskState], feed: Callable[[TaskState], object]) -> None:
        """No ACK has come yet."""
        self.last_ack: tuple[str, int, bytes] = ("", 0, b"")
        """Task, count and packed data of the newest ACK."""
        self._tasks = tasks
        self._feed = feed
        self.exist = any(task.spec.has_gate for task in tasks.values())
        """Whether a task has one."""
        self._hearing = Hearing()

    @property
    def heard(self) -> int:
        """The number up to which each ACK was heard."""
        return self._hearing.last.last

    @property
    def lacks_acks(self) -> bool:
        """Whether gates wait for ACKs that the collector still has to tell of."""
        return self.exist and self._hearing.lacks_any

    def newest_for(self, task: TaskState) -> tuple[str, int, bytes]:
        """The newest ACK that the functions of this task may know of: behind a gate, of those that it is asked with."""
        last = self._hearing.last
        return (last.task, last.last, last.data) if task.spec.has_gate else self.last_ack

    def may_be_asked(self, task: TaskState) -> bool:
        """Whether there is an ACK that the gate of this task, which has just said no, was not asked with."""
        return bool(task.unasked) if task.spec.has_gate else task.asked_ack != self.last_ack

    def closed_for_good(self) -> list[TaskState]:
        """The tasks whose gates no ACK will open: all that goes on waits at a gate, nothing is out, no ACK is lost."""
        going_on = [task for task in self._tasks.values() if task.state != "waiting" and not task.is_over]
        is_closed = not self.lacks_acks and all(
            (task.gated or task.has_taken_all) and not task.ledger.unfinished for task in going_on
        )
        return [task for task in going_on if task.gated] if is_closed else []

    def acknowledged(self, task: str, count: int, data: bytes, *, news: bool) -> None:
        """The newest ACK so far, which may open gates.

        A collector that was started anew may count less than its forerunner, whose last ACKs were lost: if the ACK
        brings `news` all the same, the count goes on from ours, so that none comes twice.
        """
        if count <= self.last_ack[1]:
            if not news:
                return
            count = self.last_ack[1] + 1
        self._open((task, count, data))

    def told_last_ack(self, task: str, count: int, data: bytes) -> None:
        """What the collector says that its last ACK was: the ACK itself may have been lost, or its forerunner's."""
        if count >= self.last_ack[1] and (task, count, data) != self.last_ack:
            self._open((task, count, data))

    def _open(self, last_ack: tuple[str, int, bytes]) -> None:
        self.last_ack = last_ack
        for one in self._tasks.values():
            if one.gated and not one.spec.has_gate:
                one.gated = False
                self._feed(one)

    def hear(self, notes: Sequence[AckNote], kept_from: int, newest: int, *, news: bool) -> bool:
        """The collector tells of single ACKs; one that tells of none by itself is taken to have told of the newest.

        Returns whether it is now known that some are lost which it can tell of again.
        """
        if not self.exist:
            return False
        lacked = self.lacks_acks
        if not kept_from and self.last_ack[1] > self.heard:
            task, newest, data = self.last_ack
            notes = [AckNote(task, newest, newest, data)]
        done = sum(task.ledger.done for task in self._tasks.values())
        fresh = self._hearing.hear(notes, kept_from=kept_from, newest=newest, most=done, news=news)
        gated = [task for task in self._tasks.values() if task.spec.has_gate] if fresh else []
        for one in gated:
            for note in fresh:
                one.unasked.add(note)
        for one in gated:
            if one.gated:
                one.gated = False
                self._feed(one)
        return self.lacks_acks and not lacked


def beyond(notes: Iterable[AckNote], number: int) -> Iterator[AckNote]:
    """The ACKs of these notes whose number is higher."""
    for note in notes:
        if note.last > number:
            yield note if note.first > number else AckNote(note.task, number + 1, note.last, note.data)


def in_messages(notes: Iterable[AckNote]) -> Iterator[list[AckNote]]:
    """These notes in parts that a message has room for; at least one part, which may be empty."""
    part: list[AckNote] = []
    size = 0
    for note in notes:
        if part and (len(part) >= NOTES_A_MESSAGE or size + len(note.data) > BYTES_A_MESSAGE):
            yield part
            part, size = [], 0
        part.append(note)
        size += len(note.data)
    yield part
