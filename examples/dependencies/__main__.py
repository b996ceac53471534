"""Start it with ``python -m examples.dependencies run [--meta cakes=N]``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from zmqpipeline import Pipeline

STEP = 0.005
"""Seconds that each step takes."""

app = Pipeline("dependencies")
steps: list[str] = []


@app.metadata
def defaults() -> dict[str, Any]:
    """What ``--meta`` did not say."""
    return {"cakes": 20}


def cakes(metadata: dict[str, Any]) -> Iterator[dict[str, int]]:
    """One item a cake: the same for each of the four tasks."""
    for number in range(int(metadata["cakes"])):
        yield {"cake": number}


def work(data: dict[str, int]) -> dict[str, int]:
    """One step of one cake: the same for each of the four workers."""
    time.sleep(STEP)
    return data


# `add_task(...)` and `add_worker(...)` do what the decorators do, for functions that several tasks share.
# The order of these lines does not matter: `depends_on` says which task waits for which.
app.add_task("decorate", cakes, depends_on=["bake", "whip"])
app.add_task("bake", cakes, depends_on=["mix"])
app.add_task("whip", cakes)
app.add_task("mix", cakes)
for name in ("mix", "bake", "whip", "decorate"):
    app.add_worker(name, work)


@app.collector
def note(data: dict[str, int], task_type: str) -> None:
    """Keep the order in which the steps were done."""
    steps.append(task_type)


@app.finished
def report() -> None:
    """When each task had its first and its last result."""
    last = len(steps) - 1
    for name in dict.fromkeys(steps):
        print(
            f"{name}: {steps.count(name)} steps, from {steps.index(name) + 1} to {last - steps[::-1].index(name) + 1}"
        )


if __name__ == "__main__":
    app.main()
