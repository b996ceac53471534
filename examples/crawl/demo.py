"""The crawl of a made-up site, killed on the way: ``python -m examples.crawl.demo [--pages N] [--kills N] [--seed N]``.

Each kill is a SIGKILL for all processes of the run at once, at a random moment; then the same command is started again.
At the end the table is compared with the links of the site. With ``--beside-scrapy`` the same is done to a crawl by
Scrapy, which has to be installed for that, and which is asked to end (SIGINT) once more, in the place of being killed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from examples.crawl import site


@dataclass(frozen=True)
class Side:
    """One way to crawl: the arguments of python for a site and a folder, and how it is ended before its time."""

    name: str
    command: Callable[[str, Path], Sequence[str]]
    signal: int = signal.SIGKILL
    needs: str = ""


@dataclass
class Came:
    """What came of some crawls."""

    runs: int = 0
    ended: int = 0
    """So often all of its processes were killed, or asked to end."""
    pages: int = 0
    """Those of the site, dead links among them."""
    missing: int = 0
    """So many of them have no row."""
    twice: int = 0
    """So many rows there are beside the first one of a page."""
    again: int = 0
    """So often a page was asked for that had been asked for before."""
    in_flight: int = 0
    """So many pages had been asked for, and were in no row, when the processes were ended."""
    seconds: float = 0.0

    def __add__(self, other: Came) -> Came:
        """Both together."""
        return Came(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def ours(address: str, folder: Path, workers: int) -> Sequence[str]:
    """The crawl of this folder, with a journal, which has the table, too."""
    options = ("--no-progress", "--journal", str(folder / "pages.db"), "--workers", str(workers))
    return ("-m", "examples.crawl", "run", *options, "--meta", f"site={address}")


def spider(address: str, folder: Path) -> Sequence[str]:
    """Scrapy with a JOBDIR, and a table of its own."""
    return ("-m", "examples.crawl.spider", address, str(folder / "jobdir"), str(folder / "pages.db"))


@contextmanager
def served(pages: int) -> Iterator[str]:
    """The site, in a process of its own; its address."""
    command = [sys.executable, "-m", "examples.crawl.site", "--pages", str(pages)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.kill()


def _told(address: str, what: str) -> Any:
    with urlopen(f"{address}/-/{what}") as answer:
        return json.load(answer)


def asked(address: str) -> Counter[str]:
    """How often each path was asked for, when what had been asked of the site before this is counted."""
    found, before = Counter[str](_told(address, "asked")), None
    while found != before:
        time.sleep(0.05)
        found, before = Counter(_told(address, "asked")), found
    return found


def rows(address: str, folder: Path) -> list[tuple[str, int]]:
    """Path and number of links of each row of the table."""
    with closing(sqlite3.connect(folder / "pages.db")) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'pages'").fetchone():
            return []
        return [(url.removeprefix(address), links) for url, links in db.execute("SELECT url, links FROM pages")]


def crawl(side: Side, address: str, folder: Path, goal: int | None) -> bool:
    """Start it, and end it when so many pages were asked for; whether it was there to be ended."""
    command = [sys.executable, *side.command(address, folder)]
    with (folder / "said").open("ab") as said:
        run = subprocess.Popen(command, start_new_session=True, stdout=said, stderr=said)
    while goal is not None and run.poll() is None and _told(address, "count") < goal:
        time.sleep(0.01)
    if goal is not None and run.poll() is None:
        if side.signal == signal.SIGKILL:
            os.killpg(run.pid, signal.SIGKILL)
        else:
            run.send_signal(side.signal)
        run.wait()
        return True
    if run.wait():
        text = (folder / "said").read_text(errors="replace")
        raise SystemExit(f"{side.name} ended with status {run.returncode}:\n{text[-2000:]}")
    return False


def trial(side: Side, pages: int, goals: Sequence[int]) -> Came:
    """Crawl a site to its end, and end all processes on the way when so many pages were asked for."""
    came, before, began = Came(runs=1), Counter[str](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crawl-") as name, served(pages) as address:
        folder = Path(name)
        for goal in (*goals, None):
            if crawl(side, address, folder, goal):
                now, kept = asked(address), {path for path, _ in rows(address, folder)}
                came.ended += 1
                came.in_flight += sum(times > before[path] and path not in kept for path, times in now.items())
                before = now
        found, times = Counter(rows(address, folder)), asked(address)
    expected = {(path, len(links)) for path, links in site.graph(pages).items()}
    came.pages, came.missing = len(expected), len(expected - set(found))
    came.twice = found.total() - len(found)
    came.again = times.total() - len(times)
    came.seconds = time.monotonic() - began
    if set(found) - expected:
        raise SystemExit(f"{side.name} has rows that are no pages of the site: {sorted(set(found) - expected)[:5]}")
    return came


def trials(side: Side, pages: int, kills: int, seeds: Sequence[int]) -> Came:
    """One crawl for each seed, which draws when it is ended; all together."""
    paths, came = len(site.graph(pages)), Came()
    for seed in seeds:
        came += trial(side, pages, sorted(random.Random(seed).sample(range(1, paths), kills)))
    return came


def lacks(side: Side) -> str:
    """What has to be installed for it; empty if that is."""
    is_there = not side.needs or importlib.util.find_spec(side.needs) is not None
    return "" if is_there else f"not installed: pip install {side.needs}"


def main() -> None:
    """Crawl, kill, compare, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m examples.crawl.demo", description="Crawl a made-up site.")
    parser.add_argument("--pages", type=int, default=2_000, help="default: %(default)s")
    parser.add_argument("--kills", type=int, default=3, help="how often all of it is killed (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="when that is")
    parser.add_argument(
        "--seeds", type=int, default=1, help="so many crawls, each with a seed of its own (%(default)s)"
    )
    parser.add_argument("--beside-scrapy", action="store_true", help="the same with Scrapy")
    given = parser.parse_args()
    sides = [Side("zmqpipeline, --journal", lambda address, folder: ours(address, folder, given.workers))]
    if given.beside_scrapy:
        sides += [
            Side("Scrapy, JOBDIR", spider, needs="scrapy"),
            Side("Scrapy, JOBDIR, SIGINT", spider, signal.SIGINT, needs="scrapy"),
        ]
    print(f"{'':24}" + "".join(f"{one.name.replace('_', ' '):>10}" for one in fields(Came)))
    for side in sides:
        if not_there := lacks(side):
            print(f"{side.name:24}{not_there}")
            continue
        came = trials(side, given.pages, given.kills, range(given.seed, given.seed + given.seeds))
        print(f"{side.name:24}" + "".join(f"{getattr(came, one.name):>10,.0f}" for one in fields(came)), flush=True)
        if side is sides[0] and (came.missing or came.twice or came.again > came.in_flight):
            raise SystemExit("This is not what was promised.")


if __name__ == "__main__":
    main()
