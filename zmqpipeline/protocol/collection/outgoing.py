"""The results on their way out of a worker: which are sent, which wait for credit, and when there are too many.

The law:

* What is kept is **outstanding** if it was sent, and **unsent** if not. A result is sent while the outstanding bytes
  stay within the **credit**, which the collector gives (`result_credit`); what does not fit waits, in the order of the
  numbers, for a release or for more credit.
* When something waits, the collector is asked (`Kept.wants`: the bytes of the next message), at once and each second.
* A worker that keeps half of `max_held_bytes` is **full**: it takes no items until it keeps a quarter or less. Of items
  at hand it wants no more than have results of the other half, by their size so far, and no fewer than it has threads.
  When the results turn out larger, what has not begun goes back to the distributor.
* What the collector has never seen is sent again, unless it was sent after what the collector speaks of.
"""

from __future__ import annotations

from collections import deque

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import credit
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collection.result_credit import first_credit
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, pairs, spans_of, split_spans
from zmqpipeline.protocol.data.segments import SegmentMap
from zmqpipeline.protocol.messages import Spans
from zmqpipeline.protocol.peers import Link

KEPT_SECONDS = 1.0
"""How often what is kept is said."""


class Outgoing:
    """See the module. `kept` are its results, which it adds and cuts itself."""

    __slots__ = (
        "_bytes", "_first", "_is_over", "_items", "_keys", "_link", "_message", "_peer", "_task", "_under_way",
        "_unsent", "bound", "credit", "has_asked", "is_connected", "is_full", "kept", "out", "run", "say_at",
        "unsent_bytes",
    )  # fmt: skip

    def __init__(
        self,
        task: str,
        kept: SegmentMap[int],
        keys: dict[int, bytes],
        link: Link,
        peer: e.Peer,
        *,
        max_held_bytes: int,
        unbounded: bool = False,
    ) -> None:
        """`keys` are those of the items. `unbounded`: whoever gets the results gives no credit."""
        self.out: list[c.Command] = []
        self.run = ""
        self.is_connected = False
        self.say_at: float | None = None
        """When to say again what is kept."""
        self._task, self._keys, self._link, self._peer = task, keys, link, peer
        self.kept = kept
        self.bound = max_held_bytes
        self.is_full = self._is_over = False
        self.has_asked = False
        """The collector was told that something waits, and has not said anything since."""
        self.unsent_bytes = 0
        self._message = min(credit.MAX_BATCH_BYTES, max_held_bytes // 2)
        """A message has no more bytes, unless it is a single value."""
        self._first = self.credit = credit.NO_LIMIT if unbounded else first_credit(max_held_bytes)
        self._unsent = RangeSet()
        self._under_way: deque[tuple[int, Spans]] = deque()
        """The messages that the collector has not said it received, by number, and what is in them."""
        self._items = self._bytes = 0.0
        """Of the last results, how many and how large: what came before is forgotten as more bytes come."""

    # what was executed -----------------------------------------------------------------------------------------------

    def observe(self, items: int, before: int) -> None:
        """So many results were added to what is kept, which had `before` bytes."""
        added = self.kept.size - before
        unit = self.bound / 16
        forgotten = unit / (unit + added)
        self._items = forgotten * self._items + items
        self._bytes = forgotten * self._bytes + added

    def most_items(self, slots: int) -> int:
        """How many items there should be at hand, if their results are as large as the last ones."""
        if not self._bytes:
            return credit.NO_LIMIT
        return max(slots, int(self.bound / 2 * self._items / self._bytes))

    def room(self, slots: int) -> int:
        """How many items there may be at hand: some were sent before it was heard that this worker is full."""
        if not self.is_full:
            return credit.NO_LIMIT
        return 0 if self.kept.size >= self.bound else self.most_items(slots)

    def turns(self) -> bool:
        """Whether the worker has become full, or has ceased to be."""
        was, kept = self.is_full, self.kept.size
        self.is_full = kept > self.bound // 4 if was else kept >= max(1, self.bound // 2)
        return was is not self.is_full

    def is_over(self) -> bool:
        """Whether so much is kept, for the first time since the worker became full, that no item is to begin."""
        if self._is_over or self.kept.size < self.bound:
            self._is_over = self.is_full and self._is_over
            return False
        self._is_over = True
        return True

    # sending ---------------------------------------------------------------------------------------------------------

    def send(self, attempt: int, spans: Spans, payloads: m.Blobs) -> None:
        """Send these results, in messages of a bounded size; what is beyond the credit waits."""
        if not self.is_connected:
            return
        if not self.all_fit():
            self.put_off(spans)
            return
        while payloads:
            count = len(payloads) if credit.fits(payloads) else credit.cut(list(map(len, payloads)))
            some, rest = (spans, ()) if count == len(payloads) else split_spans(spans, count)
            self._send_message(attempt, some, payloads[:count] if rest else payloads)
            spans, payloads = rest, payloads[count:] if rest else ()

    def send_again(self, spans: Spans, now: float) -> None:
        """These were never seen by whoever gets the results."""
        self.is_missing(spans, self._link.confirmed)
        self.send_unsent(now)

    def send_unsent(self, now: float, once: int = 0) -> None:
        """Send what waits, as far as there is credit, or these bytes beyond it; ask if anything still waits."""
        if not self.is_connected:
            return
        while message := self.next_message(once):
            self._send_message(*message)
            once = 0
        if self._unsent and not self.has_asked:
            self.say(now)

    def _send_message(self, attempt: int, spans: Spans, payloads: m.Blobs) -> None:
        keys = self._keys_of(spans) if self._keys else b""
        body = m.Results(self.run, self._task, attempt, spans, payloads, keys)
        self.out.append(c.Send(self._peer, self._link.wrap(body)))
        self._sent(self._link.sent, spans, self._link.confirmed)

    def _keys_of(self, spans: Spans) -> bytes:
        """Their keys, joined; a task has them for all of its items, or for none."""
        keys = [self._keys.get(number) for number in numbers_of(spans)]
        return b"" if None in keys else b"".join(one for one in keys if one is not None)

    def say(self, now: float, *, is_answer: bool = False) -> None:
        """Say what is kept, if anything is, or if this is an answer; and ask for credit if something waits."""
        self.say_at = now + KEPT_SECONDS if self.kept else None
        if (self.kept or is_answer) and self.is_connected:
            self.has_asked = bool(self._unsent)
            body = m.Kept(self.run, self._task, self.kept.spans(), self.credit, self.wants())
            self.out.append(c.Send(self._peer, self._link.wrap(body)))

    # which is sent ----------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether anything is unsent."""
        return bool(self._unsent)

    def all_fit(self) -> bool:
        """Whether everything that is kept may be outstanding."""
        return not self._unsent and self.kept.size <= self.credit

    def put_off(self, spans: Spans) -> None:
        """Those of these that are kept are unsent from now on."""
        for start, stop in pairs(spans):
            for run in self.kept.touching(start, stop):
                for part in pairs(self._unsent.missing((max(start, run.start), min(stop, run.stop)))):
                    self.unsent_bytes += self._bytes_in(*part)
                    self._unsent.add(*part)

    def is_missing(self, spans: Spans, confirmed: int) -> None:
        """The collector, which has received our messages up to `confirmed`, has never seen these."""
        lost = RangeSet(spans)
        while self._under_way and self._under_way[0][0] <= confirmed:
            self._under_way.popleft()
        for _, later in self._under_way:
            lost.difference_update(later)
        self.put_off(lost.spans())

    def _sent(self, number: int, spans: Spans, confirmed: int) -> None:
        """The message with this number has these results."""
        while self._under_way and self._under_way[0][0] <= confirmed:
            self._under_way.popleft()
        self._under_way.append((number, spans))

    def drop(self, start: int, stop: int) -> None:
        """What is kept of these numbers is about to be let go of."""
        if self._unsent:
            for part in pairs(self._unsent.common((start, stop))):
                self._take(part)

    def _take(self, part: Spans) -> None:
        for start, stop in pairs(part):
            self.unsent_bytes -= self._bytes_in(start, stop)
            self._unsent.discard(start, stop)

    def _bytes_in(self, start: int, stop: int) -> int:
        total = 0
        for run in self.kept.touching(start, stop):
            whole = start <= run.start and run.stop <= stop
            low, high = max(start, run.start) - run.start, min(stop, run.stop) - run.start
            total += run.size if whole else sum(map(len, run.payloads[low:high]))
        return total

    def clear(self) -> None:
        """Nothing is kept any more."""
        self._unsent = RangeSet()
        self._under_way.clear()
        self.unsent_bytes = 0
        self.is_full = self._is_over = self.has_asked = False

    def reset(self) -> None:
        """The connection to the collector broke, or it is another one: what was said is no longer true."""
        self.credit = self._first
        self.has_asked = False

    def next_message(self, once: int = 0) -> tuple[int, Spans, list[bytes]] | None:
        """Attempt, numbers and results of the next message; None if nothing waits, or the credit is used up.

        `once` bytes are allowed beyond the credit. What it returns is outstanding.
        """
        if not self._unsent:
            return None
        attempt, numbers, payloads = self._next()
        room = max(self.credit - (self.kept.size - self.unsent_bytes), once)
        count = credit.cut(list(map(len, payloads)), max_bytes=max(0, min(self._message, room)))
        if len(payloads[0]) > room:
            return None
        spans = spans_of(numbers[:count])
        self._take(spans)
        return attempt, spans, payloads[:count]

    def _next(self) -> tuple[int, list[int], list[bytes]]:
        """Some of what waits, of one attempt, from the first number on."""
        some, _ = split_spans(self._unsent.spans(), credit.MAX_BATCH)
        attempt, (numbers, payloads) = next(iter(self.kept.by_tag(some).items()))
        return attempt, numbers, payloads

    def wants(self) -> int:
        """The bytes of the next message that waits; 0 if none does."""
        if not self._unsent:
            return 0
        _, _, payloads = self._next()
        sizes = list(map(len, payloads))
        return max(1, sum(sizes[: credit.cut(sizes, max_bytes=self._message)]))

    def check(self) -> None:
        """What is unsent is kept, and counted right."""
        spans = self._unsent.spans()
        assert all(number in self.kept for number in numbers_of(spans)), "a result is unsent that is not kept"
        assert self.unsent_bytes == sum(self._bytes_in(*part) for part in pairs(spans)), "unsent bytes are miscounted"
