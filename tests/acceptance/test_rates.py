"""Rates and limits of tasks, as real processes."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import RUN, Eventually, collected, start

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

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


AGAIN = """
import asyncio
from zmqpipeline import Retry

app.task("C", HOW)(lambda: items(100))

@app.worker("C", concurrency=10)
async def work(data, attempt):
    note("begun", time.monotonic())
    if data["n"] == 30 and attempt <= 3:
        note("again", time.monotonic())
        raise Retry(after=0.5, pause=PAUSE)
    if data["n"] == 31 and attempt == 1:
        raise ValueError("a failure counts")
    return data
"""


@pytest.mark.parametrize("pause", [False, True])
def test_an_item_comes_again_and_that_is_no_failure(pause: bool, workshop: Workshop) -> None:
    """Three times, with no retries allowed beside one; with a pause nothing else is handed out meanwhile."""
    body = AGAIN.replace("HOW", "retries=1, backoff=0.01, limit=10").replace("PAUSE", str(pause))
    program = start(workshop, body, *RUN, "--workers", "2")
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(100))
    asked = sorted(map(float, workshop.lines("again")))
    assert len(asked) == 3
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(asked))
    assert "Retry" not in program.err, program.err
    if pause:
        # what had been handed out before it was said may begin a moment later
        within = [one for one in begun(workshop) if asked[0] + 0.1 < one < asked[0] + 0.45]
        assert within == [], len(within)


def test_an_api_that_refuses(workshop: Workshop) -> None:
    """It answers 429 above its rate: after the first pause few are refused, and all prompts are answered."""
    body = """
import asyncio
from collections import deque
from zmqpipeline import Retry

app.task("C", limit=20)(lambda: items(300))
calls = deque()

@app.worker("C", concurrency=20)
async def work(data):
    now = time.monotonic()
    while calls and calls[0] < now - 0.5:
        calls.popleft()
    if len(calls) >= 100:
        note("refused", data["n"])
        raise Retry(after=0.5, pause=True)
    calls.append(now)
    await asyncio.sleep(0.005)
    return data
"""
    program = start(workshop, body)
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(300))
    # of each of the two pauses those that were handed out before it was said
    assert 1 <= len(workshop.lines("refused")) <= 60
