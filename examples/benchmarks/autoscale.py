"""A burst of naps with `run --workers 1:8` beside eight workers from the start, and how long one is left alone after.

The clock starts with the command and stops with the last nap of the burst. Then the source waits until one worker is
left, or the limit is over; its last item ends the run. Workers are child processes, which are counted in `/proc`.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import click

from examples.benchmarks.figures import Row, processes, row, show, standard
from examples.benchmarks.sides import wait_for

LIMIT = 15.0
"""Seconds within which one worker is to be left."""

LOOK = 0.05


def measure_burst(workers: str, items: int, seconds: float, total: bool) -> tuple[float, float]:
    """Seconds from the start to the last item of the burst, and from there until one worker was left.

    Raises:
        SystemExit: the run failed, with what it said.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        figures, go = Path(folder, "figures.json"), Path(folder, "go")
        command = ["-m", "examples.benchmarks.autoscale_app", "run", "--no-progress", "--workers", workers]
        environ = {
            **os.environ,
            "BENCH_ITEMS": str(items),
            "BENCH_SECONDS": str(seconds),
            "BENCH_FOLDER": folder,
            "BENCH_TOTAL": "1" if total else "",
        }
        said = Path(folder, "said")
        with said.open("wb") as file, processes(command, stderr=file, env=environ) as (run,):
            began = time.monotonic()
            last = _wait_for_last(run, figures, said)
            alone = _wait_until_one_is_left(run, time.monotonic() + 2 * LIMIT)
            go.touch()
            wait_for([run], said)
    return last - began, alone - last


def _wait_for_last(run: subprocess.Popen[bytes], figures: Path, said: Path) -> float:
    while not figures.exists():
        if run.poll() is not None:
            raise SystemExit(f"The run has ended:\n{said.read_text(errors='replace')}")
        time.sleep(LOOK)
    return float(json.loads(figures.read_text())["last"])


def _wait_until_one_is_left(run: subprocess.Popen[bytes], until: float) -> float:
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    # the distributor is a child, too
    while len(children.read_text().split()) > 2 and time.monotonic() < until:
        time.sleep(LOOK)
    return time.monotonic()


def measure(items: int, seconds: float, most: int, rounds: int) -> list[Row]:
    """All rounds, everything in turn."""
    burst: dict[str, list[float]] = defaultdict(list)
    back: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        burst["fixed"].append(measure_burst(str(most), items, seconds, total=True)[0])
        for name, total in (("total", True), ("none", False)):
            whole, alone = measure_burst(f"1:{most}", items, seconds, total)
            burst[name].append(whole)
            back[name].append(alone)
    what = f"{items:,} naps of {seconds * 1000:g} ms"
    limit = [LIMIT] * rounds
    return [
        row(f"{what}, with a total", "s", burst["fixed"], burst["total"], "at most 1.2"),
        row(f"{what}, without one", "s", burst["fixed"], burst["none"], "at most 1.2"),
        row(f"back to one worker, of {LIMIT:.0f} s, with a total", "s", limit, back["total"], "at most 1"),
        row(f"back to one worker, of {LIMIT:.0f} s, without one", "s", limit, back["none"], "at most 1"),
    ]


@click.command("autoscale")
@click.option("--items", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.001), default=0.05, show_default=True, help="Of one nap.")
@click.option("--most", type=click.IntRange(2), default=8, show_default=True, help="Workers.")
@standard
def command(items: int, seconds: float, most: int, rounds: int, as_json: bool) -> None:
    """A burst with 1:8 workers beside eight from the start, and the way back to one."""
    rows = measure(items, seconds, most, rounds)
    show("autoscale", rows, as_json=as_json, sides=(f"{most} workers", f"1:{most}"))
