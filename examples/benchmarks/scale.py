"""What an item costs distributor and collector, together, as there are more workers, more tasks and more items.

The workers are bare protocol clients, all in one process, since a thousand processes would be what is measured; the
cost is the time that the two roles had a processor, which nobody else's work adds to. The time on the clock stands
beside it. It holds the clients' own work, too.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import click

from examples.benchmarks.figures import Row, named, processes, row, show, standard
from examples.benchmarks.sides import wait_for
from zmqpipeline.addresses import derive

WORKERS = (1, 10, 100, 1000)
TASKS = (1, 10, 100)
LONGER = (5, 25)
"""Runs of so many times the items."""
BASE_WORKERS = 10
SERVICE = 0.0002
"""Seconds that an item is said to take, so that a worker has a hundred at hand."""

WARM_SHARE = 0.25
"""This share of the items goes by before it counts: workers are given more and more at a time."""

Shape = tuple[int, int, int]
"""Workers, tasks, and items."""


def resident(process: int | str) -> int:
    """Bytes of a process, by its pid or "self", that are in memory."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure_round(shape: Shape) -> tuple[float, float]:
    """What an item costs: microseconds of the processor, and of the clock."""
    workers, tasks, items = shape
    warm = max(1, int(WARM_SHARE * items))
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, endpoint = Path(name), f"ipc://{name}/run"
        out = folder / "figures.json"
        environ = {**os.environ, "BENCH_TASKS": str(tasks)}
        role = ["-m", "zmqpipeline", "-A", "examples.benchmarks.scale_app:app"]
        meta = [f"--meta={key}={value}" for key, value in {"items": items, "warm": warm, "out": out}.items()]
        addresses = {hop: str(derive(endpoint, hop)) for hop in ("workers", "results")}
        plan = {
            "tasks": [f"task{number}" for number in range(tasks)],
            "workers": workers,
            "service": SERVICE,
            "addresses": addresses,
        }
        commands = (
            [*role, "collector", "--endpoint", endpoint],
            [*role, "distributor", "--endpoint", endpoint, *meta],
            ["-m", "examples.benchmarks.bare_workers", json.dumps(plan)],
        )
        with (folder / "said").open("wb") as said, processes(*commands, stderr=said, env=environ) as started:
            wait_for(started, folder / "said")
        parts = [json.loads(Path(path).read_text()) for path in (out, f"{out}.distributor")]
    counted = items - warm
    return 1e6 * sum(part["cpu"] for part in parts) / counted, 1e6 * parts[0]["clock"] / counted


def measure(items: int, rounds: int, workers: Sequence[int], tasks: Sequence[int], longer: Sequence[int]) -> list[Row]:
    """All rounds, everything in turn: workers of one task, as many tasks with a worker or more for each, long runs."""
    crowd = max(tasks, default=1)
    base, crowded = _shape(BASE_WORKERS, 1, items), _shape(crowd, 1, items)
    wanted = [
        *((base, _shape(number, 1, items), named(number, "worker"), _target(number)) for number in workers),
        *((crowded, _shape(crowd, n, items), f"{named(n, 'task')}, {named(crowd, 'worker')}", "") for n in tasks),
        *(
            (
                base,
                _shape(BASE_WORKERS, 1, times * items),
                f"{named(times * items, 'item')}, {BASE_WORKERS} workers",
                "",
            )
            for times in longer
        ),
    ]
    found: dict[Shape, list[tuple[float, float]]] = defaultdict(list)
    shapes = dict.fromkeys(shape for first, second, _, _ in wanted for shape in (first, second))
    for _, shape in itertools.product(range(rounds), shapes):
        found[shape].append(measure_round(shape))
    return [_row(found, shape, yardstick, name, target) for yardstick, shape, name, target in wanted]


def _shape(workers: int, tasks: int, items: int) -> Shape:
    """With more items for very many workers: each gets enough to come to its full window."""
    return workers, tasks, max(items, items * workers // 500)


def _row(found: dict[Shape, list[tuple[float, float]]], shape: Shape, base: Shape, name: str, target: str) -> Row:
    cpu = [cost for cost, _ in found[shape]]
    clock = [cost for _, cost in found[shape]]
    return row(name, "us an item", [cost for cost, _ in found[base]], cpu, target, clock)


def _target(workers: int) -> str:
    return "at most 1.5" if workers >= 1000 else ""


def raise_file_limit() -> None:
    """A thousand connections need more open files than many systems allow at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@click.command("scale")
@click.option(
    "--items", type=click.IntRange(8), default=200_000, show_default=True, help="So many in each run, or more."
)
@click.option("--workers", type=click.IntRange(1), multiple=True, default=WORKERS, show_default=True)
@click.option("--tasks", type=click.IntRange(1), multiple=True, default=TASKS, show_default=True)
@click.option(
    "--longer", type=click.IntRange(1), multiple=True, default=LONGER, show_default=True, help="Times the items."
)
@standard
def command(
    items: int, workers: Sequence[int], tasks: Sequence[int], longer: Sequence[int], rounds: int, as_json: bool
) -> None:
    """The cost of an item with many workers beside that with ten; so for many tasks, and for long runs."""
    raise_file_limit()
    rows = measure(items, rounds, workers, tasks, longer)
    show("scale", rows, as_json=as_json, sides=("the base", "so many"), beside="on the clock")
