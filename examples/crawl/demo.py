"""The crawl of a made-up site, killed on the way: ``python -m examples.crawl.demo [--pages N] [--kills N] [--seed N]``.

Each kill is a SIGKILL for all processes of the run at once, at a random moment; then the same command is started again.
At the end the table is compared with the links of the site.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

from examples.crawl import site


@contextmanager
def served(pages: int) -> Iterator[str]:
    """The site, in a process of its own; its address."""
    command = [sys.executable, "-m", "examples.crawl.site", "--pages", str(pages)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.kill()


def asked(address: str) -> dict[str, int]:
    """How often each path was asked for so far."""
    with urlopen(f"{address}/-/asked") as answer:
        found: dict[str, int] = json.load(answer)
    return {path: times for path, times in found.items() if not path.startswith("/-/")}


def crawl(address: str, journal: Path, workers: int, goal: int | None) -> int:
    """Run it to the end, or kill it when so many pages were asked for; the exit status."""
    command = [sys.executable, "-m", "examples.crawl", "run", "--no-progress", "--journal", str(journal)]
    command += ["--meta", f"site={address}", "--workers", str(workers)]
    run = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while goal is not None and run.poll() is None and len(asked(address)) < goal:
        time.sleep(0.02)
    if goal is not None:
        os.killpg(run.pid, signal.SIGKILL)
    return run.wait()


def main() -> None:
    """Crawl, kill, compare, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m examples.crawl.demo", description="Crawl a made-up site.")
    parser.add_argument("--pages", type=int, default=2_000, help="default: %(default)s")
    parser.add_argument("--kills", type=int, default=3, help="how often all of it is killed (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="when that is")
    given = parser.parse_args()
    expected = site.graph(given.pages)
    goals = sorted(random.Random(given.seed).sample(range(1, len(expected)), given.kills))
    with tempfile.TemporaryDirectory(prefix="crawl-") as folder, served(given.pages) as address:
        journal = Path(folder, "crawl.db")
        for goal in goals:
            crawl(address, journal, given.workers, goal)
        if status := crawl(address, journal, given.workers, None):
            raise SystemExit(f"The last run ended with status {status}.")
        with closing(sqlite3.connect(journal)) as db:
            rows = {url.removeprefix(address): links for url, links in db.execute("SELECT url, links FROM pages")}
        times = asked(address)
    if rows != {path: len(links) for path, links in expected.items()}:
        raise SystemExit(f"The table has {len(rows)} pages, the site {len(expected)}: they differ.")
    again = sum(times.values()) - len(times)
    print(f"{len(rows):,} pages, each one row, of which {sum(not links for links in rows.values()):,} are dead links")
    print(f"killed {given.kills} times; {again:,} pages were fetched once more than needed")


if __name__ == "__main__":
    main()
