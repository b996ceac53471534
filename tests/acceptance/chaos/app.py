"""The pipeline that the chaos runs: ``python -m tests.acceptance.chaos.app distributor|worker|collector|...``.

Every execution, every call of the collector's function and every failure is a line of a file, written at once, with
the time and the process, so that a process that is killed in the next moment has said it. ``time.monotonic`` is one
clock for all processes of a machine.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.acceptance.chaos.plan import STATUSES, Plan
from zmqpipeline import Pipeline

PLAN = Plan.from_environ()
app = Pipeline("chaos")
_files: dict[str, int] = {}


def note(name: str, *words: object) -> None:
    """Append one line to a file of the run: these words, the time, this process."""
    if name not in _files:
        _files[name] = os.open(Path(PLAN.folder) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(_files[name], f"{' '.join(map(str, words))} {time.monotonic():.6f} {os.getpid()}\n".encode())


RETRIES = 4 if PLAN.with_credit else 0


def items_of(task: str) -> Iterator[dict[str, Any]]:
    """The items of a task: numbers from 0."""
    for n in range(PLAN.sizes[task]):
        yield {"n": n}


if PLAN.staged:

    @app.task("A", first=[{"n": 0}], for_each="A", key="n", backoff=0.02)
    def circle(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What a result of A gives to A."""
        for n in PLAN.children(data["n"]):
            yield {"n": n}

    @app.task("B", for_each="A", backoff=0.02)
    def follow(data: dict[str, Any]) -> dict[str, Any] | None:
        """What every second result of A gives to B."""
        half, rest = divmod(data["n"], 2)
        return None if rest or half >= PLAN.sizes["B"] else {"n": half}

else:

    @app.task("A", retries=RETRIES, backoff=0.02)
    def first() -> Iterator[dict[str, Any]]:
        """What goes first."""
        yield from items_of("A")

    @app.task("B", depends_on=("A",), on_failed="continue", retries=RETRIES, backoff=0.02)
    def second() -> Iterator[dict[str, Any]]:
        """What waits until all of A is done."""
        yield from items_of("B")


def execute(data: dict[str, Any], task_type: str, attempt: int) -> dict[str, Any]:
    """One item: it says that it runs, and takes its time."""
    note("executions", task_type, data["n"], attempt)
    if task_type == "A" and data["n"] in PLAN.with_credit:
        eat()
    if task_type == "A" and data["n"] in PLAN.deadly:
        os._exit(STATUSES[(PLAN.seed + PLAN.deadly.index(data["n"])) % len(STATUSES)])
    time.sleep(PLAN.seconds * (PLAN.slower if task_type == "B" else 1))
    return data


def eat() -> None:
    """Take memory until there is none: a worker with a limit raises, one without waits for whoever ends it."""
    eaten = []
    size = 1 << 20
    while PLAN.spare_bytes:
        try:
            eaten.append(bytearray(size))
        except MemoryError:
            if size < 4096:
                raise
            size //= 2
    time.sleep(60)


def limit_memory() -> None:
    """The process may allocate so much more than it has now, and then no more."""
    if PLAN.spare_bytes:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + PLAN.spare_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


for _task in PLAN.sizes:
    app.add_worker(_task, execute, threads=PLAN.threads, max_items=PLAN.max_items)
    app.add_worker_init(_task, limit_memory)


if PLAN.journal:

    @app.collector("A")
    @app.collector
    def collect_in_journal(data: dict[str, Any], task_type: str, journal: Any) -> None:
        """A row in the transaction that also marks the item as collected."""
        journal.execute("CREATE TABLE IF NOT EXISTS collected (task TEXT, n INTEGER, at REAL, pid INTEGER)")
        row = (task_type, data["n"], time.monotonic(), os.getpid())
        journal.execute("INSERT INTO collected VALUES (?, ?, ?, ?)", row)
        note("calls", task_type, data["n"], 0)

else:

    @app.collector("A")
    @app.collector
    def collect(data: dict[str, Any], task_type: str) -> None:
        """A line in a file."""
        note("calls", task_type, data["n"], 0)


@app.failed
def failed(failure: Any) -> None:
    """A line for each item that was given up."""
    note("failures", failure.task_type, failure.data["n"], failure.attempts)


@app.service("double", threads=PLAN.threads, idempotent=True)
def double(data: dict[str, Any], attempt: int) -> dict[str, Any]:
    """One request: it may be executed again by another worker."""
    note("executions", data["client"], data["n"], attempt)
    time.sleep(PLAN.seconds)
    return {"n": data["n"], "double": 2 * data["n"]}


if __name__ == "__main__":
    if PLAN.file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (PLAN.file_bytes, PLAN.file_bytes))
    app.main()
