"""Start it with ``python -m examples.singlethread run [--workers N] [--meta items=N] [--meta delay=SECONDS]``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from zmqpipeline import Pipeline

app = Pipeline("singlethread")
arrivals: list[float] = []


@app.metadata
def defaults() -> dict[str, Any]:
    """What ``--meta`` did not say."""
    return {"items": 100, "delay": 0.01}


@app.task("nap")
def naps(metadata: dict[str, Any]) -> Iterator[dict[str, float]]:
    """One item a nap."""
    # what --meta gives is a string, what `defaults` gives is a number
    for _ in range(int(metadata["items"])):
        yield {"seconds": float(metadata["delay"])}


@app.worker("nap")
def sleep(data: dict[str, float]) -> None:
    """Stands for work that takes a while; there is no result."""
    time.sleep(data["seconds"])


@app.collector
def arrive(data: dict[str, Any]) -> None:
    """Runs for each item, also for one without a result."""
    arrivals.append(time.monotonic())


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """From the first arrival to the last, so that the start of the processes is not in it."""
    if len(arrivals) < 2:
        print("There is nothing to measure: ask for two items or more.")
        return
    delay, seconds = float(metadata["delay"]), arrivals[-1] - arrivals[0]
    slept = delay * (len(arrivals) - 1)
    print(f"{len(arrivals)} naps of {delay * 1000:g} ms; after the first, {slept:.2f} s of naps took {seconds:.2f} s")


if __name__ == "__main__":
    app.main()
