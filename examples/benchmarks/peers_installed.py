"""The peers that may be installed or not: Dask, Celery on Redis, Ray. Each is imported only when it is measured."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from examples.benchmarks import work
from examples.benchmarks.figures import processes

Map = Callable[[Iterable[dict[str, Any]], str], Iterable[dict[str, Any]]]
"""Gives out items of one kind to the workers of a peer, and yields the results as they come, or in order."""

PATIENCE = 60
"""Seconds that a server may take to start."""


def program(*names: str) -> str | None:
    """The path of the first of these programs that is installed."""
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def dask(workers: int) -> Iterator[Map]:
    """A local cluster of processes with one thread each."""
    distributed: Any = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=40
    )
    with cluster, distributed.Client(cluster) as client:
        yield lambda items, kind: (
            result
            for _, result in distributed.as_completed(
                client.map(work.WORK[kind], list(items), pure=False), with_results=True
            )
        )


@contextmanager
def ray(workers: int) -> Iterator[Map]:
    """Tasks on as many processors as there are to be workers."""
    package: Any = importlib.import_module("ray")
    package.init(num_cpus=workers, include_dashboard=False, logging_level="error")
    try:
        remote = {kind: package.remote(function) for kind, function in work.WORK.items()}
        yield lambda items, kind: package.get([remote[kind].remote(item) for item in items])
    finally:
        package.shutdown()


@contextmanager
def celery(workers: int) -> Iterator[Map]:
    """A worker with so many processes, and a Redis of its own, on a socket in a folder that is removed."""
    server = program("redis-server", "valkey-server")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        socket = f"{folder}/redis"
        redis = subprocess.Popen(
            [str(server), "--port", "0", "--unixsocket", socket, "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            app = celery_app(f"{socket}")
            celery_worker = ["-m", "examples.benchmarks.peers_installed", socket, str(workers)]
            with processes(celery_worker, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
                app.tasks["trivial"].delay({"n": 0}).get(timeout=PATIENCE)
                yield lambda items, kind: [one.get() for one in [app.tasks[kind].delay(item) for item in items]]
        finally:
            redis.terminate()
            redis.wait(10)


def celery_app(socket: str) -> Any:
    """The app of both sides, with Redis at this socket as broker and store of results."""
    package: Any = importlib.import_module("celery")
    made = package.Celery("peers", broker=f"redis+socket://{socket}", backend=f"redis+socket://{socket}")
    made.conf.broker_connection_retry_on_startup = True
    for kind, function in work.WORK.items():
        made.task(name=kind)(function)
    made.finalize()
    return made


if __name__ == "__main__":
    import sys

    celery_app(sys.argv[1]).worker_main(["worker", "--concurrency", sys.argv[2], "--loglevel", "ERROR"])
