"""The ledger against a simple model: one dictionary of places, whatever happens in whatever order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.support.ledgers import MEBIBYTE, failure
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, spans_of
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.delivery.suspects import LastWord

WORKERS = st.sampled_from([b"w1", b"w2", b"w3"])


class LedgerMachine(RuleBasedStateMachine):
    """The model: where each number is, how often it raised, and which workers crashed with it."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(TaskSpec("A", retries=2, backoff=1.0, crash_limit=3))
        self.places: dict[int, str | bytes] = {}
        """Number -> queue, later, given up, done, failed, or the worker that has it."""
        self.attempt: dict[int, int] = {}
        self.raised: dict[int, int] = {}
        self.crashed: dict[int, set[bytes]] = {}
        self.now = 0.0

    def of(self, place: str | bytes) -> list[int]:
        """The numbers in this place."""
        return [number for number, where in self.places.items() if where == place]

    @rule(count=st.integers(0, 5))
    def add(self, count: int) -> None:
        """The source yields."""
        start = self.ledger.next_number
        self.ledger.add([b"%d" % number for number in range(start, start + count)])
        self.places.update(dict.fromkeys(range(start, start + count), "queue"))

    @rule(worker=WORKERS, count=st.integers(0, 4), slots=st.integers(0, 2), max_bytes=st.sampled_from([1, 3, MEBIBYTE]))
    def take(self, worker: bytes, count: int, slots: int, max_bytes: int) -> None:
        """A batch is of what is queued, of one attempt, in the bounds; a suspect only with a slot."""
        batch = self.ledger.take(worker, count, slots, max_bytes)
        if batch is None:
            safe = [number for number in self.of("queue") if not self.crashed.get(number)]
            assert count == 0 or not safe or (slots == 0 and not safe)
            return
        numbers = numbers_of(batch.spans)
        assert 0 < len(numbers) <= count
        assert len(numbers) == 1 or sum(map(len, batch.payloads)) <= max_bytes
        suspects = [number for number in numbers if self.crashed.get(number)]
        assert len(suspects) in (0, len(numbers))
        assert len(suspects) <= slots
        assert all(len(self.crashed[number]) == 1 for number in suspects)
        for number, payload in zip(numbers, batch.payloads, strict=True):
            assert self.places[number] == "queue"
            assert payload == b"%d" % number
            assert batch.attempt == self.attempt.get(number, 0) + 1
            self.places[number] = worker

    @precondition(lambda self: any(not self.of(worker) for worker in (b"w1", b"w2", b"w3")))
    @rule(data=st.data())
    def take_alone(self, data: st.DataObject) -> None:
        """A worker that holds nothing is given one item on its last try, if there is one, and is then alone with it."""
        worker = data.draw(st.sampled_from([worker for worker in (b"w1", b"w2", b"w3") if not self.of(worker)]))
        last = [number for number in self.of("queue") if len(self.crashed.get(number, ())) == 2]
        assert self.ledger.has_alone == bool(last)
        batch = self.ledger.take_alone(worker)
        assert (batch is not None) == bool(last) == self.ledger.is_alone(worker)
        if batch is not None:
            (number,) = numbers_of(batch.spans)
            assert number in last
            self.places[number] = worker

    @rule(data=st.data(), failed=st.booleans())
    def acknowledge(self, data: st.DataObject, failed: bool) -> None:
        """The collector has some: each worker hears of its own, and nobody of the others."""
        if not self.places:
            return
        numbers = data.draw(st.sets(st.sampled_from(sorted(self.places))))
        spans = spans_of(list(numbers))
        released = self.ledger.acknowledge(() if failed else spans, spans if failed else ())
        held = {number: self.places[number] for number in numbers if isinstance(self.places[number], bytes)}
        assert {number: who for who, ones in released.items() for number in numbers_of(tuple(ones))} == held
        for number in numbers:
            if self.places[number] not in ("done", "failed"):
                self.places[number] = "failed" if failed else "done"

    @precondition(lambda self: any(isinstance(place, bytes) for place in self.places.values()))
    @rule(data=st.data(), stale=st.booleans())
    def failed_at(self, data: st.DataObject, stale: bool) -> None:
        """User code raised: retried as often as allowed, then given up; a stale report changes nothing."""
        number = data.draw(st.sampled_from([n for n, place in self.places.items() if isinstance(place, bytes)]))
        worker = self.places[number]
        assert isinstance(worker, bytes)
        attempt = self.attempt.get(number, 0) + 1
        if stale:
            other = next(one for one in (b"w1", b"w2") if one != worker)
            assert self.ledger.failed_at(other, failure(number, attempt), self.now, 1.0) is None
            return
        given_up = self.ledger.failed_at(worker, failure(number, attempt), self.now, 1.0)
        self.attempt[number] = attempt
        self.raised[number] = self.raised.get(number, 0) + 1
        self.places[number] = "later" if self.raised[number] <= 2 else "given up"
        assert (given_up is not None) == (self.raised[number] > 2)
        if given_up is not None:
            assert (given_up.number, given_up.attempts, given_up.payload) == (number, attempt, b"%d" % number)

    @rule(seconds=st.floats(0, 3))
    def ripen(self, seconds: float) -> None:
        """Time passes: what is due is queued, no sooner."""
        self.now += seconds
        later = self.of("later")
        self.ledger.ripen(self.now)
        due = self.ledger.next_due()
        assert due is None or due > self.now
        still = {number for _, number in self.ledger._again._later}
        for number in later:
            if number not in still:
                self.places[number] = "queue"

    @rule(worker=WORKERS, crashed=st.booleans(), data=st.data())
    def lost(self, worker: bytes, crashed: bool, data: st.DataObject) -> None:
        """A worker is gone: what it was not done with counts against the item if it crashed."""
        mine = self.of(worker)
        done = set(data.draw(st.sets(st.sampled_from(mine)))) if mine else set()
        back, given_up = self.ledger.lost(worker, crashed=crashed, word=LastWord(RangeSet(spans_of(list(done)))))
        for number in mine:
            self.attempt[number] = self.attempt.get(number, 0) + 1
            if crashed and number not in done:
                self.crashed.setdefault(number, set()).add(worker)
            self.places[number] = "given up" if len(self.crashed.get(number, ())) >= 3 else "queue"
        assert {item.number for item in given_up} == {n for n in mine if self.places[n] == "given up"}
        assert back == len(mine) - len(given_up)

    @rule(worker=WORKERS, data=st.data())
    def hand_back(self, worker: bytes, data: st.DataObject) -> None:
        """Unstarted items go back, with nothing held against them; those of others stay where they are."""
        if not self.places:
            return
        numbers = data.draw(st.lists(st.sampled_from(sorted(self.places)), unique=True))
        self.ledger.hand_back(worker, numbers)
        for number in numbers:
            if self.places[number] == worker:
                self.places[number] = "queue"

    @rule(worker=WORKERS, data=st.data())
    def reconcile(self, worker: bytes, data: st.DataObject) -> None:
        """A full report of a worker that received everything: what it has not goes back, the rest is all its own."""
        mine = self.of(worker)
        # it lives, so that no item has killed it
        for killed in self.crashed.values():
            killed.discard(worker)
        held = sorted(data.draw(st.sets(st.sampled_from(mine)))) if mine else []
        droppable = self.ledger.reconcile(worker, RangeSet(spans_of(held)), 1 << 60)
        assert droppable == ()
        for number in mine:
            if number not in held:
                self.places[number] = "queue"

    @rule()
    def abandon(self) -> None:
        """Whatever no worker holds is dropped; what is given up still waits for its ACK."""
        self.ledger.abandon()
        for number in [*self.of("queue"), *self.of("later")]:
            del self.places[number]

    @invariant()
    def agrees(self) -> None:
        """Ledger and model say the same, and the ledger does not contradict itself."""
        self.ledger.check()
        places = self.places.values()
        assert self.ledger.collected.spans() == spans_of(self.of("done"))
        assert self.ledger.failed.spans() == spans_of(self.of("failed"))
        assert sorted(self.ledger.given_up) == sorted(self.of("given up"))
        assert self.ledger.waiting == len(self.of("queue"))
        assert self.ledger.leased == sum(isinstance(place, bytes) for place in places)
        assert self.ledger.unfinished == sum(place not in ("done", "failed") for place in places)
        for worker in (b"w1", b"w2", b"w3"):
            assert self.ledger.leases(worker) == len(self.of(worker))


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


TestLedgerAgainstAModel = LedgerMachine.TestCase
