"""A set of item numbers, kept as ranges: a million collected items in order cost two integers.

Adding and asking are a bisection over the ranges; neighbours merge. Ranges are half-open. The idea is that of the
received-packet ranges of QUIC (RFC 9000, section 13.2.3).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import lt

from zmqpipeline.protocol.messages import Spans

_MANY = 32

MAX_RANGES = 100_000
"""So many ranges are told in answer to a peer's question; a worker holds far fewer items."""


def spans_of(numbers: Sequence[int]) -> Spans:
    """The spans of these numbers, which may come in any order, and more than once."""
    if not numbers:
        return ()
    if type(numbers) is range and numbers.step == 1:
        return (numbers.start, numbers.stop)
    first, last = numbers[0], numbers[-1]
    # One thread answers in order, so that most batches are one range: comparing with it runs at the speed of C.
    if last - first + 1 == len(numbers) and list(numbers) == list(range(first, last + 1)):
        return (first, last + 1)
    flat: list[int] = []
    end = -1
    for number in sorted(set(numbers)):
        if number == end:
            flat[-1] = end = number + 1
        else:
            end = number + 1
            flat += (number, end)
    return tuple(flat)


def numbers_of(spans: Spans) -> list[int]:
    """Every number in these spans, ascending."""
    if len(spans) == 2:
        return list(range(spans[0], spans[1]))
    return [number for start, stop in pairs(spans) for number in range(start, stop)]


def sequence_of(spans: Spans) -> Sequence[int]:
    """The same for who only reads them: a single range costs nothing."""
    return range(spans[0], spans[1]) if len(spans) == 2 else numbers_of(spans)


def pairs(spans: Spans) -> Iterator[tuple[int, int]]:
    """The ranges of these spans, as (start, stop)."""
    flat = iter(spans)
    return zip(flat, flat, strict=True)


def split_spans(spans: Spans, count: int) -> tuple[Spans, Spans]:
    """The first `count` numbers of these spans, and the others."""
    for at in range(0, len(spans), 2):
        start, stop = spans[at], spans[at + 1]
        if count < stop - start:
            head = (start, start + count) if count else ()
            return (*spans[:at], *head), (start + count, *spans[at + 1 :])
        count -= stop - start
    return spans, ()


def size(spans: Spans) -> int:
    """How many numbers these spans hold."""
    return spans[1] - spans[0] if len(spans) == 2 else sum(spans[1::2]) - sum(spans[0::2])


def first_of(spans: Spans) -> Spans:
    """These spans, if they have at most MAX_RANGES ranges, else the first ones: as many as one message can tell."""
    return spans[: 2 * MAX_RANGES]


class RangeSet:
    """A set of non-negative integers as sorted ranges.

    >>> s = RangeSet((0, 3)); s.add(5, 7); s.add(3, 5); s.spans()
    (0, 7)
    """

    __slots__ = ("_count", "_starts", "_stops")

    def __init__(self, spans: Spans = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        self._count = 0
        if len(spans) > _MANY:
            starts, stops = spans[0::2], spans[1::2]
            # as they come from messages, if no two of them touch: millions of them take no step each
            if all(map(lt, starts, stops)) and all(map(lt, stops, starts[1:])):
                self._starts, self._stops = list(starts), list(stops)
                self._count = sum(stops) - sum(starts)
                return
        for start, stop in pairs(spans):
            self.add(start, stop)

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        i = bisect_right(self._starts, number) - 1
        return i >= 0 and number < self._stops[i]

    def end_of(self, number: int) -> int:
        """The first number from this one on that is not in the set."""
        i = bisect_right(self._starts, number) - 1
        return max(number, self._stops[i]) if i >= 0 else number

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self.spans() == other.spans()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RangeSet({self.spans()!r})"

    def spans(self) -> Spans:
        """All ranges, flattened."""
        return tuple(value for pair in zip(self._starts, self._stops, strict=True) for value in pair)

    def add(self, start: int, stop: int) -> None:
        """Add the numbers from `start` up to, not including, `stop`."""
        if start >= stop:
            return
        stops = self._stops
        if not stops or start > stops[-1]:
            # as a rule they come in order
            self._starts.append(start)
            stops.append(stop)
            self._count += stop - start
            return
        if start == stops[-1]:
            stops[-1] = stop
            self._count += stop - start
            return
        low = bisect_left(stops, start)
        high = bisect_right(self._starts, stop)
        gone = sum(self._stops[low:high]) - sum(self._starts[low:high])
        if low < high:
            start = min(start, self._starts[low])
            stop = max(stop, self._stops[high - 1])
        self._starts[low:high] = [start]
        self._stops[low:high] = [stop]
        self._count += stop - start - gone

    def update(self, spans: Spans) -> None:
        """Add every range of these spans."""
        if len(spans) == 2:
            self.add(spans[0], spans[1])
            return
        for start, stop in pairs(spans):
            self.add(start, stop)

    def discard(self, start: int, stop: int) -> None:
        """Take out the numbers from `start` up to, not including, `stop`, as far as they are in."""
        low = bisect_right(self._stops, start)
        high = bisect_left(self._starts, stop)
        if low >= high or start >= stop:
            return
        if high - low == 1 and self._starts[low] == start and self._stops[low] == stop:
            del self._starts[low], self._stops[low]
            self._count -= stop - start
            return
        left, right = self._starts[low], self._stops[high - 1]
        gone = sum(self._stops[low:high]) - sum(self._starts[low:high])
        starts = ([left] if left < start else []) + ([stop] if stop < right else [])
        stops = ([start] if left < start else []) + ([right] if stop < right else [])
        self._starts[low:high] = starts
        self._stops[low:high] = stops
        self._count -= gone - (sum(stops) - sum(starts))

    def difference_update(self, spans: Spans) -> None:
        """Take out every range of these spans."""
        if len(spans) == 2:
            self.discard(spans[0], spans[1])
            return
        for start, stop in pairs(spans):
            self.discard(start, stop)

    def missing(self, spans: Spans) -> Spans:
        """Those of `spans` that are not in this set."""
        if spans and spans[0] < spans[1] and (not self._stops or spans[0] >= self._stops[-1]):
            # newer than all that is in it, as a rule
            return spans
        flat: list[int] = []
        for first, stop in pairs(spans):
            start, i = first, bisect_right(self._stops, first)
            while start < stop:
                if i == len(self._starts) or self._starts[i] >= stop:
                    flat += (start, stop)
                    break
                if start < self._starts[i]:
                    flat += (start, self._starts[i])
                start = self._stops[i]
                i += 1
        return tuple(flat)

    def common(self, spans: Spans) -> Spans:
        """Those of `spans` that are in this set."""
        if self._starts and len(spans) == 2 and self._starts[0] <= spans[0] and spans[1] <= self._stops[0]:
            return spans
        flat: list[int] = []
        for start, stop in pairs(spans):
            i = bisect_right(self._stops, start)
            while i < len(self._starts) and self._starts[i] < stop:
                flat += (max(start, self._starts[i]), min(stop, self._stops[i]))
                i += 1
        return tuple(flat)


def merged(ranges: list[int]) -> Spans:
    """Ascending ranges as spans, with neighbours as one."""
    return (ranges[0], ranges[1]) if len(ranges) == 2 else RangeSet(tuple(ranges)).spans()
