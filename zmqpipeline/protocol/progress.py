"""What a collector has of one task: the numbers of its items as ranges, and the keys of those that have one.

A key is done once, whichever number its item had: a distributor that was started anew numbers the items of a task with
keys anew, beside what workers still hold from before. So a result is new only if neither its number nor its key is
known.
"""

from __future__ import annotations

from collections.abc import Sequence

from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.keys import split_keys
from zmqpipeline.protocol.seqset import SeqSet, numbers_of, spans_of


class Progress:
    """The items of one task, by what became of them here."""

    __slots__ = (
        "collected", "duplicates", "failed", "failed_keys", "key_of", "keys", "pending", "pending_keys", "repeated",
    )  # fmt: skip

    def __init__(self) -> None:
        self.collected = SeqSet()
        self.failed = SeqSet()
        self.pending = SeqSet()
        """Those that wait for their call."""
        self.duplicates = 0
        self.repeated = 0
        """How many of the collected numbers stand for a key that was collected under another number."""
        self.keys: set[bytes] = set()
        self.failed_keys: dict[int, bytes] = {}
        self.key_of: dict[int, bytes] = {}
        self.pending_keys: set[bytes] = set()

    @property
    def done(self) -> int:
        """How many items are done, each key once."""
        return len(self.collected) + len(self.failed) - self.repeated

    def unseen(self, spans: m.Spans) -> m.Spans:
        """Those numbers that are neither done nor wait."""
        return self.pending.missing(self.failed.missing(self.collected.missing(spans)))

    def new_of(self, spans: m.Spans, keys: bytes) -> m.Spans:
        """Of these results, those to be collected.

        A number whose key is done is done, too; one whose key waits under another number is not taken now: it comes
        again, when the other one is collected or failed.
        """
        unseen = self.unseen(spans)
        if not keys:
            return unseen
        fresh = set(numbers_of(unseen))
        new: list[int] = []
        waiting = set(self.pending_keys)
        for number, key in zip(numbers_of(spans), split_keys(keys), strict=True):
            if number not in fresh or key in waiting:
                continue
            if key in self.keys:
                self.collected.add(number, number + 1)
                self.repeated += 1
            else:
                new.append(number)
                waiting.add(key)
        return spans_of(new)

    def expect(self, spans: m.Spans, keys: Sequence[bytes]) -> None:
        """These wait for their call from now on."""
        self.pending.update(spans)
        if keys:
            self.key_of.update(zip(numbers_of(spans), keys, strict=True))
            self.pending_keys.update(keys)

    def collect(self, spans: m.Spans) -> None:
        """The collector's function has returned for these."""
        self.pending.difference_update(spans)
        self.collected.update(spans)
        if self.key_of:
            self.keys.update(key for _, key in self._settle(spans))

    def fail(self, spans: m.Spans) -> None:
        """These are failed for good; their keys may come again."""
        self.pending.difference_update(spans)
        self.failed.update(spans)
        if self.key_of:
            self.failed_keys.update(self._settle(spans))

    def _settle(self, spans: m.Spans) -> list[tuple[int, bytes]]:
        found = [(number, self.key_of.pop(number)) for number in numbers_of(spans) if number in self.key_of]
        self.pending_keys.difference_update(key for _, key in found)
        return found

    def learn(self, known: m.TaskProgress) -> None:
        """Take over what somebody else knows to be done."""
        # whoever says that an item is both, or that more are repeated than collected, is not believed in that
        self.collected.update(self.failed.missing(known.collected))
        self.failed.update(self.collected.missing(known.failed))
        self.repeated = min(max(self.repeated, known.repeated), len(self.collected))

    def learn_keys(self, keys: m.Keys) -> None:
        """Take over some keys of what is done."""
        self.keys.update(split_keys(keys.keys))
        self.failed_keys.update(zip(numbers_of(keys.failed), split_keys(keys.failed_keys), strict=True))

    def lacks_keys_of(self, known: m.TaskProgress) -> bool:
        """Whether keys that belong to it have not arrived."""
        return len(self.keys) < known.keys or len(self.failed_keys) < known.failed_keys

    def told(self, name: str) -> m.TaskProgress:
        """All of it, for a distributor."""
        return m.TaskProgress(
            name,
            self.collected.spans(),
            self.failed.spans(),
            len(self.keys),
            len(self.failed_keys),
            self.repeated,
        )

    def check(self, name: str) -> None:
        """No number is in two of the sets; what waits by key waits by number."""
        assert not self.collected.common(self.failed.spans()), f"an item of {name} collected and failed"
        assert not self.pending.common(self.collected.spans()), f"a collected item of {name} is collected again"
        assert not self.pending.common(self.failed.spans()), f"a failed item of {name} is collected"
        assert set(self.key_of.values()) == self.pending_keys, f"the waiting keys of {name} are miscounted"
        assert all(number in self.pending for number in self.key_of), f"a key of {name} waits without its item"
        assert len(self.key_of) == len(self.pending_keys), f"a key of {name} waits twice"
        assert not self.keys & self.pending_keys, f"a collected key of {name} is collected again"
