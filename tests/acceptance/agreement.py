"""Page, metrics and summary after kills: ``python -m tests.acceptance.agreement --seeds 20``.

A seed draws which processes of a run are killed by SIGKILL and when: workers, the distributor, in every fourth run the
distributor once more while the collector's `finished` is at work. When every item is done, and when the run is over,
the three must say the same of each task and of each kind of failure.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import click

from tests.acceptance.conftest import Program, Workshop, wait_until
from tests.support.apps import ENDS_WHEN_TOLD

APP = (
    """
import pathlib, time
from zmqpipeline import Pipeline

app = Pipeline("agrees")
HERE = pathlib.Path(__file__).parent

@app.task("A", times=400, retries=1, backoff=0.01, on_failed="continue")
def first():
    return {}

@app.task("B", times=60, depends_on=["A"])
def second():
    return {}

@app.worker("A", threads=2)
def on_first(data, number, attempt):
    time.sleep(0.004)
    if number % 37 == 0 or (number % 11 == 1 and attempt == 1):
        raise OSError("no answer")
    return data

@app.worker("B")
def on_second(data, number):
    time.sleep(0.004)
    return data

@app.collector
def collect(data, number):
    with open(HERE / "done", "a") as file:
        file.write(".")
    if number % 50 == 9:
        raise KeyError(number)
"""
    + ENDS_WHEN_TOLD
)

COUNTS = ("sent", "collected", "failed", "aborted", "skipped", "redelivered", "duplicates")

Counts = dict[str, dict[str, int]]


def children(pid: int, *words: str) -> list[int]:
    """The processes that this one has started with such a word on their command line, in no order."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            given = (entry / "cmdline").read_bytes().decode().split("\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and set(words) & set(given):
                found.append(int(entry.name))
    return found


def done(place: Workshop) -> int:
    """How many calls of the collector's function have begun."""
    file = place.folder / "done"
    return file.stat().st_size if file.exists() else 0


def kill(run: Program, role: str, rng: random.Random) -> bool:
    """Kill one of this role, if one is there."""
    there = children(run.pid, role)
    for pid in there and [rng.choice(there)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(there)


def events(address: str) -> Iterator[dict[str, Any]]:
    """What the page is sent."""
    told: dict[str, Any] = {}
    with closing(urllib.request.urlopen(f"{address}events", timeout=60)) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                # each says what has changed
                told = {**told, **json.loads(line.removeprefix(b"data: "))}
                yield told


def of_page(told: dict[str, Any]) -> Counts:
    """The counts of each task, as the page shows them."""
    return {task["name"]: {name: task[name] for name in COUNTS} for task in told["tasks"]}


def of_metrics(address: str) -> Counts:
    """The same as Prometheus gets it."""
    with closing(urllib.request.urlopen(f"{address}metrics", timeout=60)) as answer:
        text = answer.read().decode()
    found: Counts = {}
    for state, task, value in re.findall(r'^zmqpipeline_items_total\{state="(\w+)",task="(\w+)"\} (\S+)$', text, re.M):
        found.setdefault(task, {})[state] = int(float(value))
    return found


def kinds_of(rows: list[dict[str, Any]]) -> list[tuple[str, str, str, int]]:
    """Kinds of failure, as the summary and the page both have them."""
    return sorted((one["task"], one["stage"], one["place"], one["items"]) for one in rows)


def one_run(place: Workshop, seed: int) -> str:
    """Run this seed, and compare; what was done to it."""
    rng, hits = random.Random(seed), []
    place.write("app.py", APP)
    run = place.start("-m", "app", "run", "--workers", "2", "--json", "--dashboard", "127.0.0.1:0")
    wait_until(lambda: run.ended() or "The page of" in run.err, "the page")
    address = re.findall(r"http://127\.0\.0\.1:\d+/", run.err)[0]
    for least in sorted(rng.sample(range(5, 380), rng.randint(1, 3))):
        role = rng.choice(["worker", "worker", "distributor"])
        wait_until(lambda least=least: run.ended() or done(place) >= least, "items", 60)  # type: ignore[misc]
        wait_until(lambda role=role: run.ended() or kill(run, role, rng), role, 60)  # type: ignore[misc]
        hits.append(f"{role} at {least}")
    wait_until(lambda: run.ended() or (place.folder / "finishing").exists(), "the end of the items", 60)
    assert not run.ended(), run.err
    if seed % 4 == 3:
        wait_until(lambda: kill(run, "distributor", rng), "a distributor")
        hits.append("distributor at the end")
    stream, wanted = events(address), "finishing"
    # why the last ones failed is told within a second
    told = next(one for one in stream if wanted in one["run"] and one["tasks"] and not one["failures"]["others"])
    # a distributor that was started again just now may not answer yet
    wait_until(lambda: of_metrics(address) == of_page(told), "the same from /metrics")
    scraped = of_metrics(address)
    (place.folder / "go").touch()
    status = run.wait(60)
    *_, last = stream
    counts: Counts = {task: {name: one[name] for name in COUNTS} for task, one in run.json["tasks"].items()}
    assert status == 1, run.err
    for what, found in (("page", of_page(told)), ("metrics", scraped), ("last page", of_page(last))):
        assert found == counts, f"seed {seed}, {', '.join(hits)}: {what} {found}\nsummary {counts}"
    shown, reasons = kinds_of(last["failures"]["rows"]), kinds_of(run.json["reasons"])
    assert shown == reasons, f"seed {seed}, {', '.join(hits)}: {shown}\n{reasons}"
    before = kinds_of(told["failures"]["rows"])
    assert before == reasons, f"seed {seed}, {', '.join(hits)}: before the end {before}\n{reasons}"
    return ", ".join(hits)


@click.command()
@click.option("--seeds", default=20, show_default=True, help="So many runs.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
def main(seeds: int, first: int) -> None:
    """Run, and print what was done to each run; status 1 at the first that disagrees."""
    for seed in range(first, first + seeds):
        with tempfile.TemporaryDirectory(prefix="zp-agree-", dir="/tmp") as folder:
            place = Workshop(Path(folder))
            try:
                click.echo(f"seed {seed}: {one_run(place, seed)}: page, metrics and summary agree")
            except AssertionError as error:
                click.echo(str(error), err=True)
                sys.exit(1)
            finally:
                place.close()


if __name__ == "__main__":
    main()
