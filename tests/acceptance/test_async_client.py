"""AsyncServiceClient and streams, with real brokers and workers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import Eventually

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

SHOP = """
import os, time
from dataclasses import dataclass
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("shop")

@dataclass
class Order:
    n: int
    wait: float = 0.0
    until: str = ""

@dataclass
class Bill:
    n: int
    cents: int

@app.worker_init("price")
def note():
    with open("pids", "a") as file:
        file.write(f"{os.getpid()}\\n")

@app.service("price", threads=4, idempotent=True)
def price(order: Order) -> Bill:
    time.sleep(order.wait)
    while order.until and not Path(order.until).exists():
        time.sleep(0.01)
    if order.n < 0:
        raise LookupError("no such thing")
    return Bill(order.n, 100 * order.n)

if __name__ == "__main__":
    app.main()
"""


def start(workshop: Workshop, workers: int = 1) -> None:
    """The broker and its workers."""
    workshop.write("shop.py", SHOP)
    workshop.start("-m", "shop", "service")
    for _ in range(workers):
        workshop.start("-m", "shop", "service-worker", "price")


@pytest.mark.slow
def test_a_thousand_requests_at_once_and_a_killed_worker(workshop: Workshop, eventually: Eventually) -> None:
    """All are answered: the service is idempotent, so the other worker has what the killed one had."""
    start(workshop, workers=2)
    workshop.write(
        "client.py",
        """
import asyncio
from shop import Order, app

async def main():
    async with app.async_client("price") as client:
        await asyncio.gather(*(client.request({"n": n, "wait": 0.2}) for n in range(16)))
        print("ready", flush=True)
        replies = await asyncio.gather(*(client.request(Order(n, 0.005)) for n in range(1000)))
        assert replies == [{"n": n, "cents": 100 * n} for n in range(1000)], replies
        print("done")

asyncio.run(main())
""",
    )
    program = workshop.start("client.py")
    eventually(lambda: "ready" in program.out, "both workers are there")
    os.kill(workshop.numbers("pids")[0], signal.SIGKILL)
    assert program.wait(60) == 0, program.err
    assert program.out.split() == ["ready", "done"]


@pytest.mark.slow
def test_streams_of_both_clients(workshop: Workshop) -> None:
    """Replies come as they are there, from any iterable; a failed one is raised, or stands in its place."""
    start(workshop)
    workshop.write(
        "client.py",
        """
import asyncio
import itertools
from pathlib import Path
from shop import app
from zmqpipeline.errors import ConfigurationError, ServiceError

taken = 0

def orders(count):
    global taken
    for n in range(count):
        taken += 1
        yield {"n": n}

with app.client("price") as client:
    # the first waits until the others are here
    slow = client.stream([{"n": 0, "until": "here"}, {"n": 1}, {"n": 2}])
    assert sorted(next(slow)["n"] for _ in range(2)) == [1, 2]
    Path("here").touch()
    assert [one["n"] for one in slow] == [0]
    assert sorted(one["n"] for one in client.stream(orders(5000), at_once=100)) == list(range(5000))
    taken = 0
    first = list(itertools.islice(client.stream(orders(5000), at_once=10), 20))
    assert len(first) == 20 and taken <= 40, taken
    try:
        list(client.stream([{"n": -1}, {"n": 1}]))
        raise AssertionError("raises")
    except ServiceError as error:
        assert "no such thing" in str(error)
    both = list(client.stream([{"n": -1}, {"n": 1, "wait": 0.2}, {"n": "x"}], return_exceptions=True))
    assert {"n": 1, "cents": 100} in both and len(both) == 3, both
    assert any("`$.n` must be an int, and is 'x' (a str)." in str(one) for one in both), both
    try:
        client.stream([], at_once=0)
        raise AssertionError("raises")
    except ConfigurationError:
        pass
    assert list(client.stream([])) == []

async def slowly():
    for n in range(20):
        await asyncio.sleep(0.01)
        yield {"n": n}

async def main():
    async with app.async_client("price") as client:
        assert client.task_type == "price"
        assert (await client.request([{"n": 1}, {"n": 2}]))[1]["n"] == 2
        assert (await client.submit({"n": 3}))["n"] == 3
        assert sorted([one["n"] async for one in client.stream(orders(2000), at_once=50)]) == list(range(2000))
        assert sorted([one["n"] async for one in client.stream(slowly())]) == list(range(20))
        try:
            async for one in client.stream([{"n": -1}]):
                pass
            raise AssertionError("raises")
        except ServiceError:
            pass
        try:
            await asyncio.wait_for(client.request({"n": 1, "wait": 30}), 0.1)
            raise AssertionError("is cancelled")
        except asyncio.TimeoutError:
            pass
        stream = client.stream({"n": n, "wait": 0.01} for n in range(100))
        async for one in stream:
            break
        await stream.aclose()

asyncio.run(main())
print("done")
""",
    )
    status, program = workshop.run("-X", "dev", "client.py", timeout=60)
    assert status == 0, program.err
    assert program.out == "done\n"
    assert "Warning" not in program.err, program.err
