"""The app of the benchmark `chain`: three tasks of so many trivial items, each made of results of the one before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from examples.benchmarks import work
from zmqpipeline import Pipeline

app = Pipeline("benchmark-chain")
_tally = work.Tally()
_before = {"first": 0.0}


@app.task("A")
def numbers(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many as the metadata says, all different."""
    return work.items("trivial", int(metadata["items"]))


@app.task("B", for_each="A")
def again(data: dict[str, Any]) -> dict[str, Any]:
    """One for each."""
    return {"n": data["n"]}


@app.task("C", for_each="B")
def once_more(data: dict[str, Any]) -> dict[str, Any]:
    """One for each of these."""
    return {"n": data["n"]}


for _name in "ABC":
    app.add_worker(_name, work.double)


@app.collector("A")
@app.collector("B")
def note(data: dict[str, Any]) -> None:
    """The first result of all begins the clock."""
    if not _before["first"]:
        _before["first"] = time.monotonic()


@app.collector
def collect(data: dict[str, Any]) -> None:
    """Count, and add up."""
    _tally.add(data["double"])


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write when the first item of the first task came, and the last one of the last, if they are the right ones."""
    _tally.first = _before["first"]
    _tally.write(int(metadata["items"]), metadata["out"])


if __name__ == "__main__":
    app.main()
