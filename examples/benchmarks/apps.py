"""The apps of the benchmarks: each with items of one kind, of which the collector checks that each came once.

Start one with ``python -m zmqpipeline -A examples.benchmarks.apps:NAME run``. The environment says how many threads a
worker of naps has (`BENCH_THREADS`), since an app says that when it is imported.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from examples.benchmarks import meeting, work
from zmqpipeline import Pipeline

LONGER = 100
"""How much longer a long nap is."""

Data = dict[str, Any]


def checked(
    name: str, *tasks: str, check: Callable[[Data], None] | None = None, more: Callable[[], Data] = dict
) -> Pipeline:
    """An app whose workers begin together, and whose collector counts and checks the results.

    Args:
        name: of the app.
        tasks: those whose workers wait for each other before their first item.
        check: raises for a result that is wrong, which is a failed item then, and ends the run with status 1.
        more: what else is written at the end, besides when the first and the last item came.
    """
    app = Pipeline(f"benchmark-{name}")
    tally = work.Tally()

    def begin(metadata: Data) -> None:
        meeting.attend(metadata.get("meeting", ""))

    def collect(data: Data) -> None:
        tally.add(data["double"])
        if check is not None:
            check(data)

    def report(metadata: Data) -> None:
        tally.write(int(metadata["items"]), metadata["out"], **more())

    for task in tasks:
        app.thread_init(task)(begin)
    app.collector(collect)
    app.finished(report)
    return app


# trivial items --------------------------------------------------------------------------------------------------------

trivial = checked("trivial", "trivial")


@trivial.task("trivial")
def numbers(metadata: Data) -> Iterator[Data]:
    """As many as the metadata says, all different."""
    return work.items("trivial", int(metadata["items"]))


@trivial.worker("trivial")
def double(data: Data) -> Data:
    """The smallest piece of work."""
    return {"n": data["n"], "double": 2 * data["n"]}


# one at a time --------------------------------------------------------------------------------------------------------

single = checked("single", "single")
_given: list[float] = []


@single.available("single")
def may_go(ack_data: Data) -> bool:
    """Whether everything that was given out has come back."""
    return bool(ack_data.get("_id", 0) >= len(_given))


@single.task("single")
def singles(metadata: Data) -> Iterator[Data]:
    """As many as the metadata says; at the end, write how long each took (seconds) until it was acknowledged."""
    for item in work.items("trivial", int(metadata["items"])):
        _given.append(time.perf_counter())
        yield item
    ends = [*_given, time.perf_counter()]
    took = [after - before for before, after in itertools.pairwise(ends)]
    Path(f"{metadata['out']}.times").write_text(json.dumps(took))


single.add_worker("single", double)

# items of so many bytes -----------------------------------------------------------------------------------------------


def blobs(metadata: Data) -> Iterator[Data]:
    """As many, and of as many bytes, as the metadata says."""
    return work.items("bytes", int(metadata["items"]), size=int(metadata["size"]))


_blob = lru_cache(work.blob)


@lru_cache
def _checksum(size: int) -> int:
    return zlib.crc32(work.blob(size))


def _check_bytes(data: Data) -> None:
    if data["data"] != _blob(len(data["data"])):
        raise ValueError(f"The bytes of item {data['n']} are not those that were sent.")


def _check_checksum(data: Data) -> None:
    if data["checksum"] != _checksum(data["size"]):
        raise ValueError(f"The bytes of item {data['n']} are not those that were sent.")


given_back = checked("bytes", "bytes", check=_check_bytes)
given_back.add_task("bytes", blobs)


@given_back.worker("bytes")
def hand_on(data: Data) -> Data:
    """Give the bytes back."""
    return work.hand_on(data)


weighed = checked("weigh", "bytes", check=_check_checksum)
weighed.add_task("bytes", blobs)


@weighed.worker("bytes")
def weigh(data: Data) -> Data:
    """The checksum of the bytes, and how many they are."""
    blob = data["data"]
    return {"n": data["n"], "double": 2 * data["n"], "size": len(blob), "checksum": zlib.crc32(blob)}


# naps of one length, or some of them a hundred times longer -----------------------------------------------------------

_naps: list[float] = []
nap = checked(
    "nap",
    "nap",
    check=lambda data: _naps.append(data["took"]),
    # seconds: how long they really slept
    more=lambda: {"slept": sum(_naps), "longest": max(_naps)},
)


@nap.task("nap")
def naps(metadata: Data) -> Iterator[Data]:
    """As many as the metadata says; `long` of them are long, and stand anywhere, as `seed` has it."""
    count, seconds = int(metadata["items"]), float(metadata["seconds"])
    long = set(random.Random(metadata.get("seed", "0")).sample(range(count), int(metadata.get("long", "0"))))
    for item in work.items("nap", count, seconds=seconds):
        yield {**item, "seconds": LONGER * seconds} if item["n"] in long else item


nap.add_worker("nap", work.nap, threads=int(os.environ.get("BENCH_THREADS", "1")))

# a service ------------------------------------------------------------------------------------------------------------

echo = Pipeline("benchmark-echo")


@echo.service("echo")
def answer(data: Data) -> Data:
    """Answer a request with itself."""
    return data


# three tasks of so many trivial items, each made of results of the one before ----------------------------------------

chain = Pipeline("benchmark-chain")
_last = work.Tally()
_before = {"first": 0.0}


def _again(data: Data) -> Data:
    return {"n": data["n"]}


chain.add_task("A", numbers)
chain.add_task("B", _again, for_each="A")
chain.add_task("C", _again, for_each="B")
for _name in "ABC":
    chain.add_worker(_name, double)


@chain.collector("A")
@chain.collector("B")
def note(data: Data) -> None:
    """The first result of all begins the clock."""
    if not _before["first"]:
        _before["first"] = time.monotonic()


@chain.collector
def collect(data: Data) -> None:
    """Count, and add up."""
    _last.add(data["double"])


@chain.finished
def report(metadata: Data) -> None:
    """Write when the first item of the first task came, and the last one of the last, if they are the right ones."""
    _last.first = _before["first"]
    _last.write(int(metadata["items"]), metadata["out"])
