"""Run the benchmarks and keep what they print, so that the tables and plots of the pages can be made of it.

The file is written after each benchmark: one that is stopped keeps what it has. What is measured again takes the place
of what the same command printed before, and the rest of the file stays.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from examples.benchmarks import lines

PLAN = (
    "throughput --rounds 5",
    "latency --rounds 5",
    "stages --rounds 3",
    "startup --rounds 5",
    "payload --rounds 3",
    "journal --rounds 3",
    "chain --rounds 3",
    "curve --rounds 5",
    "mixed --rounds 1",
    "granularity --rounds 7 --seconds 0.4",
    "threads --rounds 5 --seconds 0.5",
    "uneven --rounds 5",
    "checksums --rounds 5",
    "turns --rounds 5",
    "overhead --rounds 5",
    "peers --rounds 3",
    "peers --rounds 3 --naps 200",
    "scale --rounds 3",
    "memory --rounds 1",
)
"""What is run when nothing is named, in this order."""


def kind(command: str) -> tuple[str, bool]:
    """What a command measures: one of the same kind replaces its results, whatever its sizes are."""
    return command.split(maxsplit=1)[0], "--naps" in command


def results(command: str) -> list[lines.Line]:
    """Run a benchmark, and give its results with the command and the date.

    Raises:
        SystemExit: it failed.
    """
    arguments = [sys.executable, "-m", "examples.benchmarks", *command.split(), "--json"]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"`{command}` ended with status {done.returncode}; what was measured before it is kept.")
    head = {"command": command, "date": datetime.date.today().isoformat()}
    return [{**head, **json.loads(line)} for line in done.stdout.splitlines()]


def merge(old: Sequence[lines.Line], new: Sequence[lines.Line], command: str) -> list[lines.Line]:
    """The old lines with the machine as the first, and with the new ones in the place of those of the same kind.

    New ones of another machine, or of other versions, say of which: figures are compared within a run only.
    """
    first, here = _machine(old), lines.machine()
    if differing(first, here):
        new = [{**line, "machine": lines.told(here)} for line in new]
    kept = [line for line in old if line["benchmark"] != lines.MACHINE]
    kept = [line for line in kept if kind(line.get("command", line["benchmark"])) != kind(command)]
    return [first, *kept, *new]


def _machine(old: Sequence[lines.Line]) -> lines.Line:
    """That of the first line; of this machine, with the peers of the old line that are not installed here."""
    known, here = lines.of(old, lines.MACHINE), lines.machine()
    if not known:
        return here
    return known[0] if differing(known[0], here) else {**known[0], **here}


def differing(known: lines.Line, here: lines.Line) -> list[str]:
    """What both machines tell, and tell otherwise."""
    return [key for key in known if here.get(key, known[key]) != known[key]]


@click.command("record")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--only", multiple=True, metavar="COMMAND", help="Such as 'scale --rounds 1', or a name alone; repeatable."
)
def command(file: Path, only: Sequence[str]) -> None:
    """Run all benchmarks, for an hour or more, and keep their results in FILE, a JSON object a line."""
    chosen = [one for name in only for one in ([name] if " " in name else _planned(name))] if only else list(PLAN)
    kept = lines.read(file) if file.exists() else []
    for one in chosen:
        began = time.monotonic()
        kept = merge(kept, results(one), one)
        lines.write(file, kept)
        click.echo(f"{one}: {time.monotonic() - began:.0f} s", err=True)


def _planned(name: str) -> list[str]:
    """What the plan has of this benchmark; else its name, which means its default sizes."""
    return [one for one in PLAN if one.split()[0] == name] or [name]
