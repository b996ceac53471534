"""Large results and a slow collector, watched: ``python -m tests.acceptance.large_results --seconds 60``.

Items of 10 bytes become results of 256 KiB, and the collector's function takes 20 ms, for so many seconds: with one
worker and with four, with the default of `max_held_bytes` and with 4 MiB. The largest resident memory that each role
ever had is read from the system. Exit status 1 if one of them had more than 300 MiB beyond `max_held_bytes`, or if not
every item was collected once, as it was made. A run that is beyond the bound is ended at once.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from tests.acceptance.conftest import Program, Workshop
from zmqpipeline.options import Options

MEBIBYTE = 1024 * 1024

BEYOND = 300 * MEBIBYTE
"""A role may have so much memory more than `max_held_bytes` says."""

SMALL = 4 * MEBIBYTE
"""What `max_held_bytes` is, where it is not the default."""

PATIENCE = 120.0
"""Seconds that what is under way may take when the source has ended."""

APP = """
import os, time
from zmqpipeline import Pipeline

app = Pipeline("large")

def picture(name):
    return name.encode() * (256 * 1024 // len(name))

@app.task("P")
def names():
    n, end = 0, time.monotonic() + float(os.environ["SECONDS"])
    while time.monotonic() < end:
        yield {"p": f"{n:06d}", "end": end}
        n += 1
    with open("yielded", "w") as file:
        file.write(f"{n}\\n")

@app.worker("P")
def draw(data):
    return {"p": data["p"], "picture": picture(data["p"]), "end": data["end"]}

@app.collector
def collect(data):
    if data["picture"] != picture(data["p"]):
        raise ValueError(f"{data['p']} is not what was made of it")
    with open("collected", "a") as file:
        file.write(f"{int(data['p'])}\\n")
    if time.monotonic() < data["end"]:
        time.sleep(0.02)

if __name__ == "__main__":
    app.main()
"""


def most_resident(pid: int) -> int:
    """The largest resident memory (bytes) that a process ever had; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def role_of(pid: int) -> str:
    """What a process of the run is, by its command line; the collector is in the process of `run` itself."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    known = {"run": "collector (run)", "distributor": "distributor", "worker": "worker"}
    return next((known[word] for word in words if word in known), "")


def family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return [pid]
    return [pid, *map(int, children.split())]


@dataclass
class Watched:
    """What came of one run."""

    workers: int
    bound: int
    """Its `max_held_bytes`."""
    most: dict[str, int] = field(default_factory=dict)
    """The most bytes that any process of each role had."""
    collected: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def limit(self) -> int:
        """What a role may have."""
        return self.bound + BEYOND

    @property
    def line(self) -> str:
        """All of it, for people."""
        roles = ", ".join(f"{role} {most / MEBIBYTE:.0f} MiB" for role, most in sorted(self.most.items()))
        return (
            f"{self.workers} worker(s), max_held_bytes {self.bound / MEBIBYTE:.0f} MiB: {self.collected} collected; "
            f"at most {self.limit / MEBIBYTE:.0f} MiB allowed, seen: {roles}"
        )

    def look(self, pid: int) -> bool:
        """Look at every process of the run; whether all are within the bound."""
        for one in family(pid):
            role = role_of(one)
            if role:
                self.most[role] = max(self.most.get(role, 0), most_resident(one))
        return max(self.most.values(), default=0) <= self.limit


def watch(workshop: Workshop, *, seconds: float, workers: int, bound: int) -> Watched:
    """One run in this workshop, from its beginning to its end."""
    workshop.write("app.py", APP)
    watched = Watched(workers, bound)
    patience = time.monotonic() + seconds + PATIENCE
    flags = ("run", "--no-progress", "--workers", str(workers))
    environ = {"SECONDS": str(seconds), "ZMQPIPELINE_MAX_HELD_BYTES": str(bound)}
    program = workshop.start("-m", "app", *flags, **environ)
    while not program.ended():
        if not watched.look(program.pid):
            watched.problems.append("a role had more memory than is allowed")
        elif time.monotonic() > patience:
            watched.problems.append(f"not over {PATIENCE:.0f} s after the source must have ended")
        if watched.problems:
            program.close()
        time.sleep(0.05)
    watched.collected = len(workshop.lines("collected"))
    if not watched.problems:
        _verify(watched, workshop, program)
    return watched


def _verify(watched: Watched, workshop: Workshop, program: Program) -> None:
    """Every item that was yielded was collected, once."""
    if program.wait() != 0:
        watched.problems.append(f"status {program.wait()}: {program.err}")
        return
    if set(watched.most) != {"collector (run)", "distributor", "worker"}:
        watched.problems.append(f"not every role was seen: {sorted(watched.most)}")
    yielded = workshop.numbers("yielded")
    if sorted(workshop.numbers("collected")) != list(range(*yielded)):
        watched.problems.append(f"{watched.collected} items were collected of {yielded}, not each of them once")


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long the source of each run gives items.")
@click.option("--workers", multiple=True, type=int, default=(1, 4), show_default=True, help="Processes; several times.")
def main(seconds: float, workers: tuple[int, ...]) -> None:
    """Run each case, say what was seen, and judge it."""
    is_good = True
    for count in workers:
        for bound in (Options().max_held_bytes, SMALL):
            folder = Path(tempfile.mkdtemp(prefix="zp-", dir=os.environ.get("TMPDIR", "/tmp")))
            workshop = Workshop(folder)
            try:
                watched = watch(workshop, seconds=seconds, workers=count, bound=bound)
            finally:
                workshop.close()
                shutil.rmtree(folder)
            click.echo(watched.line)
            for problem in watched.problems:
                click.echo(f"  {problem}")
            is_good = is_good and not watched.problems
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
