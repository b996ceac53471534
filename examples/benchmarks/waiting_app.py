"""The app of the benchmark about calls that wait, and about records: `BENCH_KIND` says of which kind its worker is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from examples.benchmarks import meeting, work
from zmqpipeline import Pipeline

CONCURRENCY = int(os.environ.get("BENCH_CONCURRENCY", "1000"))
KIND = os.environ.get("BENCH_KIND", "")

app = Pipeline("benchmark-waiting")
_tally = work.Tally()


@dataclass
class Five:
    """A record of five fields."""

    n: int
    double: int
    name: str
    share: float
    flag: bool


@app.task("wait")
def items(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many as the metadata says; of five fields, if that is asked for."""
    count = int(metadata["items"])
    if KIND not in ("dict", "record"):
        yield from work.items("trivial", count)
        return
    for n in range(count):
        yield {"n": n, "double": 2 * n, "name": "a name", "share": 0.5, "flag": True}


@app.thread_init("wait")
def begin(metadata: dict[str, Any]) -> None:
    """Wait until the other workers are ready, too."""
    meeting.attend(metadata.get("meeting", ""))


async def sleep(data: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """Wait."""
    await asyncio.sleep(float(metadata["seconds"]))
    return work.double(data)


async def trivial(data: dict[str, Any]) -> dict[str, Any]:
    """The smallest piece of work, without waiting."""
    return work.double(data)


def take_dict(data: dict[str, Any]) -> dict[str, Any]:
    """A dict of five fields, in and out."""
    return {**data}


def take_record(data: Five) -> Five:
    """A record of five fields, in and out."""
    return Five(data.n, data.double, data.name, data.share, data.flag)


async def fetch(data: dict[str, Any], metadata: dict[str, Any], resource: Any) -> dict[str, Any]:
    """Ask an HTTP server."""
    async with resource.get(metadata["server"]) as answer:
        await answer.read()
    return work.double(data)


if KIND == "http":

    @app.worker_init("wait")
    async def session() -> AsyncIterator[Any]:
        """A session of aiohttp."""
        import aiohttp

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as made:
            yield made


if KIND in ("sleep", "trivial", "http"):
    app.add_worker("wait", {"sleep": sleep, "trivial": trivial, "http": fetch}[KIND], concurrency=CONCURRENCY)
else:
    app.add_worker("wait", {"dict": take_dict, "record": take_record}.get(KIND, work.double))


@app.collector
def collect(data: dict[str, Any]) -> None:
    """Count, and add up."""
    _tally.add(data["double"])


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write when the first and the last item came, if they are the right ones."""
    _tally.write(int(metadata["items"]), metadata["out"])
