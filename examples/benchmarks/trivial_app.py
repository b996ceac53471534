"""The app of several benchmarks: so many trivial items, of which the collector checks that each came once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from examples.benchmarks import meeting, work
from zmqpipeline import Pipeline

app = Pipeline("benchmark-trivial")
_tally = work.Tally()


@app.task("trivial")
def numbers(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many as the metadata says, all different."""
    return work.items("trivial", int(metadata["items"]))


@app.thread_init("trivial")
def begin(metadata: dict[str, Any]) -> None:
    """Wait until the other workers are ready, too."""
    meeting.attend(metadata.get("meeting", ""))


@app.worker("trivial")
def double(data: dict[str, Any]) -> dict[str, Any]:
    """The smallest piece of work."""
    return {"n": data["n"], "double": 2 * data["n"]}


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
