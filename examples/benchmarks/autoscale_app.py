"""The app of `autoscale`: a burst of naps, a pause until somebody says go, and one more item."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from examples.benchmarks import work
from zmqpipeline import Pipeline

ITEMS, SECONDS = int(os.environ.get("BENCH_ITEMS", "10")), float(os.environ.get("BENCH_SECONDS", "0.05"))
FOLDER = Path(os.environ.get("BENCH_FOLDER", "."))

app = Pipeline("benchmark-autoscale")
_tally = work.Tally()


@app.task("nap", total=ITEMS + 1 if os.environ.get("BENCH_TOTAL") else None)
def naps() -> Iterator[dict[str, Any]]:
    """The burst; the last item when it is wanted."""
    yield from work.items("nap", ITEMS, seconds=SECONDS)
    while not (FOLDER / "go").exists():
        time.sleep(0.02)
    yield {"n": ITEMS, "seconds": SECONDS}


app.add_worker("nap", work.nap)


@app.collector
def collect(data: dict[str, Any]) -> None:
    """Count, and write when the last of the burst came."""
    if data["n"] == ITEMS:
        return
    _tally.add(data["double"])
    if _tally.count == ITEMS:
        _tally.write(ITEMS, FOLDER / "figures.new")
        # whoever looks for it finds all of it
        (FOLDER / "figures.new").rename(FOLDER / "figures.json")


if __name__ == "__main__":
    app.main()
