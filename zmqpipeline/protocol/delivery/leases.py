"""Which worker holds which items of one task: first deliveries as runs, and all others one by one.

A lease is from when an item is sent until its ACK. Workers are named by their incarnation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, pairs
from zmqpipeline.protocol.data.segments import Segment, SegmentMap
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.messages import Spans

FirstDelivery = Segment[tuple[bytes, int]]
"""Items with the worker they are with, and the number of the message that took them there."""


MAX_CLAIMS = 1_000_000
"""So many items are believed to be with workers that say so, although no source has yielded them in this life."""

MAX_ATTEMPTS = 1 << 32
"""A worker that brings an item with it says at which attempt that is: a larger number is taken for this one. From the
largest that is read there would be no next one, and the item could never be sent again."""


def to_judge(undone: Spans, first: int, end: int, room: int) -> Iterator[int]:
    """Of what a worker claims to hold and is not done, what is to be judged item by item.

    All from `first` to `end` is kept here, so that these are not many, whatever is claimed. What other numbers there
    are nobody knows, in a run that another distributor began: of those at most `room` are believed.
    """
    for start, stop in pairs(undone):
        yield from range(max(start, first), min(stop, end))
        for low, high in ((start, min(stop, first)), (max(start, end), stop)):
            some = range(low, min(high, low + room))
            room -= len(some)
            yield from some


def drop_claims_in(claims: dict[int, bytes], low: int, high: int) -> None:
    """Nobody's claim to a number from `low` up to, not including, `high` counts any more."""
    # who claims a million items shall not make each ACK a walk over them
    for number in range(low, high) if high - low < len(claims) else [one for one in claims if low <= one < high]:
        claims.pop(number, None)


@dataclass(slots=True)
class Batch:
    """Items that travel in one Work message: they share an attempt number."""

    attempt: int
    spans: Spans
    payloads: list[bytes]
    on_trial: bool = False
    """They were lost with a worker before, while they may have been running."""


class Leases:
    """See the module. `singly` holds, by worker, the items that were singled out, with their message's number."""

    __slots__ = ("_bytes", "_counts", "_out", "_ranges", "owner", "singly")

    def __init__(self) -> None:
        self.owner: dict[int, bytes] = {}
        """Who has each of the items that were singled out."""
        self.singly: dict[bytes, dict[int, int]] = {}
        self._out: SegmentMap[tuple[bytes, int]] = SegmentMap()
        self._ranges: dict[bytes, RangeSet] = {}
        """The numbers of each worker's first deliveries: its runs are found by them, however many others have."""
        self._counts: dict[bytes, int] = {}
        self._bytes: dict[bytes, int] = {}

    def __len__(self) -> int:
        """How many items are leased."""
        return len(self.owner) + len(self._out)

    def __contains__(self, number: int) -> bool:
        return number in self.owner or number in self._out

    @property
    def runs_bytes(self) -> int:
        """How many bytes the first deliveries have."""
        return self._out.size

    def count(self, worker: bytes) -> int:
        """How many items this worker holds."""
        return self._counts.get(worker, 0)

    def bytes_of(self, worker: bytes) -> int:
        """How many bytes these have."""
        return self._bytes.get(worker, 0)

    def is_with(self, worker: bytes, number: int) -> bool:
        """Whether this worker holds this item."""
        if number in self.owner:
            return self.owner[number] == worker
        run = self._out.find(number)
        return run is not None and run.tag[0] == worker

    def of(self, worker: bytes, *, after: int = -1) -> list[int]:
        """The items that this worker holds; `after`: only those that our messages after this one brought it."""
        held = [number for number, message in self.singly.get(worker, {}).items() if message > after]
        for run in self._runs_of(worker):
            if run.tag[1] > after:
                held += range(run.start, run.stop)
        return held

    def held_of(self, worker: bytes, spans: Spans) -> list[int]:
        """Of these numbers, however many they are, the items that this worker holds; ascending."""
        wanted = RangeSet(spans)
        held = [number for number in self.singly.get(worker, ()) if number in wanted]
        for start, stop in pairs(spans):
            for run in self._out.touching(start, stop):
                if run.tag[0] == worker:
                    held += range(max(start, run.start), min(stop, run.stop))
        return sorted(held)

    def _runs_of(self, worker: bytes) -> list[FirstDelivery]:
        """Its runs, ascending."""
        ranges = self._ranges.get(worker)
        return [run for one in pairs(ranges.spans()) for run in self._out.touching(*one)] if ranges else []

    def _cut(self, start: int, stop: int) -> list[FirstDelivery]:
        """Take out the first deliveries in this range."""
        runs = self._out.cut(start, stop)
        for run in runs:
            self._ranges[run.tag[0]].discard(run.start, run.stop)
        return runs

    def first_delivery(self, fresh: Segment[None], worker: bytes, message: int) -> None:
        """These go to a worker for the first time."""
        self._add(worker, len(fresh.payloads), fresh.size)
        self._ranges.setdefault(worker, RangeSet()).add(fresh.start, fresh.stop)
        self._out.add(fresh.start, fresh.payloads, (worker, message), fresh.size)

    def add(self, numbers: list[int], sizes: int, worker: bytes, message: int) -> None:
        """These, which were singled out and have so many bytes, go to a worker."""
        self.owner.update(dict.fromkeys(numbers, worker))
        self.singly.setdefault(worker, {}).update(dict.fromkeys(numbers, message))
        self._add(worker, len(numbers), sizes)

    def end(self, number: int, size: int) -> None:
        """Take an item of so many bytes, which was singled out, from the worker that holds it."""
        worker = self.owner.pop(number)
        del self.singly[worker][number]
        self._add(worker, -1, -size)

    def end_runs(self, start: int, stop: int) -> list[FirstDelivery]:
        """Take all first deliveries in this range from the workers that hold them."""
        runs = self._cut(start, stop)
        for run in runs:
            self._add(run.tag[0], run.start - run.stop, -run.size)
        return runs

    def _add(self, worker: bytes, items: int, size: int) -> None:
        self._counts[worker] = self._counts.get(worker, 0) + items
        self._bytes[worker] = self._bytes.get(worker, 0) + size

    def single_out(self, start: int, stop: int) -> list[FirstDelivery]:
        """Something is about to happen to these first deliveries that runs know nothing of."""
        runs = self._cut(start, stop)
        for run in runs:
            worker, message = run.tag
            numbers = range(run.start, run.stop)
            self.owner.update(dict.fromkeys(numbers, worker))
            self.singly.setdefault(worker, {}).update(dict.fromkeys(numbers, message))
        return runs

    def single_out_of(self, worker: bytes) -> list[FirstDelivery]:
        """The same for all that a worker holds."""
        return [part for run in self._runs_of(worker) for part in self.single_out(run.start, run.stop)]

    def compare(self, worker: bytes, held: RangeSet, received: int) -> tuple[list[int], RangeSet]:
        """What a worker says it holds: what it should hold and does not, and what it holds beside its first deliveries.

        The latter may be anything: it is its word alone.

        It does not know of our messages after `received`; what these brought is not missed.
        """
        missing = [n for n, message in self.singly.get(worker, {}).items() if message <= received and n not in held]
        others = RangeSet(held.spans())
        for run in self._runs_of(worker):
            others.discard(run.start, run.stop)
            if run.tag[1] <= received:
                missing += numbers_of(held.missing((run.start, run.stop)))
        return sorted(missing), others

    def forget(self, worker: bytes) -> None:
        """A worker is gone, and all that it held was taken from it."""
        self.singly.pop(worker, None)
        self._ranges.pop(worker, None)
        self._counts.pop(worker, None)
        self._bytes.pop(worker, None)

    def check(self, payloads: Mapping[int, bytes]) -> Collection[int]:
        """Everything is counted right; `payloads` are those of the items that were singled out. Returns all numbers."""
        self._out.check()
        assert {n: worker for worker, mine in self.singly.items() for n in mine} == self.owner, (
            "leases and owners differ"
        )
        counts, sizes = dict.fromkeys(self._counts, 0), dict.fromkeys(self._bytes, 0)
        for number, worker in self.owner.items():
            counts[worker] += 1
            sizes[worker] += len(payloads[number])
        for run in self._out:
            counts[run.tag[0]] += len(run.payloads)
            sizes[run.tag[0]] += run.size
        by_worker: dict[bytes, list[FirstDelivery]] = {worker: [] for worker in self._ranges}
        for run in self._out:
            by_worker[run.tag[0]].append(run)
        for worker, runs in by_worker.items():
            assert self._runs_of(worker) == runs, "the first deliveries of a worker are not found by its ranges"
            held = sum(run.stop - run.start for run in runs)
            assert len(self._ranges[worker]) == held, "the ranges of a worker hold what is no first delivery of it"
        assert counts == self._counts, "the leases are miscounted"
        assert sizes == self._bytes, "the bytes of the leases are wrong"
        return [*self.owner, *numbers_of(self._out.spans())]
