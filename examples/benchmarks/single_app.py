"""The app of the latency benchmark: an item is only given out when the one before it is acknowledged."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.benchmarks import meeting, work
from zmqpipeline import Pipeline

app = Pipeline("benchmark-single")
_tally = work.Tally()
_given: list[float] = []


@app.available("single")
def may_go(ack_data: dict[str, Any]) -> bool:
    """Whether everything that was given out has come back."""
    return bool(ack_data.get("_id", 0) >= len(_given))


@app.task("single")
def singles(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many as the metadata says; at the end, write how long each took (seconds) until it was acknowledged."""
    for item in work.items("trivial", int(metadata["items"])):
        _given.append(time.perf_counter())
        yield item
    ends = [*_given, time.perf_counter()]
    took = [after - before for before, after in itertools.pairwise(ends)]
    Path(f"{metadata['out']}.times").write_text(json.dumps(took))


@app.thread_init("single")
def begin(metadata: dict[str, Any]) -> None:
    """Tell that the worker is ready."""
    meeting.attend(metadata.get("meeting", ""))


@app.worker("single")
def double(data: dict[str, Any]) -> dict[str, Any]:
    """The smallest piece of work."""
    return work.double(data)


@app.collector
def collect(data: dict[str, Any]) -> None:
    """Count, and add up."""
    _tally.add(data["double"])


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write when the first and the last item came, if they are the right ones."""
    _tally.write(int(metadata["items"]), metadata["out"])


if __name__ == "__main__":
    app.main()
