"""The app of the benchmarks about sleeping items: naps of one length, or some of them a hundred times longer.

The environment says how many threads a worker has (`BENCH_THREADS`), since an app says that when it is imported.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

from examples.benchmarks import meeting, work
from zmqpipeline import Pipeline

LONGER = 100
"""How much longer a long nap is."""

app = Pipeline("benchmark-nap")
_tally = work.Tally()
_naps: list[float] = []


@app.task("nap")
def naps(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many as the metadata says; `long` of them are long, and stand anywhere, as `seed` has it."""
    count, seconds = int(metadata["items"]), float(metadata["seconds"])
    long = set(random.Random(metadata.get("seed", "0")).sample(range(count), int(metadata.get("long", "0"))))
    for item in work.items("nap", count, seconds=seconds):
        yield {**item, "seconds": LONGER * seconds} if item["n"] in long else item


@app.thread_init("nap")
def begin(metadata: dict[str, Any]) -> None:
    """Wait until the other threads and workers are ready, too."""
    meeting.attend(metadata.get("meeting", ""))


@app.worker("nap", threads=int(os.environ.get("BENCH_THREADS", "1")))
def nap(data: dict[str, Any]) -> dict[str, Any]:
    """Sleep."""
    return work.nap(data)


@app.collector
def collect(data: dict[str, Any]) -> None:
    """Count, add up, and note how long it really took."""
    _tally.add(data["double"])
    _naps.append(data["took"])


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write when the first and the last item came, and how long they slept (seconds): all together, and the longest."""
    _tally.write(int(metadata["items"]), metadata["out"], slept=sum(_naps), longest=max(_naps))


if __name__ == "__main__":
    app.main()
