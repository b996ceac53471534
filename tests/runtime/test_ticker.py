"""The ticker: it looks while it is kicked, and does not wake up for each kick."""

from __future__ import annotations

import time

import pytest

from zmqpipeline.runtime.threads.ticker import INTERVAL, Ticker


def looks_of(kicks: int, pause: float) -> int:
    """How often a ticker looks that finds nothing, and is kicked so many times, with a pause (seconds) after each."""
    looks = 0

    def look(moment: float) -> float | None:
        nonlocal looks
        looks += 1
        return None

    ticker = Ticker("test-ticker", look)
    for _ in range(kicks):
        ticker.kick()
        time.sleep(pause)
    ticker.close(1.0)
    return looks


def test_kicks_in_quick_succession_cost_one_look_an_interval() -> None:
    """Who kicks thousands of times a second does not wake it as often."""
    assert 0 < 2 * looks_of(1000, INTERVAL / 10) < 1000


@pytest.mark.alone
def test_kicks_now_and_then_cost_one_look_each() -> None:
    """A ticker that is kicked seldom does not look in between: a role may have hundreds of them."""
    assert 20 <= looks_of(20, 10 * INTERVAL) <= 23
