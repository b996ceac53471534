"""What a collector has of one task: the numbers of its items as ranges, and the keys of those that have one.

A key is done once, whichever number its item had: a distributor that was started anew numbers the items of a task with
keys anew, beside what workers still hold from before. So a result is new only if neither its number nor its key is
known.

What a collector has of each task, and what it is told of a run that it has not begun: keys and ranges, in parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.dedup import DedupKeys, split_keys
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, spans_of
from zmqpipeline.protocol.messages import Keys, Ranges, TaskProgress

MAX_ATTEMPTS = 1 << 20
"""Of one item no more are believed, whatever a worker claims."""


class CollectedItems:
    """The items of one task, by what became of them here."""

    __slots__ = ("_attempts", "_redelivered", "collected", "duplicates", "failed", "keys", "pending", "repeated")

    def __init__(self) -> None:
        self.collected = RangeSet()
        self.failed = RangeSet()
        self.pending = RangeSet()
        """Those that wait for their call."""
        self.duplicates = 0
        self._attempts = 0
        """How many attempts after the first one were made of what ended here."""
        self._redelivered = 0
        """How many deliveries after the first one a distributor has counted, as it told last."""
        self.repeated = 0
        """How many of the collected numbers stand for a key that was collected under another number."""
        self.keys = DedupKeys()

    @property
    def done(self) -> int:
        """How many items are done, each key once."""
        return len(self.collected) + len(self.failed) - self.repeated

    @property
    def redelivered(self) -> int:
        """How many deliveries after the first one are known of: what is under way is in the distributor's count alone.

        Another distributor goes on from there.
        """
        return max(self._attempts, self._redelivered)

    def tried(self, attempt: int, items: int = 1) -> None:
        """So many items have ended in this attempt."""
        if attempt > 1:
            self._attempts += (min(attempt, MAX_ATTEMPTS) - 1) * items

    def learn_redelivered(self, told: int) -> None:
        """A distributor has counted so many."""
        self._redelivered = max(self._redelivered, told)

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
        new: dict[bytes, int] = {}
        for number, key in zip(numbers_of(spans), split_keys(keys), strict=True):
            if number not in fresh or key in new or self.keys.is_under_way(key):
                continue
            if key in self.keys.done:
                self.collected.add(number, number + 1)
                self.repeated += 1
            else:
                new[key] = number
        return spans_of(list(new.values()))

    def expect(self, spans: m.Spans, keys: Sequence[bytes]) -> None:
        """These wait for their call from now on."""
        self.pending.update(spans)
        if keys:
            for number, key in zip(numbers_of(spans), keys, strict=True):
                self.keys.open(number, key)

    def collect(self, spans: m.Spans) -> None:
        """The collector's function has returned for these."""
        self._settle(spans, failed=False)

    def fail(self, spans: m.Spans) -> None:
        """These are failed for good; their keys may come again."""
        self._settle(spans, failed=True)

    def _settle(self, spans: m.Spans, *, failed: bool) -> None:
        self.pending.difference_update(spans)
        (self.failed if failed else self.collected).update(spans)
        if self.keys:
            for number in numbers_of(spans):
                self.keys.close(number, failed=failed)

    def learn(self, known: m.TaskProgress) -> None:
        """Take over what somebody else knows to be done."""
        # whoever says that an item is both, or that more are repeated than collected, is not believed in that
        self.collected.update(self.failed.missing(known.collected))
        self.failed.update(self.collected.missing(known.failed))
        self.repeated = min(max(self.repeated, known.repeated), len(self.collected))
        self.duplicates = max(self.duplicates, known.duplicates)
        self.learn_redelivered(known.redelivered)

    def lacks(self, known: m.TaskProgress) -> bool:
        """Whether keys or ranges that were told before this have not arrived."""
        return self.keys.lacks(known) or len(self.collected) + len(self.failed) < known.told

    def told(self, name: str) -> m.TaskProgress:
        """All of it, for a distributor."""
        return m.TaskProgress(
            name,
            self.collected.spans(),
            self.failed.spans(),
            len(self.keys.done),
            len(self.keys.failed),
            self.repeated,
            redelivered=self.redelivered,
            duplicates=self.duplicates,
        )

    def check(self, name: str) -> None:
        """No number is in two of the sets; what waits by key waits by number."""
        assert not self.collected.common(self.failed.spans()), f"an item of {name} collected and failed"
        assert not self.pending.common(self.collected.spans()), f"a collected item of {name} is collected again"
        assert not self.pending.common(self.failed.spans()), f"a failed item of {name} is collected"
        self.keys.check(self.pending.__contains__)


class Gathered(dict[str, CollectedItems]):
    """By the names of the tasks."""

    told_run = ""
    """The run whose parts a distributor has told, if none is held yet."""

    def of(self, name: str) -> CollectedItems:
        """Of this task; nothing of one that is new."""
        progress = self.get(name)
        if progress is None:
            progress = self[name] = CollectedItems()
        return progress

    @property
    def done(self) -> int:
        """How many items are."""
        return sum(one.done for one in self.values())

    @property
    def failed(self) -> int:
        """How many of these failed."""
        return sum(len(one.failed) for one in self.values())

    def told(self) -> list[TaskProgress]:
        """All of it, for a distributor or a journal."""
        return [one.told(name) for name, one in self.items()]

    def learn_redelivered(self, progress: Iterable[TaskProgress]) -> None:
        """A distributor has counted so many of its deliveries."""
        for known in progress:
            if known.redelivered:
                self.of(known.task).learn_redelivered(known.redelivered)

    def keys_done(self) -> tuple[dict[str, set[bytes]], dict[str, dict[int, bytes]]]:
        """The keys by task: those that are collected, and those that failed, by their numbers."""
        done = {name: set(one.keys.done) for name, one in self.items() if one.keys.done}
        return done, {name: dict(one.keys.failed) for name, one in self.items() if one.keys.failed}

    def messages(self, run: str) -> Iterator[Keys]:
        """The keys of all tasks, for a distributor without a run."""
        for name, one in self.items():
            yield from one.keys.messages(run, name)

    def lacks(self, run: str, progress: Iterable[TaskProgress]) -> bool:
        """Whether parts of this run that were told before this have not arrived."""
        self._expect(run)
        return any(self.of(known.task).lacks(known) for known in progress)

    def learn(self, part: Keys | Ranges) -> None:
        """A part was told."""
        self._expect(part.run)
        if isinstance(part, Keys):
            self.of(part.task).keys.learn(part)
        else:
            self.of(part.task).learn(TaskProgress(part.task, part.collected, part.failed))

    def _expect(self, run: str) -> None:
        if run != self.told_run:
            self.told_run = run
            self.clear()
