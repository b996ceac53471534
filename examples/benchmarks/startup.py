"""How long it takes until there is something to see: the import, ``--help``, the first item collected.

The yardsticks: the import of pyzmq, msgpack and click, a command of click that has nothing but a ``--help`` and those
imports, and the three processes of a plain pipeline.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections import defaultdict

import click

from examples.benchmarks.figures import Row, row, show, standard
from examples.benchmarks.sides import run_ours, run_raw

SIDES = ("raw", "ours")
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


def measure_round(side: str) -> dict[str, float]:
    """Milliseconds, by what was done, of one round of one side."""
    ours = side == "ours"
    run = run_ours("examples.benchmarks.trivial_app", items=2) if ours else run_raw("trivial", 2)
    help_arguments = ("-m", "examples.benchmarks.trivial_app", "--help") if ours else ("-c", HELP)
    return {
        "import": 1000 * import_seconds("import zmqpipeline" if ours else f"import {OTHERS}"),
        "import of Pipeline": 1000 * import_seconds(PIPELINE if ours else f"import {OTHERS}"),
        "import of the class API": 1000 * import_seconds(CLASSES if ours else f"import {OTHERS}"),
        "--help": 1000 * help_seconds(*help_arguments),
        "first item collected": 1000 * run.until_first,
    }


def measure(rounds: int) -> list[Row]:
    """All rounds, the sides in turn, after one of each import that fills the caches."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for statement in (f"import {OTHERS}", CLASSES):
        import_seconds(statement)
    for _, side in itertools.product(range(rounds), SIDES):
        for what, value in measure_round(side).items():
            found[what, side].append(value)
    return [row(what, "ms", found[what, "raw"], found[what, "ours"], target) for what, target in TARGETS.items()]


@click.command("startup")
@standard
def command(rounds: int, as_json: bool) -> None:
    """The import, `--help` and the first item, beside pyzmq, msgpack and click alone."""
    show("startup", measure(rounds), as_json=as_json, sides=("without", "zmqpipeline"))
