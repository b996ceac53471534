"""What encryption costs: items a second with keys on every socket, beside the same run without, over tcp loopback.

Trivial items; items with 1 KB of random bytes, of which the worker sends a checksum; and such items that it sends back
as they are. On the loopback nothing else is slow: this sets the processor time of CURVE (encryption and copies, in
libzmq's own threads) against that of all else.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from examples.benchmarks.figures import Row, row, show, standard
from examples.benchmarks.sides import run_ours

SIDES = ("without", "with")
AIM = "at least 0.8"

KINDS: dict[str, tuple[str, dict[str, int], str]] = {
    "trivial items": ("trivial_app", {}, AIM),
    "items of 1 KB": ("weigh_app", {"size": 1_000}, AIM),
    "items of 1 KB, given back": ("bytes_app", {"size": 1_000}, ""),
}
"""By what is measured: the app, what else its metadata says, and the aim.

That is for items of so many bytes. Results as large as their items double the bytes, and have none.
"""


@contextmanager
def only(**wanted: str) -> Iterator[None]:
    """With these variables and no others that say anything of keys; every role reads them."""
    names = ("ZMQPIPELINE_KEYS", "ZMQPIPELINE_ENCRYPTION")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def measure_round(kind: str, side: str, items: int, keys: Path) -> float:
    """Items a second of one run with one worker, from the first that was collected to the last; each was checked."""
    module, more, _ = KINDS[kind]
    # required: a run that quietly left the keys out would measure nothing
    wanted = {"ZMQPIPELINE_KEYS": str(keys), "ZMQPIPELINE_ENCRYPTION": "required"} if side == "with" else {}
    with only(**wanted):
        return run_ours(f"examples.benchmarks.{module}", transport="tcp", items=items, **more).rate


def measure(items: int, rounds: int) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes both."""
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        keys = Path(folder, "keys")
        command = [sys.executable, "-m", "examples.benchmarks.trivial_app", "keygen", str(keys)]
        subprocess.run(command, check=True, timeout=60, capture_output=True)
        for _, kind, side in itertools.product(range(rounds), KINDS, SIDES):
            rates[kind, side].append(measure_round(kind, side, items, keys))
    return [row(kind, "items/s", *(rates[kind, side] for side in SIDES), aim) for kind, (_, _, aim) in KINDS.items()]


@click.command("curve")
@click.option("--items", type=click.IntRange(2), default=400_000, show_default=True, help="So many in each run.")
@standard
def command(items: int, rounds: int, as_json: bool) -> None:
    """Items a second with CURVE, beside the same run without, over tcp loopback."""
    show("curve", measure(items, rounds), as_json=as_json, sides=SIDES)
