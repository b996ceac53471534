"""Workers that outlive both the distributor and the collector go on as soon as these are back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

Eventually = Callable[..., None]

APP = """
import glob, time
from zmqpipeline import Pipeline

app = Pipeline("both")

@app.task("C")
def numbers():
    with open("sources", "a") as file:
        file.write("1\\n")
    for n in range(400):
        # a hundred more each time that the roles are started again
        while n >= 100 * (1 + len(glob.glob("go*"))):
            time.sleep(0.01)
        yield {"n": n}

@app.worker("C")
def work(data):
    time.sleep(0.01)
    return data

@app.collector
def collect(data):
    with open("collected", "a") as file:
        file.write(f"{data['n']}\\n")

if __name__ == "__main__":
    app.main()
"""

IDLE = 2.5
"""Seconds from the call of the source on: workers try to connect each second at the longest."""


@pytest.mark.alone
@pytest.mark.parametrize("collector_first", [True, False], ids=["collector first", "distributor first"])
def test_workers_are_not_idle_when_both_others_are_back(
    collector_first: bool, workshop: Workshop, eventually: Eventually
) -> None:
    """Both are killed together, and started again on the journal: an item is collected within 2.5 s of the source.

    The quickest of three times counts: what else the machine does only adds to it.
    """
    workshop.write("app.py", APP)
    roles = [("collector", "--journal", "run.db"), ("distributor",)]
    programs = [workshop.start("-m", "app", *role) for role in roles]
    workers = [workshop.start("-m", "app", "worker", "C") for _ in range(2)]
    seconds = []
    for known in (100, 200, 300):
        eventually(lambda known=known: len(workshop.lines("collected")) == known, f"{known} items")
        for program in programs:
            program.signal(signal.SIGKILL)
        for program in programs:
            program.wait()
        workshop.write(f"go{known}", "")
        programs = [workshop.start("-m", "app", *role) for role in (roles if collector_first else reversed(roles))]
        eventually(lambda calls=known // 100 + 1: len(workshop.lines("sources")) == calls, "the source is called again")
        since = time.monotonic()
        eventually(lambda known=known: len(workshop.lines("collected")) > known, "another item")
        seconds.append(time.monotonic() - since)
    assert [one.wait() for one in (*programs, *workers)] == [0] * 4
    assert set(workshop.numbers("collected")) == set(range(400))
    assert min(seconds) < IDLE, seconds
