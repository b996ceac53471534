"""The run that goes on beside the fuzzed frames: its source yields until a file is there; and a service."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zmqpipeline import Pipeline

app = Pipeline("fuzzed")
STOP = Path(os.environ.get("FUZZ_STOP", "stop"))


@app.task("C")
def numbers() -> Iterator[dict[str, Any]]:
    """Numbers, some hundreds a second."""
    for n in itertools.count():
        if STOP.exists():
            return
        yield {"n": n}
        time.sleep(0.002)


@app.worker("C")
def square(data: dict[str, Any]) -> dict[str, Any]:
    """What `tests.fuzz` computes, too."""
    return {"n": data["n"], "square": data["n"] ** 2}


@app.collector
def collect(data: dict[str, Any]) -> None:
    """A line a result."""
    print(data["n"], data["square"])


@app.service("double")
def double(data: dict[str, Any]) -> dict[str, Any]:
    """Twice the number."""
    return {"n": 2 * data["n"]}


if __name__ == "__main__":
    app.main()
