"""Packed items or results under consecutive numbers, kept as runs: what is common costs a list slice a batch.

A **run** is a range of numbers, one packed value for each, and a tag that all of them share. A thousand items that were
yielded, sent and acknowledged together are one run all the way, and nothing is done for each of them. What happens to a
part of a run cuts it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Generic, TypeVar

from zmqpipeline.protocol import credit
from zmqpipeline.protocol.data.ranges import pairs
from zmqpipeline.protocol.messages import Spans

Tag = TypeVar("Tag")

MERGE_ITEMS = 2000
"""A run grows to so many numbers when more with its tag follow; past that, cutting from its front would cost more."""


class Segment(Generic[Tag]):
    """The numbers from `start` up to, not including, `stop`; `payloads[i]` belongs to ``start + i``."""

    __slots__ = ("payloads", "size", "start", "stop", "tag")

    def __init__(self, start: int, payloads: list[bytes], tag: Tag, size: int | None = None) -> None:
        """`size`: how many bytes the payloads have, if that is known already."""
        self.start = start
        self.stop = start + len(payloads)
        self.payloads = payloads
        self.tag = tag
        self.size = sum(map(len, payloads)) if size is None else size


class SegmentMap(Generic[Tag]):
    """Disjoint runs, ascending."""

    __slots__ = ("_runs", "_starts", "count", "size")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._runs: list[Segment[Tag]] = []
        self.count = 0
        """How many numbers are in all of them."""
        self.size = 0
        """How many bytes their values have."""

    def __len__(self) -> int:
        """How many numbers are in all of them."""
        return self.count

    def __iter__(self) -> Iterator[Segment[Tag]]:
        return iter(self._runs)

    def __contains__(self, number: int) -> bool:
        return self.find(number) is not None

    def find(self, number: int) -> Segment[Tag] | None:
        """The run that holds this number."""
        at = bisect_right(self._starts, number) - 1
        return self._runs[at] if at >= 0 and number < self._runs[at].stop else None

    @property
    def runs(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def first(self) -> Segment[Tag] | None:
        """The lowest run."""
        return self._runs[0] if self._runs else None

    def add(self, start: int, payloads: list[bytes], tag: Tag, size: int | None = None) -> None:
        """Hold these, of which none is held; the list is kept, not copied. `size` is in bytes, if it is known."""
        if not payloads:
            return
        new = Segment(start, payloads, tag, size)
        self.count += len(payloads)
        self.size += new.size
        at = bisect_left(self._starts, start)
        if at:
            before = self._runs[at - 1]
            if before.stop == start and before.tag == tag and len(before.payloads) + len(payloads) <= MERGE_ITEMS:
                before.payloads += payloads
                before.stop += len(payloads)
                before.size += new.size
                return
        self._starts.insert(at, start)
        self._runs.insert(at, new)

    def touching(self, start: int, stop: int) -> list[Segment[Tag]]:
        """The runs that hold any of the numbers from `start` up to, not including, `stop`."""
        low, high = self._places(start, stop)
        return self._runs[low:high]

    def by_tag(self, spans: Spans) -> dict[Tag, tuple[list[int], list[bytes]]]:
        """What is held of these numbers: by tag, the numbers and their values, in the order of the spans."""
        found: dict[Tag, tuple[list[int], list[bytes]]] = {}
        for start, stop in pairs(spans):
            for run in self.touching(start, stop):
                numbers, payloads = found.setdefault(run.tag, ([], []))
                low, high = max(start, run.start), min(stop, run.stop)
                numbers += range(low, high)
                payloads += run.payloads[low - run.start : high - run.start]
        return found

    def cut(self, start: int, stop: int) -> list[Segment[Tag]]:
        """Take out what is held of the numbers from `start` up to, not including, `stop`; as runs, ascending."""
        low, high = self._places(start, stop)
        if low == high:
            return []
        parts = self._runs[low:high]
        first, last = parts[0], parts[-1]
        if low + 1 == high and first.start >= start and first.stop <= stop:
            # the whole of one, as it was added
            del self._runs[low], self._starts[low]
            self.count -= first.stop - first.start
            self.size -= first.size
            return parts
        rest: list[Segment[Tag]] = []
        if first.start < start:
            at = start - first.start
            rest.append(Segment(first.start, first.payloads[:at], first.tag))
            parts[0] = Segment(start, first.payloads[at:], first.tag)
        if last.stop > stop:
            within = parts[-1]
            at = stop - within.start
            rest.append(Segment(stop, within.payloads[at:], within.tag))
            parts[-1] = Segment(within.start, within.payloads[:at], within.tag)
        self._runs[low:high] = rest
        self._starts[low:high] = [one.start for one in rest]
        self.count -= sum(one.stop - one.start for one in parts)
        self.size -= sum(one.size for one in parts)
        return parts

    def take_first(self, count: int, max_bytes: int) -> list[Segment[Tag]]:
        """Take out the first `count` numbers, or as many of them as have `max_bytes`, but at least one; as runs."""
        if self.runs == 1 and (only := self._runs[0]) and len(only.payloads) <= count and only.size <= max_bytes:
            self.clear()
            return [only]
        parts: list[Segment[Tag]] = []
        items = total = 0
        while items < count and (first := self.first()) is not None:
            wanted = fit = min(count - items, len(first.payloads))
            if total + first.size > max_bytes:
                if parts and total + len(first.payloads[0]) > max_bytes:
                    break
                fit = credit.cut(list(map(len, first.payloads[:wanted])), max_bytes=max_bytes - total)
            for part in self.cut(first.start, first.start + fit):
                parts.append(part)
                items += len(part.payloads)
                total += part.size
            if fit < wanted:
                break
        return parts

    def _places(self, start: int, stop: int) -> tuple[int, int]:
        """Between which places of the list the runs are that touch this range."""
        low = bisect_right(self._starts, start)
        if low and self._runs[low - 1].stop > start:
            low -= 1
        return low, max(low, bisect_left(self._starts, stop)) if start < stop else low

    def spans(self) -> Spans:
        """All numbers, with neighbouring runs as one range."""
        flat: list[int] = []
        for run in self._runs:
            if flat and flat[-1] == run.start:
                flat[-1] = run.stop
            else:
                flat += (run.start, run.stop)
        return tuple(flat)

    def clear(self) -> None:
        """Hold nothing."""
        self._starts.clear()
        self._runs.clear()
        self.count = self.size = 0

    def check(self) -> None:
        """Runs are disjoint, ascending, not empty, and counted right."""
        end = 0
        for start, run in zip(self._starts, self._runs, strict=True):
            assert start == run.start >= end, "runs are not in order"
            assert run.stop - run.start == len(run.payloads) > 0, "a run with the wrong number of values"
            assert run.size == sum(map(len, run.payloads)), "the bytes of a run are wrong"
            end = run.stop
        assert self.count == sum(len(run.payloads) for run in self._runs), "the numbers in the runs are miscounted"
        assert self.size == sum(run.size for run in self._runs), "the bytes in the runs are miscounted"
