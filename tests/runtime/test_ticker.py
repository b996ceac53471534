"""The ticker: it looks while it is kicked, and does not wake up for each kick."""

from __future__ import annotations

import threading
import time

import pytest

from zmqpipeline.runtime.threads.ticker import INTERVAL, Ticker


def looks_of(kicks: int, pause: float, *, wait: bool = False) -> int:
    """How often a ticker looks that finds nothing, and is kicked so many times, with a pause (seconds) after each.

    With `wait` the pause begins when it has looked, however late that is.
    """
    looks, looked = 0, threading.Event()

    def look(moment: float) -> float | None:
        nonlocal looks
        looks += 1
        looked.set()
        return None

    ticker = Ticker("test-ticker", look)
    for _ in range(kicks):
        looked.clear()
        ticker.kick()
        if wait:
            assert looked.wait(60)
        time.sleep(pause)
    ticker.close(60)
    return looks


def test_kicks_in_quick_succession_cost_one_look_an_interval() -> None:
    """Who kicks thousands of times a second does not wake it as often."""
    began = time.perf_counter()
    looks = looks_of(1000, INTERVAL / 10)
    # of two looks one may follow the other at once; on a busy machine the pauses are longer
    assert 0 < looks < 20 + 2 * (time.perf_counter() - began) / INTERVAL


@pytest.mark.alone
def test_kicks_now_and_then_cost_one_look_each() -> None:
    """A ticker that is kicked seldom does not look in between: a role may have hundreds of them."""
    assert looks_of(20, 10 * INTERVAL, wait=True) == 20
