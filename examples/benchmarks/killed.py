"""A worker is killed on the way: what that costs, and what is lost, here and beside others.

The job is the same for all: each item has two steps of 1 ms, of which the second takes the result of the first. Two
worker processes do them; the one that was the last to finish a step gets a SIGKILL when a quarter of all steps is done.
What is started in its place is up to each system, with its defaults.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import click

from examples.benchmarks import killed_app, peers
from examples.benchmarks.figures import short

NEEDS = {
    "Dask futures": ("distributed",),
    "Celery chains": ("celery", "redis", "redis-server/valkey-server"),
    "Celery chains, acks_late": ("celery", "redis", "redis-server/valkey-server"),
}
"""What has to be installed for a side, as in `peers`."""

HANGS = 40.0
"""Seconds without anything done after which a side hangs."""

_LOOK = 0.01


@dataclass(frozen=True)
class Came:
    """What came of one job."""

    seconds: float
    """From the first step that was done to the last one."""
    lost: int
    """Items that did not come back."""
    again: int
    """Steps that were done, and done once more."""
    twice: int
    """Items that came back once more."""
    hung: int
    """Whether it did not end by itself."""


def job(side: str, items: int, *, kill: bool = True) -> Came:
    """Do all of it, in a session of its own.

    Raises:
        SystemExit: it failed, or there was no worker to be killed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Path(name, "said").open("wb") as said:
        folder = Path(name)
        command = [sys.executable, "-m", "examples.benchmarks.killed_app", side, str(items)]
        environ = {**os.environ, "BENCH_FOLDER": name}
        run = subprocess.Popen(command, stdout=said, stderr=said, env=environ, start_new_session=True)
        try:
            hung = _watch(run, folder, items // 2 if kill else 0)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        if not hung and run.returncode:
            text = Path(name, "said").read_text(errors="replace")
            raise SystemExit(f"{side} ended with status {run.returncode}:\n{text[-2000:]}")
        return judged(_lines(folder / "done"), _lines(folder / "collected"), items, hung=hung)


def _watch(run: subprocess.Popen[bytes], folder: Path, mark: int) -> bool:
    """Kill a worker when so many steps are done, and wait for the end; whether there is none."""
    is_killed, grown, since = not mark, 0, time.monotonic()
    while run.poll() is None:
        select.select([], [], [], _LOOK)
        size = sum(path.stat().st_size for path in folder.iterdir() if path.name in ("done", "collected", "errors"))
        if size > grown:
            grown, since = size, time.monotonic()
        if not is_killed and len(done := _lines(folder / "done")) >= mark:
            os.kill(int(done[-1][-1]), signal.SIGKILL)
            is_killed = True
        if time.monotonic() - since > HANGS:
            return True
    if not is_killed:
        raise SystemExit(f"The job was over before {mark:,} steps were seen.")
    return False


def _lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def judged(done: Sequence[Sequence[str]], collected: Sequence[Sequence[str]], items: int, *, hung: bool) -> Came:
    """What the lines say: of each step that was done, and of each item that came back."""
    times = [float(line[2]) for line in done]
    steps = Counter((line[0], line[1]) for line in done)
    came = Counter(line[1] for line in collected)
    seconds = max(times, default=0.0) - min(times, default=0.0)
    return Came(seconds, items - len(came), len(done) - len(steps), len(collected) - len(came), int(hung))


@click.command("killed")
@click.option("--items", type=click.IntRange(4), default=10_000, show_default=True)
@click.option(
    "--rounds", type=click.IntRange(1), default=1, show_default=True, help="The median time; all that is lost."
)
@click.option("--only", multiple=True, metavar="NAME", help="Sides whose names begin so; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a side, each on a line.")
def command(items: int, rounds: int, only: Sequence[str], as_json: bool) -> None:
    """Two steps of 1 ms for each item, and a worker is killed: time, lost, done twice, beside others."""
    if not as_json:
        heads = ("s", "items lost", "steps again", "items twice", "hung")
        click.echo(f"killed\n{'':26}" + "".join(f"{head:>13}" for head in heads))
    for side in killed_app.SIDES:
        if only and not side.lower().startswith(tuple(one.lower() for one in only)):
            continue
        if lacks := peers.missing(NEEDS.get(side, ())):
            said = json.dumps({"benchmark": "killed", "what": side, "not_installed": lacks})
            click.echo(said if as_json else f"{side:26}     not installed: {', '.join(lacks)}")
            continue
        found = [job(side, items) for _ in range(rounds)]
        seconds = statistics.median(one.seconds for one in found)
        counts = {name: sum(getattr(one, name) for one in found) for name in ("lost", "again", "twice", "hung")}
        if as_json:
            click.echo(json.dumps({"benchmark": "killed", "what": side, "s": seconds, **counts}))
        else:
            click.echo(f"{side:26}{short(seconds):>13}" + "".join(f"{count:>13,}" for count in counts.values()))
