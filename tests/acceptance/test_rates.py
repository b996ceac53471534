"""Rates and limits of tasks, as real processes."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import RUN, Eventually, collected, start

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

BODY = """
import asyncio

app.task("C", HOW)(lambda: items(int(os.environ["ITEMS"])))

@app.worker("C", concurrency=50)
async def work(data):
    note("begun", time.monotonic())
    await asyncio.sleep(float(os.environ.get("SECONDS", "0")))
    note("ended", time.monotonic())
    return data
"""


def begun(workshop: Workshop) -> list[float]:
    """When calls began, in order."""
    return sorted(map(float, workshop.lines("begun")))


def check_rate(times: list[float], rate: float) -> None:
    """In every second no more than the rate and its burst, with some room for how long messages take."""
    for at, first in enumerate(times):
        within = sum(first <= one < first + 1.0 for one in times[at:])
        assert within <= 2 * rate + 0.1 * rate + 1, within


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_rate_holds_for_all_workers(workers: str, workshop: Workshop) -> None:
    """120 items at 60 a second take two seconds, with however many workers; and not much longer."""
    program = start(workshop, BODY.replace("HOW", 'rate="3600/m"'), *RUN, "--workers", workers, ITEMS="120")
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(120))
    times = begun(workshop)
    assert 1.8 <= times[-1] - times[0] <= 5, times[-1] - times[0]
    check_rate(times, 60)


def test_a_limit_holds_for_all_workers(workshop: Workshop) -> None:
    """Seven at once, of two workers that could have a hundred."""
    program = start(workshop, BODY.replace("HOW", "limit=7"), *RUN, "--workers", "2", ITEMS="150", SECONDS="0.03")
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(150))
    events = sorted(
        [(float(one), 1) for one in workshop.lines("begun")] + [(float(one), -1) for one in workshop.lines("ended")]
    )
    now = most = 0
    for _, step in events:
        now += step
        most = max(most, now)
    assert 4 <= most <= 7, most


def test_a_distributor_that_is_started_again_does_not_double_it(workshop: Workshop, eventually: Eventually) -> None:
    """Killed in the middle: the rate holds across both."""
    body = BODY.replace("HOW", 'rate="60/s", key="n"')
    distributor = start(workshop, body, "-m", "app", "distributor", ITEMS="240")
    others = [workshop.start("-m", "app", role, ITEMS="240") for role in ("worker", "collector")]
    eventually(lambda: len(workshop.lines("begun")) > 60, "a quarter")
    os.kill(distributor.pid, signal.SIGKILL)
    distributor.wait()
    again = workshop.start("-m", "app", "distributor", ITEMS="240")
    assert again.wait() == 0, again.err
    assert [one.wait() for one in others] == [0, 0]
    assert collected(workshop) == list(range(240))
    check_rate(begun(workshop), 60)
