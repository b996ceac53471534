"""Adds up what happens to items between two looks of an observer, so that a slow one costs memory for sums only.

What happens to the items of one task is one event however many there are; events that are no sums are kept as they are,
up to MAX_EVENTS, and counted beyond. Nothing here is told to anybody: whoever observes takes it from time to time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from zmqpipeline import events
from zmqpipeline.protocol.data.ranges import RangeSet, pairs, size
from zmqpipeline.protocol.messages import Spans

MAX_EVENTS = 1000
"""So many different events wait; a sum beyond that is of all workers, or of all errors."""

MAX_RANGES = 1000
"""An event that would have more ranges of numbers has none."""


class _Sum:
    """What happened to items of one task alike."""

    __slots__ = ("count", "labels", "more", "numbers", "ranges", "time")

    def __init__(self) -> None:
        self.time = 0.0
        self.count = self.ranges = 0
        self.numbers: RangeSet | None = RangeSet()
        self.labels: dict[str, str] = {}
        self.more: dict[str, float] = {}

    def add(self, time: float, spans: Spans, more: dict[str, float]) -> None:
        """More of the same."""
        self.time = time
        self.count += size(spans)
        for name, value in more.items():
            self.more[name] = self.more.get(name, 0) + value
        if self.numbers is not None:
            self.numbers.update(spans)
            self.ranges += len(spans) // 2
            if self.ranges > MAX_RANGES:
                # as a rule neighbours are one range by now
                self.ranges = len(self.numbers.spans()) // 2
                self.numbers = None if self.ranges > MAX_RANGES else self.numbers

    def items(self) -> events.Ranges:
        return () if self.numbers is None else tuple(pairs(self.numbers.spans()))


class Recorder:
    """What one role has to tell. Whoever knows the time says it by `at`.

    `lock` is held while it is written and taken from; `wake` is called when there is something after there was nothing.
    """

    def __init__(
        self,
        role: str,
        *,
        epoch: float = 0.0,
        lock: AbstractContextManager[Any] | None = None,
        wake: Callable[[], object] = lambda: None,
    ) -> None:
        """`role` goes into each event; `epoch` is the time of day at which the clock of `at` was 0."""
        self.role = role
        self._epoch = self._time = epoch
        self._lock = nullcontext() if lock is None else lock
        self._wake = wake
        self._sums: dict[tuple[str, ...], _Sum] = {}
        self._waiting: list[tuple[type[events.ItemEvent], str, _Sum] | events.Event] = []
        """In the order in which each was first told of."""
        self._dropped = 0

    def at(self, now: float) -> None:
        """It is this time; what comes next happens then."""
        self._time = self._epoch + now

    def items(
        self,
        kind: type[events.ItemEvent],
        task: str,
        spans: Spans,
        *,
        by: dict[str, str] | None = None,
        last: dict[str, str] | None = None,
        **more: float,
    ) -> None:
        """Something happened to these items. `by` tells sums apart, `last` is of the newest, `more` adds up."""
        if not spans:
            return
        with self._lock:
            labels = by or {}
            key = (kind.__name__, task, *labels.values())
            one = self._sums.get(key)
            if one is None:
                if len(self._waiting) >= MAX_EVENTS:
                    labels = dict.fromkeys(labels, "")
                    key = (kind.__name__, task, *labels.values())
                    one = self._sums.get(key)
                if one is None:
                    one = self._sums[key] = _Sum()
                    self._put((kind, task, one))
            one.labels = {**labels, **(last or {})}
            one.add(self._time, spans, more)

    def add(self, kind: type[events.Event], **fields: Any) -> None:
        """Something else happened."""
        with self._lock:
            if len(self._waiting) < MAX_EVENTS:
                self._put(kind(time=self._time, role=self.role, **fields))
            else:
                self._dropped += 1

    def _put(self, one: tuple[type[events.ItemEvent], str, _Sum] | events.Event) -> None:
        if not self._waiting:
            self._wake()
        self._waiting.append(one)

    def take(self) -> list[events.Event]:
        """All that happened since this was called last."""
        with self._lock:
            waiting, dropped = self._waiting, self._dropped
            self._waiting, self._sums, self._dropped = [], {}, 0
        made: list[events.Event] = []
        for one in waiting:
            made.append(one if isinstance(one, events.Event) else self._event(*one))
        if dropped:
            made.append(events.EventsDropped(time=self._time, role=self.role, count=dropped))
        return made

    def _event(self, kind: type[events.ItemEvent], task: str, one: _Sum) -> events.ItemEvent:
        return kind(
            time=one.time, role=self.role, task=task, count=one.count, items=one.items(), **one.labels, **one.more
        )
