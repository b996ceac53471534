"""Async sources and collectors as real processes: they hold up nobody, and promise what plain ones do."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import HEAD, MAIN, Eventually

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

SLOW_SOURCE = """
import asyncio

@app.task("C")
async def source():
    try:
        for n in range(5):
            yield {"n": n}
        note("waits", "")
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(0)
        note("closed", "")

@app.worker("C")
def work(data):
    return data
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_source_that_waits_does_not_hold_up_its_role(number: int, workshop: Workshop, eventually: Eventually) -> None:
    """While it awaits, items go on, status is answered; a drain ends at once, and its `finally` is run."""
    workshop.write("app.py", HEAD + SLOW_SOURCE + MAIN)
    # whoever waited for the source would wait for all of the drain
    roles = {
        role: workshop.start("-m", "app", role, "--drain-timeout", "300")
        for role in ("distributor", "worker", "collector")
    }
    eventually(lambda: workshop.lines("waits") and len(workshop.lines("collected")) == 5, "five items")
    status, asked = workshop.run("-m", "app", "status", "--json")
    assert status == 0, asked.err
    assert asked.json["tasks"]["C"]["collected"] == 5
    roles["distributor"].signal(number)
    assert roles["distributor"].wait() == 128 + number
    assert "Traceback" not in roles["distributor"].err
    assert workshop.lines("closed") == [""]


def test_an_async_collector_writes_each_result_once_whoever_is_killed(
    workshop: Workshop, eventually: Eventually
) -> None:
    """With the journal's transaction, on its event loop."""
    body = """
import asyncio

@app.task("C")
def source():
    for n in range(400):
        # the last ones come when nobody is killed any more
        while n >= 300 and not Path("go").exists():
            time.sleep(0.01)
        yield {"n": n}

@app.worker("C")
def work(data):
    return data

@app.collector("C")
async def keep(data, journal):
    await asyncio.sleep(0.001)
    journal.execute("CREATE TABLE IF NOT EXISTS seen (n INTEGER)")
    journal.execute("INSERT INTO seen VALUES (:n)", data)
    note("kept", data["n"])
"""
    workshop.write("app.py", HEAD + body + MAIN)

    def collector() -> Program:
        return workshop.start("-m", "app", "collector", "--journal", "run.journal")

    others = [workshop.start("-m", "app", role) for role in ("distributor", "worker")]
    for count in (50, 150, 250):
        program = collector()
        eventually(lambda least=count: len(workshop.lines("kept")) > least, "some")
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    workshop.write("go", "")
    assert collector().wait() == 0
    assert [one.wait() for one in others] == [0, 0]
    with contextlib.closing(sqlite3.connect(workshop.folder / "run.journal")) as db:
        assert [n for (n,) in db.execute("SELECT n FROM seen ORDER BY n")] == list(range(400))


WAITING = """
import asyncio, os

@app.task("C")
def source():
    for n in range(40):
        yield {"n": n}

@app.worker("C")
def work(data):
    return data

@app.collector("C"BATCH)
async def keep(data):
    note("called", "")
    if not os.path.exists("again"):
        await asyncio.sleep(3600)
    for one in data if isinstance(data, list) else [data]:
        note("kept", one["n"])
"""


@pytest.mark.parametrize("journal", [(), ("--journal", "run.journal")])
@pytest.mark.parametrize("batch", ["", ", batch=10"])
def test_a_collector_that_waits_is_cancelled_as_its_role_ends(
    batch: str, journal: tuple[str, ...], workshop: Workshop, eventually: Eventually
) -> None:
    """By Ctrl-C: its item has not failed, and neither it nor another one is called for again by the role that ends."""
    workshop.write("app.py", HEAD + WAITING.replace("BATCH", batch) + MAIN)
    command = ("-m", "app", "run", *journal, "--workers", "1", "--drain-timeout", "1")
    program = workshop.start(*command)
    eventually(lambda: len(workshop.lines("called")) == 1, "the first call")
    program.signal(signal.SIGINT, group=True)
    assert program.wait() != 0
    assert len(workshop.lines("called")) == 1
    assert "failed" not in program.err
    workshop.write("again", "")
    status, program = workshop.run(*command)
    assert status == 0, program.err
    assert sorted(map(int, workshop.lines("kept"))) == list(range(40))
