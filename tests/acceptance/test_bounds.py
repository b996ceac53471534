"""Results have a bound: nobody's memory follows the slowness of the collector's function."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Eventually = Callable[..., None]
MEGABYTE = 1_000_000
BOUND = 8 * 1024 * 1024

APP = """
import os, time
from zmqpipeline import Pipeline

app = Pipeline("bounds")
size = int(os.environ["SIZE"])

@app.task("P")
def items():
    return ({"n": n} for n in range(int(os.environ["ITEMS"])))

@app.worker("P")
def draw(data):
    return {"n": data["n"], "picture": bytes(size)}

@app.collector
def collect(data):
    with open("collected", "a") as file:
        file.write(f"{data['n']}\\n")
    time.sleep(float(os.environ["SECONDS"]))
    while data["n"] >= int(os.environ.get("HELD", "1000000")) and not os.path.exists("go"):
        time.sleep(0.01)

if __name__ == "__main__":
    app.main()
"""


def resident(pid: int) -> float:
    """The resident megabytes of a process; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def family(pid: int) -> list[int]:
    """A process and its children."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [pid, *map(int, found.read_text().split())] if found.exists() else [pid]


def started(
    workshop: Workshop, *arguments: str, items: int, size: int, seconds: float, held: int = 1_000_000
) -> Program:
    """One role or all of the app."""
    if not workshop.programs:
        workshop.write("app.py", APP)
    environ = {"ITEMS": str(items), "SIZE": str(size), "SECONDS": str(seconds), "HELD": str(held)}
    return workshop.start("-m", "app", *arguments, ZMQPIPELINE_MAX_HELD_BYTES=str(BOUND), **environ)


def largest_until_the_end(program: Program, eventually: Eventually, timeout: float = 100.0) -> float:
    """The largest resident megabytes of any process of this run, which must end well."""
    most = 0.0

    def ended() -> bool:
        nonlocal most
        if not program.ended():
            most = max([most, *map(resident, family(program.pid))])
        return program.ended()

    eventually(ended, "the end of the run", timeout)
    assert program.wait() == 0, program.err
    return most


@pytest.mark.parametrize("workers", [1, 6])
def test_large_results_wait_for_a_slow_collector_in_bounded_memory(
    workshop: Workshop, eventually: Eventually, workers: int
) -> None:
    """Small items, results of 256 KiB, 400 MB in all: no process grows by more than some times its 8 MiB."""
    flags = ("run", "--no-progress", "--workers", str(workers))
    program = started(workshop, *flags, items=1500, size=256 * 1024, seconds=0.004)
    most = largest_until_the_end(program, eventually)
    assert sorted(workshop.numbers("collected")) == list(range(1500))
    assert most < 200, f"a process had {most:.0f} MB"


def test_a_result_larger_than_the_bound_passes(workshop: Workshop, eventually: Eventually) -> None:
    """Results of 12 MiB where 8 MiB may be held come through, one at a time, from several workers."""
    flags = ("run", "--no-progress", "--workers", "3")
    program = started(workshop, *flags, items=12, size=12 * 1024 * 1024, seconds=0.05)
    most = largest_until_the_end(program, eventually)
    assert sorted(workshop.numbers("collected")) == list(range(12))
    assert most < 250, f"a process had {most:.0f} MB"


def test_whoever_dies_while_results_wait_the_run_ends(workshop: Workshop, eventually: Eventually) -> None:
    """The collector is killed while its workers wait for credit, then a worker; another worker is drained."""
    # the last hundred are held up until all has happened
    sizes = {"items": 300, "size": 256 * 1024, "seconds": 0.01, "held": 200}
    distributor = started(workshop, "distributor", **sizes)  # type: ignore[arg-type]
    workers = [started(workshop, "worker", "P", **sizes) for _ in range(3)]  # type: ignore[arg-type]
    collector = started(workshop, "collector", **sizes)  # type: ignore[arg-type]
    eventually(lambda: len(workshop.lines("collected")) > 40, "forty results", 60)
    collector.signal(signal.SIGKILL)
    collector.wait()
    collector = started(workshop, "collector", **sizes)  # type: ignore[arg-type]
    eventually(lambda: len(workshop.lines("collected")) > 90, "fifty more", 60)
    workers[0].signal(signal.SIGKILL)
    workers[1].signal(signal.SIGTERM)
    workshop.write("go", "")
    assert workers[1].wait() == 0, workers[1].err
    assert (collector.wait(60), distributor.wait(), workers[2].wait()) == (0, 0, 0), collector.err
    assert set(workshop.numbers("collected")) == set(range(300))


def test_large_items_wait_at_many_workers_in_bounded_memory(workshop: Workshop, eventually: Eventually) -> None:
    """Items of 256 KiB for eight workers, and a slow collector: the distributor holds 32 MiB of them, not 256."""
    app = APP.replace('{"n": n}', '{"n": n, "given": bytes(256 * 1024)}').replace("size = int", "size = 0 * int")
    workshop.write("app.py", app.replace('"picture": bytes(size)', '"picture": b""'))
    environ = {"ITEMS": "2000", "SIZE": "0", "SECONDS": "0.004"}
    flags = ("run", "--no-progress", "--workers", "8")
    program = workshop.start("-m", "app", *flags, ZMQPIPELINE_MAX_HELD_BYTES=str(32 * 1024 * 1024), **environ)
    most = largest_until_the_end(program, eventually)
    assert sorted(workshop.numbers("collected")) == list(range(2000))
    assert most < 250, f"a process had {most:.0f} MB"
