"""The app of the payload benchmark: items of so many bytes, which the workers give back as they are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from examples.benchmarks import meeting, work
from zmqpipeline import Pipeline

app = Pipeline("benchmark-bytes")
_tally = work.Tally()
_expected = lru_cache(work.blob)


@app.task("bytes")
def blobs(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many, and of as many bytes, as the metadata says."""
    return work.items("bytes", int(metadata["items"]), size=int(metadata["size"]))


@app.thread_init("bytes")
def begin(metadata: dict[str, Any]) -> None:
    """Wait until the other workers are ready, too."""
    meeting.attend(metadata.get("meeting", ""))


@app.worker("bytes")
def hand_on(data: dict[str, Any]) -> dict[str, Any]:
    """Give the bytes back."""
    return work.hand_on(data)


@app.collector
def collect(data: dict[str, Any]) -> None:
    """Count, add up, and compare the bytes; a wrong one is a failed item, and ends the run with status 1."""
    _tally.add(data["double"])
    if data["data"] != _expected(len(data["data"])):
        raise ValueError(f"The bytes of item {data['n']} are not those that were sent.")


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write when the first and the last item came, if they are the right ones."""
    _tally.write(int(metadata["items"]), metadata["out"])


if __name__ == "__main__":
    app.main()
