"""``python -m tests.acceptance.dask_cluster --seeds 20``: workers on a cluster of Dask, parts of which are killed.

A scheduler and four Dask workers, each a process of its own, which are started again when they die, as a service
manager does it. For each seed a run of the README's app, some of whose items take a while; Dask workers are killed with
-9 at random, and with every second seed the scheduler is, and comes back at its port. Each item must be collected once,
the run ends with status 0, and then nothing of it is left: no process, no task of the scheduler. Needs `distributed`.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import distributed

from tests.acceptance.conftest import ROOT, Workshop, wait_until
from tests.support.ports import free_ports

ITEMS = 600
DASK_WORKERS = 4

APP = """
import os, time
from pathlib import Path
from zmqpipeline import Pipeline

HERE = Path(__file__).resolve().parent
app = Pipeline("squares")

def note(name, text):
    with open(HERE / name, "a") as file:
        file.write(f"{text}\\n")

@app.task("C", crash_limit=1000)
def numbers():
    for n in range(int(os.environ.get("ITEMS", "600"))):
        yield {"n": n}

@app.worker_init("C")
def begin():
    note("workers", os.getpid())
    if (HERE / "bug").exists():
        raise KeyError("bug")

@app.worker("C")
def square(data):
    note("begun", data["n"])
    while (HERE / "wait").exists():
        time.sleep(0.01)
    time.sleep(float(os.environ.get("NAP", "0.05")))
    print("printed")
    return {"n": data["n"], "square": data["n"] ** 2}

@app.collector
def collect(data):
    note("collected", data["n"])

if __name__ == "__main__":
    app.main()
"""


class Cluster:
    """A scheduler and Dask workers, each a process, started again when it dies."""

    def __init__(self, folder: Path, workers: int = DASK_WORKERS) -> None:
        self.folder = folder
        self.port = free_ports(1)[0]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.environ = {
            **os.environ,
            "PYTHONPATH": f"{folder}:{ROOT}",
            "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "0",
        }
        self._guard = threading.Lock()
        self._is_over = threading.Event()
        self.scheduler = self._start("scheduler", "--port", str(self.port), "--host", "127.0.0.1", "--no-dashboard")
        self.workers = [self._worker() for _ in range(workers)]
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "dask.log").open("ab") as log:
            command = [sys.executable, "-m", "dask", *arguments]
            return subprocess.Popen(command, cwd=self.folder, env=self.environ, stdout=log, stderr=log)

    def _worker(self) -> subprocess.Popen[bytes]:
        flags = ("--nthreads", "1", "--no-dashboard", "--no-nanny", "--memory-limit", "0")
        return self._start("worker", self.address, *flags, "--local-directory", str(self.folder))

    def _keep(self) -> None:
        while not self._is_over.wait(0.1):
            with self._guard:
                if self.scheduler.poll() is not None:
                    flags = ("--port", str(self.port), "--host", "127.0.0.1", "--no-dashboard")
                    self.scheduler = self._start("scheduler", *flags)
                for index, one in enumerate(self.workers):
                    if one.poll() is not None:
                        self.workers[index] = self._worker()

    def kill_worker(self, which: int) -> None:
        """With -9."""
        with self._guard:
            self.workers[which].kill()

    def kill_scheduler(self) -> None:
        """Likewise."""
        with self._guard:
            self.scheduler.kill()

    def tasks(self) -> list[str]:
        """The tasks that the scheduler knows."""
        with distributed.Client(self.address, timeout=60, set_as_default=False) as client:
            return [str(key) for key in client.run_on_scheduler(_tasks)]

    def held(self) -> str:
        """What the scheduler holds of its tasks: the functions and their arguments, pickled."""
        with distributed.Client(self.address, timeout=60, set_as_default=False) as client:
            return str(client.run_on_scheduler(_specs))

    def close(self) -> None:
        """End all of it."""
        self._is_over.set()
        self._thread.join()
        for one in (*self.workers, self.scheduler):
            one.kill()
            one.wait()


def _tasks(dask_scheduler: Any) -> list[str]:
    return [str(key) for key in dask_scheduler.tasks]


def _specs(dask_scheduler: Any) -> str:
    return "".join(pickle.dumps(task.run_spec).decode("latin-1") for task in dask_scheduler.tasks.values())


@contextmanager
def cluster_in(folder: Path, workers: int = DASK_WORKERS) -> Iterator[Cluster]:
    """A cluster for as long as the block is."""
    cluster = Cluster(folder, workers)
    try:
        with distributed.Client(cluster.address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=120)
        yield cluster
    finally:
        cluster.close()


def left_over(folder: Path) -> list[str]:
    """The command lines of processes that belong to a run of the app in this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
            is_ours = any(word.startswith(b"zmqpipeline") for word in words) and (entry / "cwd").readlink() == folder
            if is_ours and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(" ".join(os.fsdecode(word) for word in words))
    return found


def trial(seed: int, cluster: Cluster, workshop: Workshop) -> str:
    """One run; what happened, for people."""
    rng = random.Random(seed)
    for name in ("collected", "begun", "workers"):
        (workshop.folder / name).unlink(missing_ok=True)
    run = ("-m", "app", "run", "--no-progress", "--workers", "4", "--engine", "dask", "--scheduler", cluster.address)
    began = time.monotonic()
    program = workshop.start(*run)
    wait_until(lambda: workshop.lines("begun") or program.ended(), "the run has begun", 120)
    killed = 0
    strikes = rng.randint(2, 5)
    with_scheduler = seed % 2
    for number in range(strikes):
        time.sleep(rng.uniform(0.1, 1.5))
        if program.ended():
            break
        if with_scheduler and number == 1:
            cluster.kill_scheduler()
        else:
            cluster.kill_worker(rng.randrange(DASK_WORKERS))
            killed += 1
    status = program.wait(300)
    seconds = time.monotonic() - began
    assert status == 0, program.err
    counts = workshop.numbers("collected")
    assert sorted(counts) == list(range(ITEMS)), f"{len(counts)} collected, {len(set(counts))} different\n{program.err}"
    wait_until(lambda: not left_over(workshop.folder), f"nothing is left: {left_over(workshop.folder)}", 60)
    wait_until(lambda: not cluster.tasks(), "the scheduler has no task", 60)
    return f"seed {seed}: {killed} Dask workers killed{', and the scheduler' * with_scheduler}; {seconds:.1f} s"


def main() -> None:
    """All seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="zp-", dir="/tmp"))
    workshop = Workshop(folder)
    try:
        workshop.write("app.py", APP)
        with cluster_in(folder) as cluster:
            for seed in range(given.first, given.first + given.seeds):
                print(trial(seed, cluster, workshop), flush=True)
    finally:
        workshop.close()
        shutil.rmtree(folder)
    print(f"{given.seeds} seeds: each item once, and nothing is left.")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
