"""The items that a worker holds: queued or running, done with a result, or failed; none of them in two of these places.

An item is held until the distributor lets go of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, pairs, spans_of
from zmqpipeline.protocol.data.segments import SegmentMap
from zmqpipeline.protocol.messages import Blobs, ErrorInfo, FailedItem, Spans


class Held:
    """Of one run; see the module."""

    __slots__ = ("_newest", "attempts", "cancelled", "failures", "kept", "keys", "pending")

    def __init__(self) -> None:
        self._newest = -1
        """The highest number that has come."""
        self.pending = RangeSet()
        """Queued or running; `attempts` holds which attempt it is, if it is not the first."""
        self.attempts: dict[int, int] = {}
        self.kept: SegmentMap[int] = SegmentMap()
        """Results, with their attempt."""
        self.failures: dict[int, FailedItem] = {}
        self.keys: dict[int, bytes] = {}
        """The keys of what is held, if the task has keys: the collector knows an item by its key."""
        self.cancelled: set[int] = set()
        """Items that were released while they were queued or running here: their outcome is nobody's."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.pending) + len(self.kept) + len(self.failures)

    @property
    def at_hand(self) -> int:
        """How many threads have to deal with, whoever wants the outcome."""
        return len(self.pending) + len(self.cancelled)

    def numbers(self) -> set[int]:
        """Those of all items that are held."""
        spans = (self.pending.spans(), self.kept.spans())
        return {*self.failures, *(number for one in spans for number in numbers_of(one))}

    def check(self) -> None:
        """An item is pending, kept as a result, or kept as a failure, never two of these."""
        self.kept.check()
        places = [*numbers_of(self.pending.spans()), *numbers_of(self.kept.spans()), *self.failures]
        assert len(places) == len(set(places)), "a worker holds an item twice"
        assert all(map(self.pending.__contains__, self.attempts)), "an attempt of an item that is not pending"
        assert set(self.keys) <= set(places), "a key of an item that is not held"

    def done(self) -> Spans:
        """Those with a result or a failure."""
        spans = self.kept.spans()
        return spans_of([*numbers_of(spans), *self.failures]) if self.failures else spans

    def drop_done(self) -> None:
        """Another run begins: of this one nobody wants anything."""
        self.kept.clear()
        self.failures.clear()
        self.keys.clear()
        self._newest = -1

    # items come ------------------------------------------------------------------------------------------------------

    def new_of(self, spans: Spans, payloads: Blobs, attempt: int) -> tuple[Spans, Blobs]:
        """Of a delivery those that are to be executed."""
        # as a rule all are newer than whatever came before
        if spans and spans[0] <= self._newest and self._holds_any(spans):
            return self._not_held(spans, payloads, attempt)
        return spans, payloads

    def take(self, spans: Spans, numbers: Sequence[int], attempt: int) -> None:
        """These are queued from here on."""
        self._newest = max(self._newest, spans[-1] - 1)
        self.pending.update(spans)
        if attempt > 1:
            self.attempts.update(dict.fromkeys(numbers, attempt))

    def _holds_any(self, spans: Spans) -> bool:
        if self.pending.common(spans) or any(self.kept.touching(*one) for one in pairs(spans)):
            return True
        new = RangeSet(spans)
        return any(number in new for number in self.failures)

    def _not_held(self, spans: Spans, payloads: Blobs, attempt: int) -> tuple[Spans, Blobs]:
        new = []
        for number, payload in zip(numbers_of(spans), payloads, strict=True):
            if number in self.pending:
                if attempt > self.attempts.get(number, 1):
                    self.attempts[number] = attempt
                continue
            failure = self.failures.get(number)
            if failure is not None and failure.attempts < attempt:
                del self.failures[number]
            elif failure is not None or number in self.kept:
                continue
            new.append((number, payload))
        return spans_of([number for number, _ in new]), [payload for _, payload in new]

    # items end -------------------------------------------------------------------------------------------------------

    def keep(self, numbers: Sequence[int], payloads: Blobs, attempt: int) -> tuple[Spans, Blobs]:
        """Keep these results; returns those that somebody wants, in order."""
        spans = spans_of(numbers)
        expected = self.pending.common(spans)
        if spans != expected or (type(numbers) is not range and list(numbers) != numbers_of(spans)):
            # some are nobody's any more, or they are out of order
            given = dict(zip(numbers, payloads, strict=True))
            spans, payloads = expected, [given[number] for number in numbers_of(expected)]
        self.pending.difference_update(spans)
        if self.attempts:
            for number in numbers_of(spans):
                self.attempts.pop(number, None)
        if len(spans) == 2:
            self.kept.add(spans[0], list(payloads), attempt)
        else:
            at = 0
            for start, stop in pairs(spans):
                self.kept.add(start, list(payloads[at : at + stop - start]), attempt)
                at += stop - start
        return spans, payloads

    def fail(self, task: str, failures: Iterable[tuple[int, ErrorInfo]]) -> list[FailedItem]:
        """Keep these failures; returns those that somebody wants."""
        new = []
        for number, trouble in failures:
            attempt = self.attempts.pop(number, 1)
            if number in self.pending:
                self.pending.discard(number, number + 1)
                new.append(FailedItem(task, number, attempt, "worker", trouble, b""))
        self.failures.update({item.number: item for item in new})
        return new

    def drop(self, spans: Spans) -> None:
        """The outcome of these, which belong to another run, is nobody's."""
        self.pending.difference_update(spans)
        self.cancelled.difference_update(numbers_of(spans))
        self.attempts.clear()

    # items go --------------------------------------------------------------------------------------------------------

    def release(self, start: int, stop: int) -> None:
        """The distributor lets go of these."""
        gone = sum(run.stop - run.start for run in self.kept.cut(start, stop))
        if self.keys:
            for number in [number for number in self.keys if start <= number < stop]:
                del self.keys[number]
        if gone < stop - start:
            self._forget(start, stop)

    def _forget(self, start: int, stop: int) -> None:
        """Let go of those of these that have no result: they failed, or are queued or running."""
        for number in [number for number in self.failures if start <= number < stop]:
            del self.failures[number]
        cancelled = self.pending.common((start, stop))
        self.pending.discard(start, stop)
        for number in numbers_of(cancelled):
            self.attempts.pop(number, None)
            self.cancelled.add(number)

    def hand_back(self, numbers: Sequence[int]) -> Spans:
        """These did not begin; returns those that are to be given to others."""
        mine = self.pending.common(spans_of(numbers))
        self.pending.difference_update(mine)
        self.cancelled.difference_update(numbers)
        for number in numbers_of(mine) if self.keys or self.attempts else ():
            self.keys.pop(number, None)
            self.attempts.pop(number, None)
        return mine
