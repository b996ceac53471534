"""The keys of one task's items: which are under way, done or failed, as digests of KEY_BYTES.

An item with a key is known by it: one that is under way or done is not sent again, however often the source yields it.
A number stands for the item between processes all the same, and a distributor that was started anew cannot know which
numbers its forerunner gave to which keys: so it numbers from a base of its own, and passes over by key what is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import numbers_of, spans_of

KEYS_A_MESSAGE = 2000
"""So many digests travel in one `Keys` message (32 KB)."""

NEW, UNDER_WAY, FAILED_BEFORE = "new", "under way or done", "failed before"
"""What `DedupKeys.judge` says of a key that the source yields."""


def split_keys(joined: bytes) -> list[bytes]:
    """The digests of a field of keys, one an item."""
    return [joined[at : at + m.KEY_BYTES] for at in range(0, len(joined), m.KEY_BYTES)]


class DedupKeys:
    """What one side knows of the keys of one task, the distributor or the collector; each tells the other."""

    __slots__ = ("_of", "_to_pass", "_under_way", "done", "failed")

    def __init__(self) -> None:
        self.done: set[bytes] = set()
        self.failed: dict[int, bytes] = {}
        self._of: dict[int, bytes] = {}
        self._under_way: set[bytes] = set()
        self._to_pass: Counter[bytes] = Counter()

    def __bool__(self) -> bool:
        """Whether any item that is under way has a key."""
        return bool(self._of)

    def judge(self, key: bytes) -> str:
        """What to do with an item that the source yields; once for each time that it yields it.

        A key that failed may be yielded again. But a source that begins anew yields first what has failed already: as
        often as a key failed before, it is passed over.
        """
        if key in self.done or key in self._under_way:
            return UNDER_WAY
        if self._to_pass.get(key):
            self._to_pass[key] -= 1
            return FAILED_BEFORE
        return NEW

    def open(self, number: int, key: bytes) -> None:
        """The item with this key has this number."""
        self._of[number] = key
        self._under_way.add(key)

    def close(self, number: int, *, failed: bool) -> None:
        """The item is done, or failed for good."""
        key = self._of.pop(number, None)
        if key is not None:
            self._under_way.discard(key)
            if failed:
                self.failed[number] = key
            else:
                self.done.add(key)

    def forget(self, number: int) -> None:
        """The item was dropped before anything became of it."""
        key = self._of.pop(number, None)
        if key is not None:
            self._under_way.discard(key)

    def of(self, number: int) -> bytes:
        """The key of an item that is under way, or b""."""
        return self._of.get(number, b"")

    def is_under_way(self, key: bytes) -> bool:
        """Whether an item with this key is neither done nor failed yet."""
        return key in self._under_way

    def joined(self, spans: m.Spans) -> bytes:
        """The keys of these items, as they travel; b"" if they have none."""
        return b"".join([self._of[number] for number in numbers_of(spans)]) if self._of else b""

    def learn(self, keys: m.Keys) -> None:
        """Take over some of what a collector holds."""
        self.done.update(split_keys(keys.keys))
        self.failed.update(zip(numbers_of(keys.failed), split_keys(keys.failed_keys), strict=True))

    def messages(self, run: str, task: str) -> Iterator[m.Keys]:
        """All digests of finished items, in messages of a bounded size."""
        digests, numbers = list(self.done), sorted(self.failed)
        for at in range(0, max(len(digests), len(numbers)), KEYS_A_MESSAGE):
            part = numbers[at : at + KEYS_A_MESSAGE]
            joined = b"".join(self.failed[number] for number in part)
            yield m.Keys(run, task, b"".join(digests[at : at + KEYS_A_MESSAGE]), spans_of(part), joined)

    def lacks(self, known: m.TaskProgress) -> bool:
        """Whether keys that belong to this progress have not arrived."""
        return len(self.done) < known.keys or len(self.failed) < known.failed_keys

    def take_over(self) -> None:
        """An earlier distributor's run goes on, from what was learnt."""
        self._to_pass = Counter(self.failed.values())

    def check(self, is_under_way: Callable[[int], bool]) -> None:
        """Only the keys of items that are under way are counted so."""
        assert all(map(is_under_way, self._of)), "a key of an item that is nowhere"
        assert set(self._of.values()) == self._under_way, "the keys under way are miscounted"
        assert len(self._of) == len(self._under_way), "a key is under way twice"
        assert not self.done & self._under_way, "a done key is under way"
