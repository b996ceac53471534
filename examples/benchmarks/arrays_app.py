"""The app of the array benchmark: arrays of so many bytes, which the workers give back as they are."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.benchmarks import meeting, work
from zmqpipeline import Pipeline

app = Pipeline("benchmark-arrays")
_tally = work.Tally()


@cache
def expected(size: int) -> NDArray[np.float64]:
    """What is sent: as many float64 as have so many bytes."""
    return np.arange(size // 8, dtype=np.float64)


@app.task("arrays")
def arrays(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many, and of as many bytes, as the metadata says."""
    for n in range(int(metadata["items"])):
        yield {"n": n, "data": expected(int(metadata["size"]))}


@app.thread_init("arrays")
def begin(metadata: dict[str, Any]) -> None:
    """Wait until the other workers are ready, too."""
    meeting.attend(metadata.get("meeting", ""))


@app.worker("arrays")
def hand_on(data: dict[str, Any]) -> dict[str, Any]:
    """Give the array back."""
    return {"double": 2 * data["n"], **data}


@app.collector
def collect(data: dict[str, Any]) -> None:
    """Count, add up, and compare the numbers; a wrong one is a failed item, and ends the run with status 1."""
    _tally.add(data["double"])
    if not np.array_equal(data["data"], expected(data["data"].nbytes)):
        raise ValueError(f"The numbers of item {data['n']} are not those that were sent.")


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write when the first and the last item came, if they are the right ones."""
    _tally.write(int(metadata["items"]), metadata["out"])
