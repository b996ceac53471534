"""Items and bytes a second: the yardstick itself, trivial items, items that carry bytes, journals, stages, keys.

The floor is what plain pyzmq and msgpack do with trivial items, one a message, and in batches of 100 made by hand. The
yardstick of the other benchmarks are the batches whose items are packed one by one, with `msgpack.packb`: so must
everybody have them who is to execute, repeat and account for single items. Beside them stands what is left when even
that is saved, and a batch is packed as a whole. For items that carry bytes, the yardstick puts small items into
batches by hand, of up to 100 items or 64 KiB, and copies no large ones.

A journal is on the disk of the temporary folder (`TMPDIR`), where a commit means an fsync. Stages have one worker
each; the items of all three count, and one task has as many of them.

Keys are measured with trivial items; with items of 1 KB of random bytes, of which the worker sends a checksum; and with
such items that it sends back as they are. On the loopback nothing else is slow: this sets the processor time of CURVE
(encryption and copies, in libzmq's own threads) against that of all else.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from examples.benchmarks.figures import Row, named, row, show, standard
from examples.benchmarks.raw import BIG
from examples.benchmarks.sides import TRANSPORTS, run_ours, run_raw

# plain pyzmq ---------------------------------------------------------------------------------------------------------

BATCH = 100
FLOOR_SIDES = ("one a message", "x 100", "packed whole")


def floor_round(side: str, items: int, workers: int, transport: str) -> float:
    """Items a second of one run; a tenth of the items where each is a message of its own."""
    if side == "one a message":
        return run_raw("trivial", max(2, items // 10), workers=workers, transport=transport).rate
    packing = "batch" if side == "packed whole" else "item"
    return run_raw("trivial", items, workers=workers, transport=transport, batch=BATCH, packing=packing).rate


def measure_floor(items: int, rounds: int, workers: Sequence[int], transports: Sequence[str]) -> list[Row]:
    """All rounds, everything in turn."""
    rates: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for _, transport, number, side in itertools.product(range(rounds), transports, workers, FLOOR_SIDES):
        rates[transport, number, side].append(floor_round(side, items, number, transport))
    rows = []
    for transport, number in itertools.product(transports, workers):
        one, many, whole = (rates[transport, number, side] for side in FLOOR_SIDES)
        rows.append(row(f"{transport}, {named(number, 'worker')}", "items/s", one, many, beside=whole))
    return rows


@click.command("floor")
@click.option("--items", type=click.IntRange(200), default=500_000, show_default=True, help="So many in each run.")
@click.option("--workers", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--transport", type=click.Choice(TRANSPORTS), multiple=True, default=TRANSPORTS, show_default=True)
@standard
def floor(items: int, workers: Sequence[int], transport: Sequence[str], rounds: int, as_json: bool) -> None:
    """Trivial items a second in plain pyzmq: the yardstick itself."""
    one, many, whole = FLOOR_SIDES
    show("floor", measure_floor(items, rounds, workers, transport), as_json=as_json, sides=(one, many), beside=whole)


# trivial items -------------------------------------------------------------------------------------------------------

THROUGHPUT_SIDES = ("x 100", "packed whole", "ours")


def measure_throughput(items: int, rounds: int, workers: Sequence[int], transports: Sequence[str]) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes all."""
    rates: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for _, transport, number, side in itertools.product(range(rounds), transports, workers, THROUGHPUT_SIDES):
        if side == "ours":
            rate = run_ours("examples.benchmarks.apps:trivial", workers=number, transport=transport, items=items).rate
        else:
            rate = floor_round(side, items, number, transport)
        rates[transport, number, side].append(rate)
    rows = []
    for transport, number in itertools.product(transports, workers):
        raw, whole, ours = (rates[transport, number, side] for side in THROUGHPUT_SIDES)
        target = "at least 0.6, stretch 0.8" if number == 1 else "at least 0.6"
        rows.append(row(f"{transport}, {named(number, 'worker')}", "items/s", raw, ours, target, whole))
    return rows


@click.command("throughput")
@click.option("--items", type=click.IntRange(200), default=500_000, show_default=True, help="So many in each run.")
@click.option("--workers", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--transport", type=click.Choice(TRANSPORTS), multiple=True, default=("ipc",), show_default=True)
@standard
def throughput(items: int, workers: Sequence[int], transport: Sequence[str], rounds: int, as_json: bool) -> None:
    """Trivial items a second, beside batches of 100 in plain pyzmq."""
    rows = measure_throughput(items, rounds, workers, transport)
    show("throughput", rows, as_json=as_json, sides=("pyzmq x 100", "zmqpipeline"), beside="packed whole")


# items that carry bytes ----------------------------------------------------------------------------------------------

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
LEAST_ITEMS, MOST_ITEMS = 8, 200_000
"""So many items a run has at least, and at most."""

PAYLOAD_SIDES = ("raw", "ours")
PAYLOAD_TARGETS = {1_000_000: "at least 0.6"}
"""By size."""


def items_of(size: int, megabytes: int) -> int:
    """How many items of this size (bytes) make so many megabytes, within reason."""
    return max(LEAST_ITEMS, min(MOST_ITEMS, megabytes * 1_000_000 // size))


def batch_of(size: int) -> int:
    """How many of them the yardstick puts into a message."""
    return max(1, min(100, BIG // size))


def payload_round(side: str, size: int, count: int, workers: int, transport: str) -> float:
    """Megabytes a second of one run, from the start to the last item; each way counts, and each result is compared."""
    if side == "ours":
        run = run_ours(
            "examples.benchmarks.apps:given_back", workers=workers, transport=transport, items=count, size=size
        )
    else:
        run = run_raw("bytes", count, workers=workers, transport=transport, size=size, batch=batch_of(size))
    return size * count / run.whole / 1e6


def measure_payload(sizes: Sequence[int], megabytes: int, rounds: int, workers: int, transport: str) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes both."""
    rates: dict[tuple[int, str], list[float]] = defaultdict(list)
    for _, size, side in itertools.product(range(rounds), sizes, PAYLOAD_SIDES):
        rates[size, side].append(payload_round(side, size, items_of(size, megabytes), workers, transport))
    return [
        row(_named(size), "MB/s", rates[size, "raw"], rates[size, "ours"], PAYLOAD_TARGETS.get(size, ""))
        for size in sizes
    ]


def _named(size: int) -> str:
    for unit, name in ((1_000_000, "MB"), (1_000, "kB")):
        if size >= unit:
            return f"{size / unit:g} {name} an item"
    return f"{size} B an item"


@click.command("payload")
@click.option("--size", type=click.IntRange(1), multiple=True, default=SIZES, show_default=True, help="Bytes an item.")
@click.option(
    "--megabytes", type=click.IntRange(1), default=500, show_default=True, help="So many a run, or 200,000 items."
)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@click.option("--transport", type=click.Choice(TRANSPORTS), default="ipc", show_default=True)
@standard
def payload(size: Sequence[int], megabytes: int, workers: int, transport: str, rounds: int, as_json: bool) -> None:
    """Megabytes of payload a second, from 100 bytes to 10 MB an item."""
    show("payload", measure_payload(size, megabytes, rounds, workers, transport), as_json=as_json)


# a journal -----------------------------------------------------------------------------------------------------------

JOURNAL_SIDES = ("plain", "journal")


def journal_round(side: str, items: int, folder: Path) -> float:
    """Items a second of one run, start-up not counted; every one of them was checked."""
    out = folder / "figures.json"
    command = [sys.executable, "-m", "zmqpipeline", "-A", "examples.benchmarks.apps:trivial", "run", "--no-progress"]
    command += ["--meta", f"items={items}", "--meta", f"out={out}"]
    if side == "journal":
        command += ["--journal", str(folder / "run.journal")]
    subprocess.run(command, check=True, timeout=600, stderr=subprocess.DEVNULL)
    figures = json.loads(out.read_text())
    return float((figures["items"] - 1) / max(figures["last"] - figures["first"], 1e-9))


def measure_journal(items: int, rounds: int) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes both."""
    rates: dict[str, list[float]] = {side: [] for side in JOURNAL_SIDES}
    for _, side in itertools.product(range(rounds), JOURNAL_SIDES):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            rates[side].append(journal_round(side, items, Path(folder)))
    return [row("trivial items, 1 worker", "items/s", rates["plain"], rates["journal"], "at least 0.5")]


@click.command("journal")
@click.option("--items", type=click.IntRange(2), default=200_000, show_default=True, help="So many in each run.")
@standard
def journal(items: int, rounds: int, as_json: bool) -> None:
    """Items a second with a journal, beside the same run without."""
    show("journal", measure_journal(items, rounds), as_json=as_json, sides=("without", "with"))


# stages --------------------------------------------------------------------------------------------------------------

STAGES = 3

CHAIN_SIDES = {"one": ("trivial", 1), "chain": ("chain", STAGES), "journal": ("chain", STAGES)}
"""By side: its app, and how many items each of its first items becomes."""


def chain_round(side: str, items: int, folder: Path) -> float:
    """Items a second of one run, start-up not counted; every one of them was checked."""
    app, stages = CHAIN_SIDES[side]
    out = folder / "figures.json"
    command = [sys.executable, "-m", "zmqpipeline", "-A", f"examples.benchmarks.apps:{app}", "run", "--no-progress"]
    command += ["--workers", "1", "--meta", f"items={items}", "--meta", f"out={out}"]
    if side == "journal":
        command += ["--journal", str(folder / "run.journal")]
    subprocess.run(command, check=True, timeout=600, stderr=subprocess.DEVNULL)
    figures = json.loads(out.read_text())
    return float((stages * figures["items"] - 1) / max(figures["last"] - figures["first"], 1e-9))


def measure_chain(items: int, rounds: int) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes each."""
    rates: dict[str, list[float]] = {side: [] for side in CHAIN_SIDES}
    for _, side in itertools.product(range(rounds), CHAIN_SIDES):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            rates[side].append(chain_round(side, items, Path(folder)))
    return [
        row("A > B > C", "items/s", rates["one"], rates["chain"], "at least 0.4"),
        row("A > B > C, with a journal", "items/s", rates["one"], rates["journal"], "at least 0.25"),
    ]


@click.command("chain")
@click.option("--items", type=click.IntRange(2), default=200_000, show_default=True, help="So many of each task.")
@standard
def chain(items: int, rounds: int, as_json: bool) -> None:
    """Items a second through three stages, beside one task."""
    show("chain", measure_chain(items, rounds), as_json=as_json, sides=("one task", "three stages"))


# keys ----------------------------------------------------------------------------------------------------------------

CURVE_SIDES = ("without", "with")
AIM = "at least 0.8"

KINDS: dict[str, tuple[str, dict[str, int], str]] = {
    "trivial items": ("trivial", {}, AIM),
    "items of 1 KB": ("weighed", {"size": 1_000}, AIM),
    "items of 1 KB, given back": ("given_back", {"size": 1_000}, ""),
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


def curve_round(kind: str, side: str, items: int, keys: Path) -> float:
    """Items a second of one run with one worker, from the first that was collected to the last; each was checked."""
    app, more, _ = KINDS[kind]
    # required: a run that quietly left the keys out would measure nothing
    wanted = {"ZMQPIPELINE_KEYS": str(keys), "ZMQPIPELINE_ENCRYPTION": "required"} if side == "with" else {}
    with only(**wanted):
        return run_ours(f"examples.benchmarks.apps:{app}", transport="tcp", items=items, **more).rate


def measure_curve(items: int, rounds: int) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes both."""
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        keys = Path(folder, "keys")
        command = [sys.executable, "-m", "zmqpipeline", "-A", "examples.benchmarks.apps:trivial", "keygen", str(keys)]
        subprocess.run(command, check=True, timeout=60, capture_output=True)
        for _, kind, side in itertools.product(range(rounds), KINDS, CURVE_SIDES):
            rates[kind, side].append(curve_round(kind, side, items, keys))
    return [
        row(kind, "items/s", *(rates[kind, side] for side in CURVE_SIDES), aim) for kind, (_, _, aim) in KINDS.items()
    ]


@click.command("curve")
@click.option("--items", type=click.IntRange(2), default=400_000, show_default=True, help="So many in each run.")
@standard
def curve(items: int, rounds: int, as_json: bool) -> None:
    """Items a second with CURVE, beside the same run without, over tcp loopback."""
    show("curve", measure_curve(items, rounds), as_json=as_json, sides=CURVE_SIDES)
