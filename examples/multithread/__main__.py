"""Start it with ``python -m examples.multithread run [--workers N] [--meta items=N] [--meta delay=SECONDS]``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from zmqpipeline import Pipeline

THREADS = 10

app = Pipeline("multithread")
arrivals: list[float] = []
shares: Counter[str] = Counter()


@app.metadata
def defaults() -> dict[str, Any]:
    """What ``--meta`` did not say."""
    return {"items": 200, "delay": 0.01}


@app.task("nap")
def naps(metadata: dict[str, Any]) -> Iterator[dict[str, float]]:
    """One item a nap."""
    for _ in range(int(metadata["items"])):
        yield {"seconds": float(metadata["delay"])}


@app.thread_init("nap")
def bed(thread_index: int) -> str:
    """Made once in each thread; a connection to a database would be made here."""
    return f"bed {thread_index}"


@app.worker("nap", threads=THREADS)
def sleep(data: dict[str, float], resource: str) -> dict[str, str]:
    """Runs on ten threads at once; `resource` is what `bed` made for this one."""
    time.sleep(data["seconds"])
    return {"bed": resource}


@app.collector
def arrive(data: dict[str, str]) -> None:
    """Runs on one thread, so it may count without a lock."""
    arrivals.append(time.monotonic())
    shares[data["bed"]] += 1


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """How long it took, and how evenly the threads shared the items."""
    if not arrivals:
        print("There were no items.")
        return
    delay, seconds = float(metadata["delay"]), arrivals[-1] - arrivals[0]
    slept = delay * len(arrivals)
    print(f"{len(arrivals)} naps of {delay * 1000:g} ms: {slept:.2f} s of naps took {seconds:.2f} s")
    print(f"{len(shares)} beds, {min(shares.values())} to {max(shares.values())} naps in each")


if __name__ == "__main__":
    app.main()
