"""The app of several benchmarks: so many trivial items, of which the collector checks that each came once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zmqpipeline import Pipeline

app = Pipeline("benchmark-trivial")
_seen = {"count": 0, "sum": 0, "first": 0.0}


@app.task("trivial")
def numbers(metadata: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As many as the metadata says, all different."""
    for n in range(int(metadata["items"])):
        yield {"n": n}


@app.worker("trivial")
def double(data: dict[str, Any]) -> dict[str, Any]:
    """The smallest piece of work."""
    return {"n": data["n"], "double": 2 * data["n"]}


@app.collector
def collect(data: dict[str, Any]) -> None:
    """Count, and add up: a repeat and a loss do not make up for each other in both."""
    if not _seen["count"]:
        _seen["first"] = time.monotonic()
    _seen["count"] += 1
    _seen["sum"] += data["double"]


@app.finished
def report(metadata: dict[str, Any]) -> None:
    """Write how long it took, from the first item collected to the last, if they are the right ones."""
    ended = time.monotonic()
    items = int(metadata["items"])
    if (_seen["count"], _seen["sum"]) != (items, items * (items - 1)):
        raise SystemExit(f"{_seen['count']} of {items} items were collected, with the sum {_seen['sum']}.")
    Path(metadata["out"]).write_text(json.dumps({"items": items, "seconds": ended - _seen["first"]}))


if __name__ == "__main__":
    app.main()
