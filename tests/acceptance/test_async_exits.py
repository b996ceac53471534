"""Tasks of async calls that raise SystemExit, in real processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import HEAD, MAIN, collected, start

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

EXITS = """
import asyncio

async def exits():
    sys.exit(3)

@app.service("ask", concurrency=5)
async def ask(data):
    await asyncio.sleep(0.01)
    if data["n"] == 7:
        await asyncio.gather(exits())
    return data

app.task("C", on_failed="continue")(lambda: items(50))

@app.worker("C", concurrency=5)
async def work(data):
    await asyncio.sleep(0.01)
    if data["n"] == 7:
        await asyncio.gather(exits())
    return data
"""


def test_a_task_of_a_call_that_exits_ends_no_worker(workshop: Workshop) -> None:
    """Its item has failed, and all others are collected, by the same process."""
    program = start(workshop, EXITS)
    assert program.wait() == 1, program.err
    assert collected(workshop) == [n for n in range(50) if n != 7]
    assert "SystemExit" in program.err


def test_a_task_of_a_call_that_exits_ends_no_service(workshop: Workshop) -> None:
    """The client of that request is told, and so are those of all others."""
    workshop.write("app.py", HEAD + EXITS + MAIN)
    workshop.write(
        "client.py",
        """
import app, json
with app.app.client("ask") as client:
    replies = list(client.stream(({"n": n} for n in range(50)), return_exceptions=True))
failed = [str(one) for one in replies if isinstance(one, Exception)]
print(json.dumps([len(replies) - len(failed), failed]))
""",
    )
    workshop.start("-m", "app", "service")
    workshop.start("-m", "app", "service-worker", "ask")
    status, program = workshop.run("client.py")
    assert status == 0, program.err
    good, (said,) = program.json
    assert good == 49
    assert "SystemExit" in said
