"""Async workers as real processes: all that threads promise. `test_async_at_once.py` has how many calls go on."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import RUN, Eventually, collected, start

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes


@contextmanager
def hanging_server() -> Iterator[tuple[int, list[str]]]:
    """A server that answers nothing; the port, and what it saw: "open" and "closed"."""
    seen: list[str] = []
    ready, over = threading.Event(), threading.Event()
    port = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append("open")
        await reader.read()
        seen.append("closed")
        writer.close()

    async def main() -> None:
        nonlocal port
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        ready.set()
        await asyncio.to_thread(over.wait)
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(60)
    try:
        yield port, seen
    finally:
        over.set()
        thread.join(60)


def test_a_call_past_its_time_is_cancelled(workshop: Workshop, eventually: Eventually) -> None:
    """A server that hangs, a limit of 0.5 s: the items have failed, after a retry each; the server sees each end."""
    body = """
import asyncio

app.task("C", timeout=0.5, retries=1, backoff=0.01)(lambda: items(5))

@app.worker("C", concurrency=10)
async def work(data, attempt):
    note("executed", data["n"])
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["SERVER"]))
    note("connected", data["n"])
    try:
        await reader.readline()
    finally:
        writer.close()

@app.failed
def failed(failure):
    note("failed", f"{failure.data['n']} {failure.error} {failure.attempts} {failure.message}")
"""
    with hanging_server() as (port, seen):
        program = start(workshop, body, SERVER=str(port))
        assert program.wait() == 1, program.err
        said = "TimeoutError 2 The item ran longer than its timeout of 0.5 s; the call was cancelled."
        assert sorted(workshop.lines("failed")) == [f"{n} {said}" for n in range(5)]
        assert Counter(workshop.numbers("executed")) == dict.fromkeys(range(5), 2)
        # where the machine stalls, the time of a call may be over before it is connected
        connected = len(workshop.lines("connected"))
        eventually(lambda: seen.count("open") == seen.count("closed") >= connected, "the server sees each end")
        assert connected > 0
    assert program.json["failures"] == 5


ENDS = """
import asyncio

app.task("C")(lambda: items(1000))

@app.worker("C", concurrency=5)
async def work(data):
    note("begun", data["n"])
    try:
        while not Path("go").exists():
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        note("cancelled", data["n"])
        raise
    note("ended", data["n"])
    return data
"""


def states(workshop: Workshop) -> list[str]:
    """How the distributor says that its workers are; nothing while it says nothing."""
    status, asked = workshop.run("-m", "app", "status", "--json")
    return [one["state"] for one in asked.json["workers"]] if status == 0 else []


def test_a_drain_lets_calls_end(workshop: Workshop, eventually: Eventually) -> None:
    """Ctrl-C: what has begun ends and is collected, nothing is cancelled, nothing more begins."""
    program = start(workshop, ENDS)
    eventually(lambda: len(workshop.lines("begun")) == 5, "five calls")
    program.signal(signal.SIGINT)
    eventually(lambda: "The run drains" in program.err, "the drain is said")
    eventually(lambda: states(workshop) == ["draining"], "its worker knows")
    workshop.write("go", "")
    assert program.wait() == 130, program.err
    assert collected(workshop) == sorted(workshop.numbers("ended")) == list(range(5))
    assert workshop.lines("cancelled") == []


def test_a_stop_cancels_calls(workshop: Workshop, eventually: Eventually) -> None:
    """When the time of a drain is over they are cancelled, and may clean up; the items are the next worker's."""
    worker = start(workshop, ENDS, "-m", "app", "worker", ZMQPIPELINE_DRAIN_TIMEOUT="0.2")
    others = [workshop.start("-m", "app", "distributor"), workshop.start("-m", "app", "collector")]
    eventually(lambda: len(workshop.lines("begun")) == 5, "five calls")
    worker.signal(signal.SIGINT)
    assert worker.wait() == 130, worker.err
    assert sorted(workshop.numbers("cancelled")) == list(range(5))
    assert workshop.lines("ended") == []
    workshop.write("go", "")
    workshop.start("-m", "app", "worker")
    assert [one.wait() for one in others] == [0, 0], others[0].err
    assert collected(workshop) == list(range(1000))


@pytest.mark.slow
def test_a_blocked_event_loop_is_told_of(workshop: Workshop, eventually: Eventually) -> None:
    """Five seconds in plain code: one line, with the function and where it is; the run ends well."""
    body = """
import asyncio

app.task("C")(lambda: items(20))

def parse(data):
    while not Path("go").exists():
        time.sleep(0.01)

@app.worker("C")
async def work(data):
    await asyncio.sleep(0.01)
    if data["n"] == 3:
        parse(data)
    return data
"""
    program = start(workshop, body)
    eventually(lambda: "holds up its event loop" in program.err, "it is told")
    # several looks more
    time.sleep(1)
    workshop.write("go", "")
    assert program.wait() == 0, program.err
    (line,) = [one for one in program.err.splitlines() if "holds up its event loop" in one]
    assert "worker function 'work' of task 'C' (app.py:" in line
    assert "it is in app.py:" in line
    assert " parse. What takes long must be awaited" in line


GONE_ON = """
import asyncio

app.task("C", timeout=5, retries=0)(lambda: items(3))

@app.worker("C", concurrency=1)
async def work(data):
    if data["n"] == 1:
        ENDLESS
    return data

@app.failed
def failed(failure):
    note("failed", f"{failure.data['n']} {failure.error}")
"""

SWALLOWS = """while True:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                pass"""


@pytest.mark.slow
@pytest.mark.parametrize("endless", [SWALLOWS, "time.sleep(1000)"], ids=["swallows", "blocks"])
def test_a_call_that_nothing_ends_fails_though_it_is_the_only_one(endless: str, workshop: Workshop) -> None:
    """Its process is at its end with it: the failure is told before, another one takes the rest, and the run ends."""
    program = start(workshop, GONE_ON.replace("ENDLESS", endless))
    assert program.wait(60) == 1, program.err
    assert collected(workshop) == [0, 2]
    assert workshop.lines("failed") == ["1 TimeoutError"]
    assert "ended by status 70" in program.err


CLOSES = """
import asyncio

app.task("C")(lambda: items(100000))

@app.worker_init("C")
async def opened():
    note("opened", os.getpid())
    yield
    await asyncio.sleep(2.5)
    note("closed", os.getpid())

@app.worker("C", concurrency=2)
async def work(data):
    await asyncio.sleep(0.02)
    return data
"""


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_what_closes_slowly_is_closed_when_a_run_is_ended(
    signum: int, workshop: Workshop, eventually: Eventually
) -> None:
    """It may take as long as a drain, though the distributor and the collector have ended meanwhile."""
    program = start(workshop, CLOSES)
    eventually(lambda: len(workshop.lines("collected")) > 20, "some are collected")
    program.signal(signum)
    assert program.wait(60) == 128 + signum, program.err
    assert workshop.lines("closed") == workshop.lines("opened") != []
    assert "killed" not in program.err


def test_log_lines_name_their_item(workshop: Workshop) -> None:
    """Of calls that go on at a time, each with its own."""
    body = """
import asyncio, logging

app.task("C")(lambda: items(20))

@app.worker("C")
async def work(data):
    await asyncio.sleep(0.01)
    logging.getLogger("zmqpipeline.worker.mine").warning("at %d", data["n"])
    return data
"""
    program = start(workshop, body, *RUN, "--log-json")
    assert program.wait() == 0, program.err
    lines = [json.loads(one) for one in program.err.splitlines() if one.startswith("{")]
    mine = {one["message"]: (one["task"], one["item"]) for one in lines if one["message"].startswith("at ")}
    assert mine == {f"at {n}": ("C", n) for n in range(20)}


REFUSED = {
    "threads of an async function": (
        """
@app.worker("C", threads=4)
async def work(data):
    return data
""",
        RUN,
        "threads=4 says nothing. Write concurrency=4: so many calls at a time.",
    ),
    "concurrency of a plain function": (
        """
@app.worker("C", concurrency=40)
def work(data):
    return data
""",
        RUN,
        "concurrency=40 says nothing. Write threads=40, or `async def`.",
    ),
    "threads of the command line": (
        """
@app.worker("C")
async def work(data):
    return data
""",
        ("-m", "app", "worker", "--threads", "4"),
        "its calls share one thread, not 4. How many go on at a time its decorator says, with concurrency=.",
    ),
    "an async init of a plain worker": (
        """
@app.worker_init("C")
async def begin():
    return 1

@app.worker("C")
def work(data):
    return data
""",
        RUN,
        "Write both with `async def`, or both with `def`.",
    ),
    "an async ack_data": (
        """
@app.worker("C")
def work(data):
    return data

@app.ack_data
async def data():
    return None
""",
        RUN,
        "is an async function; these are not called. Write it with plain `def`.",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_says_nothing_is_refused_with_what_to_write(what: str, workshop: Workshop) -> None:
    """One sentence, before anything is executed."""
    body, arguments, said = REFUSED[what]
    program = start(workshop, 'app.task("C")(lambda: items(3))\n' + body, *arguments)
    # what a decorator refuses python itself shows, with the line of the decorator
    assert program.wait() == (1 if "Traceback" in program.err else 2), program.err
    assert said in " ".join(program.err.split()), program.err
