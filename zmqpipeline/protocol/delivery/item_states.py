"""Where every item of one task is: what is known of it, and what may be asked.

The places are those of `protocol.delivery.ledger`, which moves the items from one to another.
"""

from __future__ import annotations

from itertools import chain

from zmqpipeline.protocol import credit
from zmqpipeline.protocol.data.dedup import DedupKeys
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, pairs
from zmqpipeline.protocol.data.segments import SegmentMap
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.leases import (
    Leases,
)
from zmqpipeline.protocol.delivery.pace import MAX_AT_HAND, MAX_AT_HAND_BYTES, Pace
from zmqpipeline.protocol.delivery.retries import RetryQueue
from zmqpipeline.protocol.messages import FailedItem, Spans, TaskCounts, TaskProgress


class ItemStates:
    """The items of one task, and the questions that change nothing; see `protocol.delivery.ledger`."""

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self.next_number = 0
        self.first_number = 0
        """Where this life's numbers begin: not at 0 if the items have keys, and another one numbered some before."""
        self._is_first = True
        """No other distributor has numbered items of this run: all that there are were numbered here."""
        self.collected = RangeSet()
        self.failed = RangeSet()
        self.redelivered = 0
        """How many deliveries were not the first of their item, by distributors before this one, too."""
        self.skipped = 0
        self.dropped = 0
        self.duplicates = 0
        self.repeated = 0
        """How many of the collected numbers stand for a key that was collected under another number."""
        self.keys = DedupKeys()
        self.given_up: dict[int, FailedItem] = {}
        self.given_up_bytes = 0
        """How many bytes of packed items those have."""
        self.told: set[int] = set()
        """Those of them that the collector says it has."""
        self._fresh: SegmentMap[None] = SegmentMap()
        self._leases = Leases()
        self._payloads: dict[int, bytes] = {}
        """Those of the items that were singled out, as is all that follows."""
        self._again = RetryQueue(spec.crash_limit)
        self._alone: dict[bytes, list[int]] = {}
        """What each worker that gets nothing else beside it was given."""
        self._claims: dict[int, bytes] = {}
        self._prior: dict[int, int] = {}
        self._raised: dict[int, int] = {}
        self._raised_at: dict[int, int] = {}
        self._reclaimed: set[int] = set()
        """Leases that a worker brought with it: which attempt it is at is known to it alone."""
        self.pace = None if spec.rate is None or spec.rate_by is None else Pace(spec.rate)
        """The rates of values; all items of such a task are singled out, and none is fresh."""
        self._skip_until = 0
        self._passed = self._passed_in_a_row = 0
        """How many keys of the source were known when it yielded them, in all and since the last new one."""

    @property
    def waiting(self) -> int:
        """How many items could be sent now, if there were a worker."""
        again = self._again
        return self._fresh.count + len(again.returned) + len(again.suspects) + again.alone

    @property
    def for_anyone(self) -> int:
        """How many of these need no worker of their own, and need not wait for the rate of their value."""
        if (pace := self.pace) is not None:
            return sum(map(pace.allows, chain(self._again.returned, self._again.suspects)))
        return self._fresh.count + len(self._again.returned) + len(self._again.suspects)

    @property
    def unfinished(self) -> int:
        """How many items are not done."""
        return len(self._payloads) + len(self._fresh) + len(self._leases) - len(self._leases.owner)

    @property
    def payload_bytes(self) -> int:
        """How many bytes the items have that are not done."""
        return self._fresh.size + self._leases.runs_bytes + sum(map(len, self._payloads.values()))

    @property
    def leased(self) -> int:
        """How many items are with workers."""
        return len(self._leases)

    @property
    def done(self) -> int:
        """How many items are acknowledged."""
        return len(self.collected) + len(self.failed)

    @property
    def retrying(self) -> int:
        """How many items wait for the end of their back-off."""
        return self._again.put_off_count

    @property
    def has_suspects(self) -> bool:
        """Whether an item waits for a free thread of its own."""
        return bool(self._again.suspects)

    @property
    def has_alone(self) -> bool:
        """Whether an item, or a group of them, waits for a worker that holds nothing else, and for nothing besides."""
        if (pace := self.pace) is not None:
            return any(map(pace.allows, chain(self._again.last_tries, self._again.groups)))
        return bool(self._again.last_tries or self._again.groups)

    @property
    def has_claims(self) -> bool:
        """Whether a worker holds items that the source has not yielded in this life."""
        return bool(self._claims)

    def is_alone(self, worker: bytes) -> bool:
        """Whether this worker holds an item on its last try, or a group, beside which it gets no other."""
        if not self._alone:
            return False
        numbers = self._alone.get(worker, [])
        while numbers and self._leases.owner.get(numbers[-1]) != worker:
            numbers.pop()
        return bool(numbers)

    def has_executed_all(self, worker: bytes) -> None:
        """This worker has nothing unfinished: it may get others."""
        if self._alone:
            self._alone.pop(worker, None)

    def leases(self, worker: bytes) -> int:
        """How many items this worker holds."""
        return self._leases.count(worker)

    def is_with(self, worker: bytes, number: int) -> bool:
        """Whether this worker holds this item."""
        return self._leases.is_with(worker, number)

    def held_by(self, worker: bytes, *, after: int = -1) -> list[int]:
        """The items that this worker holds; `after`: only those that our messages after this one brought it."""
        return self._leases.of(worker, after=after)

    def held_of(self, worker: bytes, spans: Spans) -> list[int]:
        """Of these numbers, however many they are, the items that this worker holds."""
        return self._leases.held_of(worker, spans)

    def sent_of(self, spans: Spans) -> Spans:
        """Of these, those that may have been sent to a worker; of no others can anything be known by anybody.

        In a run that another distributor began, that may be any.
        """
        if not spans or not self._is_first:
            return spans
        fresh = self._fresh
        if spans[-1] <= self.next_number and not (fresh and any(fresh.touching(*one) for one in pairs(spans))):
            return spans
        sent = RangeSet(spans)
        sent.discard(self.next_number, spans[-1])
        sent.difference_update(fresh.spans())
        return sent.spans()

    def is_leased(self, number: int) -> bool:
        """Whether any worker holds this item."""
        return number in self._leases

    def tried(self) -> list[int]:
        """The items that a worker was lost with."""
        return list(self._again.losses)

    def lease_bytes(self, worker: bytes) -> int:
        """How many bytes of packed items this worker holds."""
        return self._leases.bytes_of(worker)

    def look_at_pace(self) -> None:
        """Find out when an item that waits for the rate of its value is due."""
        if self.pace is not None:
            again = self._again
            self.pace.look(chain(again.returned, again.suspects, again.last_tries, again.groups))

    @property
    def has_enough(self) -> bool:
        """Whether so many items wait for the rates of their values that no more are to be fetched."""
        waiting = 0 if self.pace is None else self.waiting
        return waiting >= MAX_AT_HAND or (waiting > 0 and self.payload_bytes >= MAX_AT_HAND_BYTES)

    def next_due(self) -> float | None:
        """When the first retry is due."""
        return self._again.next_due()

    def done_ahead(self) -> int:
        """How many of the items that the source yields next are done without a gap. Of keys nobody knows that."""
        if self.next_number >= self._skip_until or self.spec.keyed:
            return 0
        end = self.next_number
        while (further := self.failed.end_of(self.collected.end_of(end))) > end:
            end = further
        return end - self.next_number

    def steps_for(self, count: int) -> int:
        """How many steps of the source to ask for, to get about `count` items.

        A source with keys that begins anew yields first what is done, if it yields in the same order: as many as were
        passed over in one go are asked for at once, up to a batch.
        """
        left = len(self.keys.done) + len(self.keys.failed) - self._passed
        return max(count, min(self._passed_in_a_row, left, credit.MAX_BATCH)) if self.spec.keyed else count

    def are_done(self, start: int, stop: int) -> bool:
        """Whether all numbers from `start` up to, not including, `stop` are."""
        return start >= stop or not self._missing(start, stop)

    def _missing(self, start: int, stop: int) -> Spans:
        """Those of these numbers that are not done."""
        return self.failed.missing(self.collected.missing((start, stop)))

    def untold(self) -> list[FailedItem]:
        """The items that are given up, and that the collector has not said to have."""
        return [item for number, item in self.given_up.items() if number not in self.told]

    def progress(self) -> TaskProgress:
        """The done numbers, for the collector."""
        keys = self.keys
        return TaskProgress(
            self.spec.task_type,
            self.collected.spans(),
            self.failed.spans(),
            len(keys.done),
            len(keys.failed),
            self.repeated,
            redelivered=self.redelivered,
            duplicates=self.duplicates,
        )

    def counts(self, state: str) -> TaskCounts:
        """The figures of the summary."""
        collected = len(self.collected) - self.repeated
        # with keys, what earlier distributors of this run have sent is not yielded with its number again
        sent = collected + len(self.failed) + self.unfinished + self.dropped if self.spec.keyed else self.next_number
        return TaskCounts(
            task=self.spec.task_type,
            state=state,
            sent=sent,
            collected=collected,
            failed=len(self.failed),
            aborted=self.dropped,
            skipped=self.skipped + self.repeated,
            redelivered=self.redelivered,
            duplicates=self.duplicates,
        )

    def check(self) -> None:
        """Every unfinished item is in exactly one place, and nothing done is anywhere."""
        self._fresh.check()
        self._again.check()
        fresh, leased = numbers_of(self._fresh.spans()), self._leases.check(self._payloads)
        queued = self._again.numbers()
        singly = [*queued, *self._leases.owner, *self.given_up]
        assert set(singly) == set(self._payloads), f"an item of {self.spec.task_type} is nowhere"
        places = [*queued, *leased, *fresh, *self.given_up]
        assert len(places) == len(set(places)), f"an item of {self.spec.task_type} is in two places"
        self.keys.check(set(places).__contains__)
        assert self.pace is None or self.pace.values.keys() == self._payloads.keys(), "an item without its value"
        total = sum(len(one.payload) for one in self.given_up.values())
        assert self.given_up_bytes == total, "the bytes of the items that are given up are wrong"
        assert not any(number in self.collected or number in self.failed for number in places), "a done item is out"
        assert not self.collected.common(self.failed.spans()), "an item both collected and failed"
