"""How long it takes until there is something to see: the import, ``--help``, the first item collected.

The yardsticks: the import of pyzmq, msgpack and click, a command of click that has nothing but a ``--help`` and those
imports, and the three processes of a plain pipeline.

The application of the README, `examples.checksums`, is set beside other ways to hash a folder: seconds from start to
end.

The files are warm: each side has read all of them once before the clock counts. The manifests of all sides must have
the same lines. Everything is counted, the start of Python and of all processes as well; beside that stands what the
same command takes for an empty folder.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.sides import run_ours, run_raw

# until there is something to see -------------------------------------------------------------------------------------

STARTUP_SIDES = ("raw", "ours")
OTHERS = "zmq, msgpack, click"
PIPELINE = "from zmqpipeline import Pipeline"
CLASSES = "from zmqpipeline import Collector, Distributor, SingleThreadedWorker, Task"
TARGETS = {
    "import": "at most 1.5",
    "import of Pipeline": "at most 1.5",
    "import of the class API": "",
    "--help": "",
    "first item collected": "",
}
IMPORT = """
import time
began = time.perf_counter()
{statement}
print(time.perf_counter() - began)
"""
HELP = f"""
import {OTHERS}
click.command(help="Run everything on this machine.")(lambda: None)(["--help"])
"""


def import_seconds(statement: str) -> float:
    """Seconds that this import takes in a new process, the interpreter's own start not counted."""
    done = subprocess.run([sys.executable, "-c", IMPORT.format(statement=statement)], check=True, capture_output=True)
    return float(done.stdout)


def help_seconds(*arguments: str) -> float:
    """Seconds from the start of a new process to its end; it must print its usage."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    ended = time.perf_counter()
    if b"Usage:" not in done.stdout:
        raise SystemExit(f"A program printed no usage: {done.stdout!r}")
    return ended - began


def startup_round(side: str) -> dict[str, float]:
    """Milliseconds, by what was done, of one round of one side."""
    ours = side == "ours"
    run = run_ours("examples.benchmarks.apps:trivial", items=2) if ours else run_raw("trivial", 2)
    help_arguments = ("-m", "zmqpipeline", "-A", "examples.benchmarks.apps:trivial", "--help") if ours else ("-c", HELP)
    return {
        "import": 1000 * import_seconds("import zmqpipeline" if ours else f"import {OTHERS}"),
        "import of Pipeline": 1000 * import_seconds(PIPELINE if ours else f"import {OTHERS}"),
        "import of the class API": 1000 * import_seconds(CLASSES if ours else f"import {OTHERS}"),
        "--help": 1000 * help_seconds(*help_arguments),
        "first item collected": 1000 * run.until_first,
    }


def measure_startup(rounds: int) -> list[Row]:
    """All rounds, the sides in turn, after one of each import that fills the caches."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for statement in (f"import {OTHERS}", CLASSES):
        import_seconds(statement)
    for _, side in itertools.product(range(rounds), STARTUP_SIDES):
        for what, value in startup_round(side).items():
            found[what, side].append(value)
    return [row(what, "ms", found[what, "raw"], found[what, "ours"], target) for what, target in TARGETS.items()]


@click.command("startup")
@standard
def startup(rounds: int, as_json: bool) -> None:
    """The import, `--help` and the first item, beside pyzmq, msgpack and click alone."""
    show("startup", measure_startup(rounds), as_json=as_json, sides=("without", "zmqpipeline"))


# a whole command -----------------------------------------------------------------------------------------------------

LONGEST_SIDE = 600.0
"""Seconds that one side may take."""

XARGS = """\
cd "$1" && find . -xtype f -printf '%P\\0' | xargs -0 -r -n 100 -P "$3" \\
  sh -c 'exec sha256sum -- "$@" >>"$0/$$"' "$2.parts" &&
cat /dev/null "$2.parts"/* | LC_ALL=C sort -k 2 >"$2"
"""
"""Each `sha256sum` writes into a file of its own: lines of several that write into one would be torn."""

Command = Callable[[Path, Path, int], list[str]]
"""The command for a folder, a manifest, and a number of workers."""


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


def _ours(path: Path, out: Path, workers: int) -> list[str]:
    meta = [f"--meta=path={path}", f"--meta=out={out}"]
    return _python("examples.checksums", "run", "--no-progress", "--workers", str(workers), *meta)


OURS = "zmqpipeline"
LOOP = "a plain loop"

CHECKSUMS_SIDES: dict[str, Command] = {
    LOOP: lambda path, out, workers: _python("examples.benchmarks.plain_checksums", str(path), str(out)),
    "Pool, chunks of 100": lambda path, out, workers: _python(
        "examples.benchmarks.plain_checksums", str(path), str(out), str(workers)
    ),
    "xargs and sha256sum": lambda path, out, workers: ["sh", "-c", XARGS, "sh", str(path), str(out), str(workers)],
    OURS: _ours,
}


def seconds(side: str, path: Path, out: Path, workers: int) -> float:
    """How long this side takes, all in all.

    Raises:
        SystemExit: it failed.
    """
    Path(f"{out}.parts").mkdir(exist_ok=True)
    began = time.perf_counter()
    done = subprocess.run(
        CHECKSUMS_SIDES[side](path, out, workers),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=LONGEST_SIDE, check=False,
    )  # fmt: skip
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{side} ended with status {done.returncode}:\n{done.stderr}")
    return took


def check(manifests: dict[str, bytes], path: Path) -> None:
    """All sides must have written the same lines.

    Raises:
        SystemExit: one has not; it says which, and the first line that differs.
    """
    expected = sorted(manifests[LOOP].splitlines())
    for side, text in manifests.items():
        found = sorted(text.splitlines())
        if found != expected:
            first = min(set(found) ^ set(expected), default=b"a line twice")
            raise SystemExit(f"The manifests of {LOOP} and of {side} differ: {first!r}. Does {path} change?")


def checksums_round(path: Path, workers: int) -> dict[str, float]:
    """What each side takes, one after the other."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        outs = {side: Path(folder, str(number)) for number, side in enumerate(CHECKSUMS_SIDES)}
        found = {side: seconds(side, path, out, workers) for side, out in outs.items()}
        check({side: out.read_bytes() for side, out in outs.items()}, path)
    return found


def measure_checksums(path: Path, rounds: int, workers: Sequence[int]) -> list[Row]:
    """All rounds, everything in turn, after one that only warms the files."""
    found: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    checksums_round(path, max(workers))
    with tempfile.TemporaryDirectory(prefix="bench-") as empty:
        folders = {"": path, "start and end alone, ": Path(empty)}
        for _, number, (what, folder) in itertools.product(range(rounds), workers, folders.items()):
            for side, took in checksums_round(folder, number).items():
                found[what, number, side].append(took)
    return [
        row(
            f"{what}{named(number, 'worker')} beside {side}",
            "s",
            found[what, number, side],
            found[what, number, OURS],
            "at most 0.8" if (what, number, side) == ("", 2, LOOP) else "",
        )
        for what, number, side in itertools.product(folders, workers, CHECKSUMS_SIDES)
        if side != OURS
    ]


@click.command("checksums")
@click.option(
    "--path",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The folder; without it, the standard library of this Python.",
)
@click.option("--workers", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@standard
def checksums(path: Path | None, workers: Sequence[int], rounds: int, as_json: bool) -> None:
    """The SHA-256 of every file below a folder, beside a plain loop, Pool, and xargs with sha256sum."""
    chosen = path or Path(sysconfig.get_path("stdlib"))
    rows = measure_checksums(chosen.resolve(), rounds, workers)
    show("checksums", rows, as_json=as_json, sides=("the other", OURS))
