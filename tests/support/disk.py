"""The simulated journal: what outlives a collector's process, written in one step with the collector's own effects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.collected import CollectedItems
from zmqpipeline.protocol.data.dedup import split_keys
from zmqpipeline.protocol.data.ranges import spans_of


class Disk:
    """One journal file."""

    def __init__(self) -> None:
        self.run = ""
        self.metadata = b""
        self.tasks: dict[str, CollectedItems] = {}
        self.rows: Counter[tuple[str, int]] = Counter()
        """What the collector's function has written through the journal's own transaction: a row for each item."""
        self.ack: tuple[str, bytes] = ("", b"")
        """Task and data of the last ACK."""
        self.finish: c.CallFinished | None = None
        """Every item is done, and what became of them."""
        self.reports = 0
        """What the `finished` function has written through the journal's own transaction: one row a call."""

    def restored(self) -> e.Restored | None:
        """What a collector that opens it is told."""
        if not self.run:
            return None
        return e.Restored(
            self.run,
            self.metadata,
            [one.told(name) for name, one in self.tasks.items()],
            {name: set(one.keys.done) for name, one in self.tasks.items()},
            {name: dict(one.keys.failed) for name, one in self.tasks.items()},
            self.reports > 0,
            bool(self.finish and self.finish.ok),
            list(self.finish.counts) if self.finish else [],
            *self.ack,
            over=self.finish is not None,
        )

    def begin(self, command: c.SetRun) -> None:
        """A run begins, or is told by a distributor."""
        if command.restored:
            return
        self.run, self.metadata = command.run, command.metadata
        self.ack = (command.ack_task, command.ack_data)
        for known in command.progress:
            self.task(known.task).learn(known)
        for name, keys in command.keys.items():
            self.task(name).keys.done |= keys
        for name, failed in command.failed_keys.items():
            self.task(name).keys.failed |= failed

    def task(self, name: str) -> CollectedItems:
        """What it holds of one task."""
        return self.tasks.setdefault(name, CollectedItems())

    def collected(
        self, name: str, numbers: Sequence[int], keys: bytes, data: bytes, rows: Sequence[tuple[str, int]]
    ) -> None:
        """Mark these, which are acknowledged with this data, and keep their rows: one transaction."""
        self.rows.update(rows)
        if numbers:
            self.ack = (name, data)
        one = self.task(name)
        one.expect(spans_of(numbers), split_keys(keys))
        one.collect(spans_of(numbers))

    def failed(self, items: Sequence[m.FailedItem]) -> None:
        """Mark these."""
        for item in items:
            self.ack = (item.task, b"")
            one = self.task(item.task)
            one.expect((item.number, item.number + 1), [item.key] if item.key else [])
            one.fail((item.number, item.number + 1))
