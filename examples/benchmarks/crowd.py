"""How many workers one distributor can have: a run with very many of them, by tcp, beside one with ten.

The workers are bare protocol clients (`bare_workers`), many a process. Four things are measured:

- the time from the start of the clients until all workers are in the distributor's status;
- what the distributor's resident memory is then more than with ten workers, by worker, beside what a connection takes
  in a bare ROUTER of plain pyzmq with as many;
- what an item costs distributor and collector of the processor's time, as in `scale`;
- the time until all are in the status again after each has broken its connections, at once.

The run must end with status 0: its collector has counted every item and added up what came.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

from examples.benchmarks.figures import Row, processes, row, show, standard
from examples.benchmarks.scale import WARM_SHARE, raise_file_limit, resident
from examples.benchmarks.sides import free_ports, wait_for
from zmqpipeline import Options
from zmqpipeline.addresses import derive
from zmqpipeline.runtime.status_client import StatusClient

SETTINGS = {
    "ZMQPIPELINE_IO_THREADS": "8",
    "ZMQPIPELINE_HEARTBEAT_INTERVAL": "5",
    "ZMQPIPELINE_HEARTBEAT_TIMEOUT": "20",
}
"""Of distributor and collector, also with ten workers. As they are by default, libzmq's own work for the heartbeats of
so many connections would take more than a processor."""

A_PROCESS = 2500
"""So many workers are in one process: each has four open files."""

BASE_WORKERS = 10

SERVICE = 0.02
"""Seconds that an item is said to take: ten thousand workers with shorter ones would want more than can be handed out.

A worker has a few at hand then, and messages carry few. That is so for ten workers, too.
"""

PATIENCE = 120.0
TASK = "task0"


@dataclass(frozen=True)
class Found:
    """What one run measured."""

    cost: float
    """Microseconds of the processor an item."""
    clock: float
    """Microseconds of the clock an item."""
    memory: int
    """Resident bytes of the distributor, when all were in and nothing had been handed out."""
    joined: float
    """Seconds until all were in."""
    again: float
    """Seconds until all were in again."""


class Watch:
    """Asks the distributor how many workers it has."""

    def __init__(self, client: StatusClient, count: int) -> None:
        """Of a run that is to have so many."""
        self._client, self._count = client, count

    def workers(self) -> int:
        """How many there are now; 0 if nobody answers."""
        return sum(task.workers for status in self._client.ask().values() for task in status.tasks)

    def until_all(self, started: list[subprocess.Popen[bytes]], said: Path) -> None:
        """Wait until all are in, for as long as no process has failed."""
        deadline = time.monotonic() + PATIENCE
        while True:
            asked = time.monotonic()
            if self.workers() == self._count:
                return
            if any(one.poll() is not None for one in started) or time.monotonic() > deadline:
                raise SystemExit(
                    f"Not all of {self._count} workers are in.\n{said.read_text(errors='replace')[-2000:]}"
                )
            # an answer about ten thousand workers costs the distributor time and memory
            time.sleep(max(0.01, 4 * (time.monotonic() - asked)))


def measure_round(workers: int, items: int, *, storm: bool) -> Found:
    """One run; with a `storm` its cost says nothing."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, endpoint = Path(name), f"tcp://127.0.0.1:{free_ports(8)}"
        out, gate, said_path = folder / "figures.json", folder / "gate", folder / "said"
        role = ["-m", "zmqpipeline", "-A", "examples.benchmarks.scale_app:app"]
        known = {"items": items, "warm": max(1, int(WARM_SHARE * items)), "out": out, "gate": gate}
        roles = (
            [*role, "collector", "--endpoint", endpoint],
            [*role, "distributor", "--endpoint", endpoint, *(f"--meta={key}={value}" for key, value in known.items())],
        )
        environ = {**os.environ, "BENCH_TASKS": "1", **SETTINGS}
        with (
            said_path.open("wb") as said,
            StatusClient([derive(endpoint, "status")], Options(linger=0.0)) as client,
            processes(*roles, stderr=said, env=environ) as servers,
        ):
            watch = Watch(client, workers)
            while not client.ask():
                if servers[1].poll() is not None:
                    raise SystemExit(said_path.read_text(errors="replace"))
            began = time.monotonic()
            with processes(*_clients(workers, endpoint), stderr=said, env=environ) as clients:
                started = [*servers, *clients]
                watch.until_all(started, said_path)
                joined, memory = time.monotonic() - began, resident(servers[1].pid)
                again = _storm(watch, clients, started, said_path) if storm else 0.0
                gate.touch()
                wait_for(started, said_path)
        parts = [json.loads(Path(path).read_text()) for path in (out, f"{out}.distributor")]
    counted = items - int(str(known["warm"]))
    cost, clock = 1e6 * sum(part["cpu"] for part in parts) / counted, 1e6 * parts[0]["clock"] / counted
    return Found(cost, clock, memory, joined, again)


def _storm(
    watch: Watch, clients: list[subprocess.Popen[bytes]], started: list[subprocess.Popen[bytes]], said: Path
) -> float:
    """All workers break off and come again; the seconds until all are in."""
    began = time.monotonic()
    for one in clients:
        one.send_signal(signal.SIGUSR1)
    while watch.workers() == watch._count and time.monotonic() - began < 1.0:
        time.sleep(0.005)
    watch.until_all(started, said)
    return time.monotonic() - began


def _clients(workers: int, endpoint: str) -> list[list[str]]:
    addresses = {hop: str(derive(endpoint, hop)) for hop in ("workers", "results")}
    plans = [
        {
            "tasks": [TASK],
            "workers": min(A_PROCESS, workers - first),
            "first": first,
            "service": SERVICE,
            "addresses": addresses,
        }
        for first in range(0, workers, A_PROCESS)
    ]
    return [["-m", "examples.benchmarks.bare_workers", json.dumps(plan)] for plan in plans]


def bare(workers: int) -> float:
    """Bytes that a connection takes in a bare ROUTER with as many."""
    module = ["-m", "examples.benchmarks.bare_connections"]
    with processes([*module, "router", str(workers)], stdout=subprocess.PIPE) as (router,):
        assert router.stdout is not None
        port = router.stdout.readline().decode().strip()
        counts = [min(A_PROCESS, workers - first) for first in range(0, workers, A_PROCESS)]
        with processes(*([*module, "peers", port, str(count)] for count in counts), stdin=subprocess.PIPE):
            return int(router.stdout.readline()) / workers


@click.command("crowd")
@click.option("--workers", type=click.IntRange(11), default=10_000, show_default=True)
@click.option("--items", type=click.IntRange(1000), default=400_000, show_default=True)
@standard
def command(workers: int, items: int, rounds: int, as_json: bool) -> None:
    """Very many workers of one distributor: their start, their memory, the cost of an item, a storm of reconnects."""
    raise_file_limit()
    # ten workers with a few items at hand each wait for messages most of the time
    few = [measure_round(BASE_WORKERS, max(1000, items // 20), storm=False) for _ in range(rounds)]
    many = [measure_round(workers, items, storm=False) for _ in range(rounds)]
    again = [measure_round(workers, items, storm=True) for _ in range(rounds)]
    name, joined = f"{workers:,} workers", [one.joined for one in few]
    memory = [(so_many.memory - ten.memory) / 1000 / workers for so_many, ten in zip(many, few, strict=True)]
    bares = [bare(workers) / 1000 for _ in range(rounds)]
    rows: list[Row] = [
        row(f"{name}, processor", "us an item", [one.cost for one in few], [one.cost for one in many], "at most 1.5"),
        row(f"{name}, clock", "us an item", [one.clock for one in few], [one.clock for one in many]),
        row(f"{name}, memory of each beside a bare ROUTER", "kB", bares, memory, "at most 30"),
        row(f"{name}, until all are in", "s", joined, [one.joined for one in many], "at most 60"),
        row(f"{name}, until all are in again", "s", joined, [one.again for one in again], "at most 60"),
    ]
    show("crowd", rows, as_json=as_json, sides=("10 workers", "so many"))
