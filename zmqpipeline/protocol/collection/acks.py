"""The ACKs of a collector: how many there were, and what they carried, for distributors that have not heard them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zmqpipeline.protocol.data.collected import CollectedItems
from zmqpipeline.protocol.delivery.gates import AckLog, in_messages
from zmqpipeline.protocol.messages import Ack, AckNote, Outbox, Spans


class Acks:
    """Of one run; an ACK is an item that is done."""

    def __init__(self) -> None:
        """None so far."""
        self.count = 0
        self.newest = ("", b"")
        """Task and data of the newest ACK."""
        self.is_gated = False
        """A task has a gate: each ACK is told by itself."""
        self._log = AckLog()

    @property
    def kept_from(self) -> int:
        """As in Ack."""
        return self._log.oldest if self.is_gated else 0

    def remember(self, task: str, data: bytes) -> None:
        """What the newest ACK carried, which another process has sent."""
        self.newest = (task, data)
        if self.count:
            self._log.add(AckNote(task, self.count, self.count, data))

    def add(self, task: str, number: int, data: bytes, each: Sequence[tuple[int, bytes]]) -> list[AckNote]:
        """So many items are done; `each` as in Collected. What is to be told of each."""
        last, self.count = self.count, self.count + number
        self.newest = (task, data)
        notes = []
        for many, one in each or ((number, data),):
            notes.append(AckNote(task, last + 1, last + many, one))
            last += many
        for note in notes:
            self._log.add(note)
        return notes

    def after(self, number: int) -> list[AckNote]:
        """Those with a higher number, of those that are remembered."""
        return self._log.after(number)

    def messages(
        self,
        run: str,
        notes: list[AckNote],
        task: str,
        done: tuple[Spans, Spans],
        data: bytes,
        data_of: str,
        known: CollectedItems,
        queued: int,
        outboxes: list[Outbox],
        commits: tuple[int, float],
    ) -> Iterator[Ack]:
        """What a distributor is told: these of a task's items are collected, and failed; `known` is all of the task."""
        collected, failed = done
        counts = (known.duplicates, self.count, data, known.repeated, data_of)
        if not self.is_gated:
            yield Ack(run, task, collected, failed, *counts, [], 0, queued, outboxes, *commits, known.redelivered)
            return
        *parts, last = in_messages(notes)
        for part in parts:
            yield Ack(run, "", (), (), 0, self.count, b"", 0, "", part, self._log.oldest)
        rest = (queued, outboxes, *commits, known.redelivered)
        yield Ack(run, task, collected, failed, *counts, last, self._log.oldest, *rest)
