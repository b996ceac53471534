"""The ticker: it looks while it is kicked, and does not wake up for each kick."""

from __future__ import annotations

import threading
import time

from zmqpipeline.runtime.ticker import INTERVAL, Ticker


def test_kicks_in_quick_succession_cost_one_look_an_interval() -> None:
    """Also after it had fallen asleep: who is kicked a thousand times a second would else wake up as often."""
    looks = 0
    asleep = threading.Event()

    def look(moment: float) -> float | None:
        nonlocal looks
        looks += 1
        if looks == 25:
            asleep.set()
        return None

    ticker = Ticker("test-ticker", look)
    ticker.kick()
    assert asleep.wait(10)
    looks, kicks = 0, 0
    end = time.monotonic() + 100 * INTERVAL
    while time.monotonic() < end:
        ticker.kick()
        kicks += 1
        time.sleep(INTERVAL / 10)
    seen = looks
    ticker.close(1.0)
    assert kicks > 2 * seen > 0
