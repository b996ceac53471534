"""Calls that wait: `async def` workers beside plain asyncio, and what an awaited item and a record cost.

20,000 calls of 20 ms, 1,000 at a time, take at least 0.4 s; beside them stands plain asyncio, in one process, with a
task for each call and a semaphore. With aiohttp installed, so many requests to a server of its own that waits 50 ms.
Trivial items of an async worker stand beside those of a thread, and records of five fields beside dicts of five.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import click

from examples.benchmarks.figures import Row, row, show, standard
from examples.benchmarks.sides import Run, free_ports, run_ours

APP = "examples.benchmarks.waiting_app:app"
CALL, REQUEST = 0.02, 0.05
"""Seconds that a call and a request wait."""

SERVER = """
import asyncio, sys
from aiohttp import web

async def wait(request):
    await asyncio.sleep(float(sys.argv[2]))
    return web.Response(text="done")

app = web.Application()
app.router.add_get("/", wait)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=lambda *_: print("ready", flush=True))
"""


async def _all(count: int, at_once: int, call: Callable[[], Awaitable[object]]) -> float:
    """As it is written without any library: a task for each call, and a semaphore."""
    free = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with free:
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return time.perf_counter() - began


async def _requests(count: int, at_once: int, address: str) -> float:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> None:
            async with session.get(address) as answer:
                await answer.read()

        await ask()
        return await _all(count, at_once, ask)


@contextmanager
def _server() -> Iterator[str]:
    port = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port), str(REQUEST)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _ours(kind: str, items: int, at_once: int = 1, **metadata: object) -> Run:
    os.environ["BENCH_CONCURRENCY"] = str(at_once)
    return run_ours(APP, kind=kind, items=items, **metadata)


def measure(calls: int, requests: int, items: int, rounds: int) -> list[Row]:
    """All rounds, everything in turn."""
    raw: dict[str, list[float]] = defaultdict(list)
    ours: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        raw["calls"].append(asyncio.run(_all(calls, 1000, lambda: asyncio.sleep(CALL))))
        ours["calls"].append(_ours("sleep", calls, 1000, seconds=CALL).whole)
        if find_spec("aiohttp") is not None:
            with _server() as address:
                raw["requests"].append(asyncio.run(_requests(requests, 200, address)))
                ours["requests"].append(_ours("http", requests, 200, server=address).whole)
        raw["trivial"].append(_ours("thread", items).rate)
        ours["trivial"].append(_ours("trivial", items, 100).rate)
        raw["records"].append(_ours("dict", items).rate)
        ours["records"].append(_ours("record", items).rate)
    rows = [row(f"{calls:,} calls of 20 ms, 1,000 at a time", "s", raw["calls"], ours["calls"], "at most 1.15")]
    if "requests" in raw:
        name = f"{requests:,} HTTP requests of 50 ms, 200 at a time"
        rows.append(row(name, "s", raw["requests"], ours["requests"], "at most 1.1"))
    return [
        *rows,
        row("trivial items, async beside a thread", "items/s", raw["trivial"], ours["trivial"], "at least 0.25"),
        row("records of five fields beside dicts", "items/s", raw["records"], ours["records"], "at least 0.7"),
    ]


@click.command("waiting")
@click.option("--calls", type=click.IntRange(1), default=20_000, show_default=True)
@click.option("--requests", type=click.IntRange(1), default=5_000, show_default=True)
@click.option("--items", type=click.IntRange(10), default=300_000, show_default=True, help="Trivial ones.")
@standard
def command(calls: int, requests: int, items: int, rounds: int, as_json: bool) -> None:
    """Calls that wait, beside plain asyncio; what an awaited item and a record cost."""
    rows = measure(calls, requests, items, rounds)
    show("waiting", rows, as_json=as_json, sides=("the plain side", "zmqpipeline"))
