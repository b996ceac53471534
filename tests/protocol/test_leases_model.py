"""The leases against a plain dictionary that is walked over: which worker holds what, whatever happens to the runs."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zmqpipeline.protocol.data.ranges import RangeSet, spans_of
from zmqpipeline.protocol.data.segments import Segment
from zmqpipeline.protocol.delivery.leases import Leases

WORKERS = (b"w1", b"w2", b"w3")
ANYONE = st.sampled_from(WORKERS)
PLACES = st.integers(0, 40)


class LeasesMachine(RuleBasedStateMachine):
    """The model: number -> the worker that has it, and the message that took it there."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = Leases()
        self.runs: dict[int, tuple[bytes, int]] = {}
        self.singly: dict[int, tuple[bytes, int]] = {}
        self.message = 0

    @rule(worker=ANYONE, start=PLACES, count=st.integers(1, 6), same=st.booleans())
    def first_delivery(self, worker: bytes, start: int, count: int, same: bool) -> None:
        """Anywhere, with the last message or the next: an item that comes late may be before others."""
        self.message += not same
        numbers = range(start, start + count)
        if not any(number in self.runs or number in self.singly for number in numbers):
            self.leases.first_delivery(Segment(start, [b"x"] * count, None), worker, self.message)
            self.runs.update(dict.fromkeys(numbers, (worker, self.message)))

    @rule(start=PLACES, count=st.integers(0, 12))
    def end_runs(self, start: int, count: int) -> None:
        """They are acknowledged: in the middle of runs, across several, across workers."""
        ended = self.leases.end_runs(start, start + count)
        gone = {number: self.runs.pop(number) for number in range(start, start + count) if number in self.runs}
        assert {number: run.tag for run in ended for number in range(run.start, run.stop)} == gone

    @rule(start=PLACES, count=st.integers(0, 6))
    def single_out(self, start: int, count: int) -> None:
        """Something happens to these that runs know nothing of."""
        self.leases.single_out(start, start + count)
        for number in range(start, start + count):
            if number in self.runs:
                self.singly[number] = self.runs.pop(number)

    @rule(worker=ANYONE)
    def single_out_of(self, worker: bytes) -> None:
        """The same to all that a worker holds."""
        self.leases.single_out_of(worker)
        for number in [one for one, (who, _) in self.runs.items() if who == worker]:
            self.singly[number] = self.runs.pop(number)

    @rule(number=PLACES)
    def end(self, number: int) -> None:
        """One that was singled out is over."""
        if self.singly.pop(number, None) is not None:
            self.leases.end(number, 1)

    @rule(worker=ANYONE)
    def lose(self, worker: bytes) -> None:
        """A worker is gone; another process may come under its name."""
        self.single_out_of(worker)
        for number in [one for one, (who, _) in self.singly.items() if who == worker]:
            self.end(number)
        self.leases.forget(worker)

    @rule(worker=ANYONE, held=st.sets(PLACES), received=st.integers(0, 60))
    def compare(self, worker: bytes, held: set[int], received: int) -> None:
        """What a worker does not hold although it should; what it holds beside its first deliveries."""
        lacks, others = self.leases.compare(worker, RangeSet(spans_of(sorted(held))), received)
        mine = {number: message for number, (who, message) in (self.runs | self.singly).items() if who == worker}
        assert lacks == sorted(number for number, message in mine.items() if message <= received and number not in held)
        first = {number for number, (who, _) in self.runs.items() if who == worker}
        assert others == RangeSet(spans_of(sorted(held - first)))

    @invariant()
    def agrees(self) -> None:
        """What each worker holds is what a walk over everything finds."""
        everything = self.runs | self.singly
        assert sorted(self.leases.check(dict.fromkeys(self.singly, b"x"))) == sorted(everything)
        for worker in WORKERS:
            mine = sorted(number for number, (who, _) in everything.items() if who == worker)
            assert sorted(self.leases.of(worker)) == mine
            assert self.leases.count(worker) == self.leases.bytes_of(worker) == len(mine)
            late = [number for number in mine if everything[number][1] > self.message - 2]
            assert sorted(self.leases.of(worker, after=self.message - 2)) == late


TestLeases = LeasesMachine.TestCase
TestLeases.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
