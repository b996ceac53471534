"""A rate for each value of a field: the law by itself, in the ledger, and between distributor and collector."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.scenes import Scene, Task
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.ledger import Ledger
from zmqpipeline.protocol.delivery.pace import BURST_SECONDS, MAX_AT_HAND, Pace

STEPS = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 2), st.integers(0, 20)), max_size=60)
A, B, C = (letter * m.KEY_BYTES for letter in (b"a", b"b", b"c"))
VALUES = (A, B, C)


def ask(pace: Pace, value: bytes, now: float) -> bool:
    """Whether an item of this value may be handed out now; then it is."""
    pace.now = now
    pace.values[0] = value
    return pace.take(0)


@given(st.floats(0.01, 100), STEPS, st.floats(0.1, 20), st.booleans())
def test_of_each_value_in_every_window_no_more_than_the_rate_and_the_burst(
    rate: float, steps: list[tuple[float, int, int]], window: float, again: bool
) -> None:
    """However much is wanted of which value; also over a distributor that takes over in the middle."""
    pace, now = Pace(rate), 0.0
    handed: list[tuple[float, int]] = []
    for index, (pause, value, wanted) in enumerate(steps):
        now += pause
        if again and index == len(steps) // 2:
            pace = Pace(rate)
            pace.take_over(now)
        handed += [(now, value) for _ in range(wanted) if ask(pace, VALUES[value], now)]
    burst = max(1.0, rate * BURST_SECONDS)
    for end, value in handed:
        within = sum(one == value for at, one in handed if end - window < at <= end)
        assert within <= rate * window + burst + 1e-6


@given(st.floats(0.05, 50), st.integers(1, 60))
def test_who_is_asked_when_it_is_due_gives_one(rate: float, count: int) -> None:
    """Asked at the times that it names, it gives everything in the time that the rate says."""
    pace, done = Pace(rate), 0
    pace.values[0] = A
    while done < count:
        if pace.take(0):
            done += 1
            continue
        pace.look([0])
        assert pace.wake_at is not None
        assert pace.wake_at > pace.now
        pace.now = pace.wake_at
    assert pace.now <= count / rate + 1e-6


def test_values_do_not_wait_for_each_other() -> None:
    """A new one may have its burst at once, whatever others have had."""
    pace = Pace(2.0)
    assert [ask(pace, A, 0.0) for _ in range(3)] == [True, True, False]
    assert [ask(pace, B, 0.0) for _ in range(3)] == [True, True, False]
    assert [ask(pace, A, 0.5) for _ in range(2)] == [True, False]


def test_values_that_had_nothing_lately_are_forgotten() -> None:
    """A million values in turn: as many are known as had one within the time between two."""
    pace = Pace(1.0)
    for n in range(100_000):
        assert ask(pace, b"%016d" % n, n / 1000)
    assert len(pace._even) < 5000


class Fetching(Scene):
    """A distributor of A, whose results give items of B: two a second of each value."""

    def __init__(self, rate: float = 2.0, *, taking_over: bool = False, limit: int | None = None) -> None:
        fed = Task("B", for_each=("A",), rate=rate, rate_by="host", limit=limit, retries=5, backoff=0.001)
        super().__init__(Task("A"), fed, running=False)
        self.connect()
        self.numbered = 0
        if taking_over:
            self.collector.says(m.Holding("run", False, b"meta", 0, []))
        else:
            self.holding()
        self.holding("run")

    def there_are(self, count: int) -> None:
        """So many items of B are in the outbox."""
        self.collector.says(m.Ack("run", "", (), (), 0, 0, b"", outboxes=[m.Outbox("B", count, 0, True)]))

    def fetched(self, *values: bytes, until: float = 0.0) -> None:
        """The collector answers with these."""
        start, self.numbered = self.numbered, self.numbered + len(values)
        spans = (start, self.numbered) if values else ()
        self.collector.says(m.Fetched("run", "B", spans, [b"x"] * len(values), b"".join(values), until))

    def asked(self) -> list[m.Fetch]:
        """What was asked of the collector by the last event."""
        return self.bench.said(m.Fetch)


def test_a_question_tells_the_clock_and_the_law() -> None:
    """So that the collector can tell which values come next."""
    scene = Fetching()
    scene.there_are(100)
    scene.bench.now = 7.0
    scene.worker("B", slots=4, window=4)
    (fetch,) = scene.asked()
    assert (fetch.count, fetch.now, fetch.apart, fetch.burst) == (4, 7.0, 0.5, 2)


def test_what_is_not_due_waits_for_its_time_and_keeps_no_other() -> None:
    """Three of one value, one of another: two and one go at once, the third when its time has come."""
    scene = Fetching()
    scene.there_are(4)
    worker = scene.worker("B", slots=10, window=10)
    scene.fetched(A, A, A, B)
    assert sorted(worker.given()) == [0, 1, 3]
    scene.bench.wait(0.49)
    assert not worker.given()
    scene.bench.wait(0.02)
    assert worker.given() == [2]


def test_what_comes_again_waits_for_its_value() -> None:
    """A retry and an item of a lost worker are deliveries, too; others go before it meanwhile."""
    scene = Fetching()
    scene.there_are(5)
    worker = scene.worker("B", slots=10, window=10)
    scene.fetched(A, A, B)
    assert worker.given() == [0, 1, 2]
    worker.fails(0)
    scene.bench.wait(0.4)
    assert not worker.given()
    worker.is_lost()
    other = scene.worker("B", slots=10, window=10)
    first = other.given()
    scene.fetched(C, C)
    assert sorted({*first, *other.given()} & {3, 4}) == [3, 4]
    scene.bench.wait(3.0)
    assert not scene.machine.tasks["B"].ledger.waiting


def test_the_collector_is_asked_again_when_it_said_so_or_when_there_is_more() -> None:
    """Not before, and not all the time."""
    scene = Fetching()
    scene.there_are(50)
    scene.worker("B", slots=4, window=4)
    scene.bench.now = 3.0
    scene.fetched(until=10.0)
    assert scene.asked() == []
    scene.bench.wait(6.9)
    assert scene.asked() == []
    scene.bench.wait(0.2)
    assert len(scene.asked()) == 1
    scene.fetched(until=100.0)
    scene.there_are(51)
    assert len(scene.asked()) == 1


def test_a_distributor_that_takes_over_gives_no_burst() -> None:
    """The one before may have given it a moment ago."""
    scene = Fetching(taking_over=True)
    scene.there_are(3)
    worker = scene.worker("B", slots=10, window=10)
    scene.fetched(A, A, B)
    assert worker.given() == []
    scene.bench.wait(0.51)
    assert len(worker.given()) == 2
    scene.bench.wait(0.5)
    assert len(worker.given()) == 1


def test_little_waits_at_the_distributor() -> None:
    """It fetches no more while a thousand wait, whatever the collector sends."""
    scene = Fetching(rate=0.01)
    scene.there_are(100_000)
    scene.worker("B", slots=5000, window=5000)
    for _ in range(10):
        if scene.asked():
            scene.fetched(*[A] * 400)
    assert MAX_AT_HAND <= scene.machine.tasks["B"].ledger.waiting < MAX_AT_HAND + 400
    scene.bench.wait(50)
    assert scene.asked() == []


@pytest.mark.parametrize("lie", [b"", A + b"x", A * 3])
def test_an_answer_without_its_values_is_not_believed(lie: bytes) -> None:
    """The collector is asked anew."""
    scene = Fetching()
    scene.there_are(2)
    worker = scene.worker("B", slots=4, window=4)
    scene.collector.says(m.Fetched("run", "B", (0, 2), [b"x", b"x"], lie))
    assert worker.given() == []
    assert scene.bench.said(m.Begin)


def test_a_killer_on_its_last_try_waits_for_its_value() -> None:
    """It reserves no worker meanwhile."""
    scene = Fetching(rate=0.1)
    scene.there_are(3)
    hands = [scene.worker("B")]
    scene.fetched(A)
    for _ in range(2):
        hands[-1].is_lost()
        hands.append(scene.worker("B"))
        scene.bench.wait(10.1)
    last = hands[-1]
    last.is_lost()
    other = scene.worker("B")
    assert scene.asked() or scene.machine.tasks["B"].producing is not None
    scene.fetched(B)
    assert other.given() == [1]


def test_an_aborted_task_forgets_the_values() -> None:
    """As all else of its items."""
    ledger = Ledger(Task("B", for_each=("A",), rate=1.0, rate_by="host"))
    ledger.add([b"x", b"y"], values=[A, B])
    ledger.check()
    assert ledger.take(b"w", 1, 1, 100) is not None
    ledger.abandon()
    ledger.check()
    assert ledger.unfinished == 1
