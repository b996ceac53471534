"""How much a worker has at hand, and how much goes into one message."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from zmqpipeline.protocol import credit
from zmqpipeline.protocol.credit import MAX_BATCH, MAX_BATCH_BYTES, ServiceTime, cut

SECONDS = st.floats(1e-7, 100.0)


def window(slots: int, service: float | None, last: int, *, prefetch: float = 0.04, most: int = 2048) -> int:
    """With the defaults of the options."""
    return credit.window(slots, service, last, prefetch_seconds=prefetch, max_prefetch=most)


def test_before_the_first_observation_a_thread_gets_one_item() -> None:
    """Nobody hoards what may turn out to be slow."""
    assert window(4, None, 4) == 4


def test_a_slow_item_is_never_hoarded() -> None:
    """Items of 40 ms and more are not prefetched, however large the window was."""
    assert window(3, 0.04, 2000) == 3
    assert window(3, 60.0, 2000) == 3


def test_items_of_ten_milliseconds_have_three_others_waiting() -> None:
    """Forty milliseconds of work a thread, the running one included."""
    assert window(1, 0.01, 1000) == 4
    assert window(2, 0.01, 1000) == 8
    assert window(1, 0.02, 1000) == 2


def test_short_items_have_up_to_three_times_as_much_waiting() -> None:
    """A worker of these reports once a quantum: what it has must outlast two of them."""
    assert window(1, 0.00005, 5000, most=5000) == 2392
    assert window(1, 0.0025, 1000) == 40


def test_tiny_items_are_bounded_by_max_prefetch() -> None:
    """Items that take no time at all fill the prefetch, no more."""
    assert window(1, 0.0, 5000) == 2049
    assert window(1, 1e-9, 5000, most=100) == 101


def test_the_window_grows_by_doubling() -> None:
    """One fast batch may be a lucky one: the window opens step by step."""
    grown = [1]
    for _ in range(12):
        grown.append(window(1, 1e-6, grown[-1]))
    assert grown[:5] == [1, 2, 4, 8, 16]
    assert grown[-1] == 2049


@given(st.integers(1, 64), SECONDS, st.integers(0, 5000), st.floats(0, 1), st.integers(0, 5000))
def test_the_window_is_always_in_its_bounds(slots: int, service: float, last: int, prefetch: float, most: int) -> None:
    """Between one item a slot and the slots and the prefetch; never more than doubled."""
    found = window(slots, service, last, prefetch=prefetch, most=most)
    assert slots <= found <= slots + most
    assert found <= max(slots, 2 * last)


@given(st.integers(1, 8), SECONDS, SECONDS)
def test_slower_items_never_get_a_larger_window(slots: int, one: float, other: float) -> None:
    """The window falls, or stays, as the service time rises."""
    assert window(slots, max(one, other), 4096) <= window(slots, min(one, other), 4096)


def test_a_batch_weighs_as_much_as_it_has_items() -> None:
    """One item that was held up among thousands of short ones leaves the window as it is."""
    time = ServiceTime()
    for _ in range(5):
        time.observe(2000, 0.001)
    assert time.seconds is not None
    assert math.isclose(time.seconds, 5e-7)
    time.observe(1, 0.005)
    assert time.seconds < 2e-6
    assert window(1, time.seconds, 2049) == 2049


def test_items_that_turn_slow_are_no_longer_hoarded_after_a_dozen() -> None:
    """Thousands of short items do not hide for long that those of now take 10 ms."""
    time = ServiceTime()
    for _ in range(5):
        time.observe(2000, 0.001)
    windows = []
    for _ in range(20):
        time.observe(1, 0.01)
        windows.append(window(1, time.seconds, 2049))
    assert windows == sorted(windows, reverse=True)
    assert windows[11] <= 15
    assert windows[-1] <= 5


def test_a_slow_first_item_is_forgotten_within_thirty_batches() -> None:
    """The first item may have imported half a library: those after it get their window all the same."""
    time, wanted = ServiceTime(), 1
    time.observe(1, 0.5)
    for _ in range(30):
        wanted = window(1, time.seconds, wanted)
        time.observe(wanted, wanted * 1e-6)
    assert wanted > 1000


@given(st.lists(st.tuples(st.integers(1, 3000), SECONDS), min_size=1, max_size=30))
def test_the_observed_time_is_never_beyond_what_was_seen(batches: list[tuple[int, float]]) -> None:
    """Between the quickest and the slowest batch, whatever their sizes are."""
    time, ones = ServiceTime(), [busy / items for items, busy in batches]
    for items, busy in batches:
        time.observe(items, busy)
    assert time.seconds is not None
    assert min(ones) * (1 - 1e-9) <= time.seconds <= max(ones) * (1 + 1e-9)


def test_an_empty_batch_is_no_observation() -> None:
    """No items, no service time; a clock that went backwards counts as no time."""
    time = ServiceTime()
    time.observe(0, 5.0)
    assert time.seconds is None
    time.observe(1, -1.0)
    assert time.seconds == 0.0


@given(st.lists(st.integers(0, 3 * MAX_BATCH_BYTES), max_size=20), st.integers(1, 30), st.integers(1, MAX_BATCH_BYTES))
def test_a_cut_fits_and_is_as_long_as_it_can_be(sizes: list[int], items: int, most: int) -> None:
    """As many as fit in items and bytes, and one at least, so that a large one goes alone."""
    count = cut(sizes, items, most)
    assert count <= min(len(sizes), items)
    assert bool(count) == bool(sizes)
    assert sum(sizes[:count]) <= most or count == 1
    if 0 < count < min(len(sizes), items):
        assert sum(sizes[: count + 1]) > most


def test_the_default_cut_is_a_batch() -> None:
    """A thousand items, or a mebibyte."""
    assert cut([1] * 5000) == MAX_BATCH
    assert cut([MAX_BATCH_BYTES // 4] * 9) == 4


def test_a_thread_never_idles_through_a_round_trip_for_items_under_40_milliseconds() -> None:
    """What is left of an item counts as one: a 20.1 ms item has one other behind it; one of 40 ms has none."""
    found = [window(1, seconds, 100) for seconds in (0.0201, 0.0399, 0.04)]
    assert found == [2, 2, 1]


def test_room_is_told_when_a_thread_is_idle_or_a_quarter_of_the_prefetch_is_used_up() -> None:
    """Of long items at each end of one; of short ones once in hundreds, and never later than for a whole batch."""
    assert not credit.is_room(3, 3, 3)
    assert credit.is_room(2, 3, 3)
    assert not credit.is_room(310, 401, 1)
    assert credit.is_room(301, 401, 1)
    assert not credit.is_room(20_000 - MAX_BATCH + 1, 20_000, 1)
    assert credit.is_room(20_000 - MAX_BATCH, 20_000, 1)


def test_a_window_is_told_again_when_it_differs_by_more_than_a_quarter() -> None:
    """In both directions."""
    assert [window for window in range(60, 140) if not credit.is_another(window, 100)] == list(range(75, 126))


def test_too_much_is_told_when_the_window_has_shrunk_to_half_and_more_is_held() -> None:
    """A worker that wants less, or has less than it wants, has nothing to say."""
    assert credit.is_too_much(60, 50, 100)
    assert not credit.is_too_much(60, 51, 100)
    assert not credit.is_too_much(50, 50, 100)
