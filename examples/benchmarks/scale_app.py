"""The app of the scale benchmark: trivial items of any number of tasks, and what they cost distributor and collector.

The environment says how many tasks there are (`BENCH_TASKS`). Cost is the time that the process had a processor, of all
its threads, from the item `warm` on.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from examples.benchmarks import work
from zmqpipeline import Pipeline

TASKS = [f"task{number}" for number in range(int(os.environ.get("BENCH_TASKS", "1")))]

app = Pipeline("benchmark-scale")
_tally = work.Tally()
_mark = {"cpu": 0.0, "at": 0.0}
_given = itertools.count(1)
_over = itertools.count(1)
_guard = threading.Lock()


def note() -> None:
    """From here on it counts."""
    _mark.update(cpu=time.process_time(), at=time.monotonic())


def since() -> dict[str, float]:
    """Seconds since `note`: of the processor, and of the clock."""
    return {"cpu": time.process_time() - _mark["cpu"], "clock": time.monotonic() - _mark["at"]}


def source(index: int) -> Callable[[dict[str, Any]], Iterator[dict[str, Any]]]:
    """The function of one task, which yields its share of the numbers."""

    def numbers(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
        warm = int(metadata["warm"])
        # some wait until all workers are there
        while (gate := metadata.get("gate")) and not Path(gate).exists():
            time.sleep(0.01)
        for n in range(index, int(metadata["items"]), len(TASKS)):
            if next(_given) == warm:
                note()
            yield {"n": n}
        with _guard:
            if next(_over) == len(TASKS):
                Path(f"{metadata['out']}.distributor").write_text(json.dumps(since()))

    return numbers


for _index, _task in enumerate(TASKS):
    app.add_task(_task, source(_index))
    app.add_worker(_task, work.double)


@app.collector
def collect(data: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Count, and add up."""
    _tally.add(data["double"])
    if _tally.count == int(metadata["warm"]):
        note()


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write what they cost, if all items have come."""
    _tally.write(int(metadata["items"]), metadata["out"], **since())
