"""What it costs to be looked at: a run with its page open, scraped each second, with an observer, beside one without.

The page's server is beside the run on the same cores, as are who reads its events and who scrapes; a browser, which
draws them, is not.
"""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.sides import Run, free_ports, run_ours

PLAIN, WATCHED = "examples.benchmarks.apps:trivial", "examples.benchmarks.watched_app:app"

SCRAPE_SECONDS, PAGE_SECONDS = 1.0, 30.0


@contextmanager
def looked_at(address: str) -> Iterator[dict[str, int]]:
    """Read the events of the page at this address, and scrape its metrics each second; how often, of each."""
    seen, over = {"events": 0, "scrapes": 0}, threading.Event()

    def read() -> None:
        while not over.is_set():
            with suppress(OSError), urllib.request.urlopen(f"{address}/events", timeout=5) as stream:
                for line in stream:
                    seen["events"] += line.startswith(b"data")
                return
            over.wait(0.1)

    def scrape() -> None:
        while not over.wait(SCRAPE_SECONDS):
            with suppress(OSError), urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
                seen["scrapes"] += b"zmqpipeline_up 1.0" in answer.read()

    threads = [threading.Thread(target=one, daemon=True) for one in (read, scrape)]
    for one in threads:
        one.start()
    try:
        yield seen
    finally:
        over.set()
        for one in threads:
            one.join(10)


def watched_run(items: int, workers: int) -> tuple[Run, dict[str, int]]:
    """One run that is looked at in all ways, and how often it was."""
    port = free_ports(1)
    with looked_at(f"http://127.0.0.1:{port}") as seen:
        flags = ["--dashboard", f"127.0.0.1:{port}"]
        run = run_ours(WATCHED, workers=workers, flags=flags, before=lambda: _wait_for(seen), items=items)
    return run, seen


def _wait_for(seen: dict[str, int]) -> None:
    """Until the page is open: its server begins together with the run."""
    deadline = time.monotonic() + PAGE_SECONDS
    while not seen["events"]:
        if time.monotonic() > deadline:
            raise SystemExit(f"The page was not there within {PAGE_SECONDS:.0f} s.")
        time.sleep(0.01)


def measure_watched(items: int, rounds: int, workers: int) -> list[Row]:
    """The rates of both, in turns, each first as often as the other."""
    rates: dict[str, list[float]] = {"plain": [], "watched": []}
    for number in range(rounds):
        for side in ("plain", "watched") if number % 2 else ("watched", "plain"):
            run = run_ours(PLAIN, workers=workers, items=items) if side == "plain" else watched_run(items, workers)[0]
            rates[side].append(run.rate)
    return [row(f"ipc, {named(workers, 'worker')}", "items/s", rates["plain"], rates["watched"], "at least 0.95")]


@click.command("watched")
@click.option("--items", type=click.IntRange(200), default=2_000_000, show_default=True, help="So many in each run.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@standard
def watched(items: int, workers: int, rounds: int, as_json: bool) -> None:
    """Trivial items a second with the page open, metrics scraped each second and an observer, beside without."""
    rows = measure_watched(items, rounds, workers)
    show("watched", rows, as_json=as_json, sides=("alone", "looked at"))
