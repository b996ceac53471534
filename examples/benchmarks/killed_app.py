"""The job of the benchmark `killed`, for each side: two steps of 1 ms for each item, by two worker processes.

Start one with ``python -m examples.benchmarks.killed_app SIDE ITEMS``. Each step that is done, and each item that has
come back, is a line of a file in the folder that the variable BENCH_FOLDER names.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from examples.benchmarks import peers
from examples.benchmarks.figures import processes
from zmqpipeline import Pipeline

FOLDER = Path(os.environ.get("BENCH_FOLDER", "."))

NAP = 0.001

WORKERS = 2

PATIENCE = 25.0
"""Seconds after which a chain of Celery counts as lost; it takes 10 to give up a worker's process."""

app = Pipeline("benchmark-killed")


def note(name: str, *words: object) -> None:
    """Append a line: these words, the time, this process."""
    with (FOLDER / name).open("a") as file:
        file.write(f"{' '.join(map(str, words))} {time.monotonic():.6f} {os.getpid()}\n")


def first(data: dict[str, Any]) -> dict[str, Any]:
    """The first step."""
    return _step("first", data)


def second(data: dict[str, Any]) -> dict[str, Any]:
    """The second one, with the result of the first."""
    return _step("second", data)


def _step(name: str, data: dict[str, Any]) -> dict[str, Any]:
    time.sleep(NAP)
    note("done", name, data["n"])
    return {"n": data["n"], "double": 2 * data["double"]}


def collect(data: dict[str, Any]) -> None:
    """One item has come back."""
    if data["double"] != 4 * data["n"]:
        raise SystemExit(f"Item {data['n']} came back as {data['double']}.")
    note("collected", "item", data["n"])


def items(count: int) -> Iterator[dict[str, int]]:
    """So many, all different."""
    return ({"n": n, "double": n} for n in range(count))


# zmqpipeline ----------------------------------------------------------------------------------------------------------

app.add_task("first", lambda metadata: items(int(metadata["items"])))
app.add_task("second", for_each="first")
app.add_worker("first", first)
app.add_worker("second", second)
app.add_collector(collect)


def ours(count: int, *options: str) -> None:
    """One worker for each step."""
    command = [sys.executable, "-m", "examples.benchmarks.killed_app", "run", "--no-progress", "--workers", "1"]
    subprocess.run([*command, "--meta", f"items={count}", *options], check=True)


def ours_journalled(count: int) -> None:
    """The same with a journal."""
    ours(count, "--journal", str(FOLDER / "journal"))


# the others -----------------------------------------------------------------------------------------------------------


def pool(count: int) -> None:
    """multiprocessing.Pool: the first result of an item submits its second step."""
    left = threading.Semaphore(0)

    def back(data: dict[str, Any]) -> None:
        collect(data)
        left.release()

    def next_step(data: dict[str, Any]) -> None:
        made.apply_async(second, (data,), callback=back)

    with multiprocessing.get_context("spawn").Pool(WORKERS) as made:
        for item in items(count):
            made.apply_async(first, (item,), callback=next_step)
        for _ in range(count):
            left.acquire()


def dask(count: int) -> None:
    """Futures of Dask: the second steps are submitted at once, each with the future of its first."""
    import distributed

    cluster = distributed.LocalCluster(
        n_workers=WORKERS, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    )
    with cluster, distributed.Client(cluster) as client:
        firsts = client.map(first, list(items(count)), pure=False)
        seconds = client.map(second, firsts, pure=False)
        for future in distributed.as_completed(seconds):
            if future.status == "finished":
                collect(future.result())


def celery(count: int, *, late: bool = False) -> None:
    """Chains of Celery on a Redis of its own; `late` acknowledges what is done, not what is begun."""
    with peers.redis() as socket:
        made = _celery_app(socket, late=late)
        worker = ["-m", "examples.benchmarks.killed_app", "celery-worker", socket, str(int(late))]
        with processes(worker, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            steps = [made.tasks[name] for name in ("first", "second")]
            chains = [(steps[0].s(item) | steps[1].s()).apply_async() for item in items(count)]
            for chain in chains:
                try:
                    collect(chain.get(timeout=PATIENCE))
                except Exception as error:
                    # WorkerLostError of a step, or a chain that is never done
                    note("errors", type(error).__name__)


def _celery_app(socket: str, *, late: bool) -> Any:
    options = {"acks_late": True, "reject_on_worker_lost": True} if late else {}
    return peers.celery_app(socket, {"first": first, "second": second}, **options)


def celery_late(count: int) -> None:
    """The same with `acks_late` and `reject_on_worker_lost`."""
    celery(count, late=True)


SIDES: dict[str, Callable[[int], None]] = {
    "zmqpipeline": ours,
    "zmqpipeline, --journal": ours_journalled,
    "Pool by hand": pool,
    "Dask futures": dask,
    "Celery chains": celery,
    "Celery chains, acks_late": celery_late,
}

if __name__ == "__main__":
    if sys.argv[1] in SIDES:
        SIDES[sys.argv[1]](int(sys.argv[2]))
    elif sys.argv[1] == "celery-worker":
        arguments = ["worker", "--concurrency", str(WORKERS), "--loglevel", "ERROR"]
        _celery_app(sys.argv[2], late=sys.argv[3] == "1").worker_main(arguments)
    else:
        app.main()
