"""Rates and limits of tasks: the bucket by itself, and in pipelines that are simulated."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqpipeline.errors import Retry
from zmqpipeline.protocol.delivery.throttle import BURST_SECONDS, Throttle

STEPS = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50)), max_size=60)


@given(st.floats(0.01, 1000), STEPS, st.floats(0.1, 20))
def test_in_every_window_no_more_than_the_rate_and_the_burst(
    rate: float, steps: list[tuple[float, int]], window: float
) -> None:
    """However often it is asked, and however much is wanted; also over a distributor that is started anew."""
    throttle, now = Throttle(rate, None), 0.0
    given_at: list[tuple[float, int]] = []
    for index, (pause, wanted) in enumerate(steps):
        now += pause
        if index == len(steps) // 2:
            throttle = Throttle(rate, None)
        count = min(wanted, throttle.left(0, now))
        throttle.gave(count)
        given_at.append((now, count))
    burst = max(1.0, rate * BURST_SECONDS)
    for end, _ in given_at:
        within = sum(count for at, count in given_at if end - window < at <= end)
        assert within <= rate * window + burst + 1e-6


@given(st.floats(0.01, 2000), st.integers(1, 100))
def test_who_waits_is_served_when_it_was_said_and_the_rate_is_reached(rate: float, count: int) -> None:
    """Asked at the times that it names, and at no others, it gives everything in about the time that the rate says."""
    throttle, now, done = Throttle(rate, None), 0.0, 0
    while done < count:
        allowed = min(count - done, throttle.left(0, now))
        throttle.gave(allowed)
        done += allowed
        if done < count:
            assert throttle.left(0, now) <= count
            due = throttle.next_time()
            if due is None:
                continue
            assert due > now
            now = due
    assert count / rate - 1e-6 <= now + 1e-3 * count
    assert now <= count / rate * 1.05 + 0.1 + 1e-3 * count


def test_a_limit_counts_what_is_leased() -> None:
    """And never wakes anybody by the clock: an ACK does."""
    throttle = Throttle(None, 5)
    assert [throttle.left(leased, 0.0) for leased in (0, 3, 5, 9)] == [5, 2, 0, 0]
    assert throttle.next_time() is None


def test_both_hold_together() -> None:
    """The smaller one; who is held by the limit does not wait for the rate."""
    throttle = Throttle(10.0, 3)
    throttle.left(0, 0.0)
    assert throttle.left(0, 10.0) == 3
    assert throttle.left(3, 10.0) == 0
    assert throttle.next_time() is None
    throttle.gave(10)
    assert throttle.left(0, 10.0) == 0
    assert throttle.next_time() is not None


def test_a_pause_lasts_until_the_latest_that_was_asked_for() -> None:
    """Then whoever waits is woken."""
    throttle = Throttle(None, None)
    throttle.pause(5.0)
    throttle.pause(3.0)
    assert throttle.left(0, 4.9) == 0
    assert throttle.next_time() == 5.0
    assert throttle.left(0, 5.0) > 1000
    assert throttle.next_time() is None


@given(st.floats(0, 1e6), st.booleans())
def test_what_a_retry_says_is_read_from_its_message(after: float, pause: bool) -> None:
    """It travels as an error does."""
    assert Retry.read(str(Retry(after, pause))) == (after, pause)
    assert Retry.read("anything else") == (0.0, False)


@pytest.mark.parametrize("after", [-1, float("inf"), float("nan"), "soon"])
def test_no_number_of_seconds_is_refused(after: Any) -> None:
    """Where it is raised."""
    with pytest.raises(ValueError, match=r"after|could not convert"):
        Retry(after)
