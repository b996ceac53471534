"""From which length of item on is it worth it? Items that compute, in pure Python, from microseconds to milliseconds.

What each side reaches is told as a share of the limit: bare loops over the same items in as many processes, with
nothing between them. All sides take turns in one run, and what an item takes is calibrated in it. The clock runs, for
all of them, from the moment when all workers are ready to the last result. Ray and Dask, if installed, are started once
for all lengths, since that takes seconds, and have their turn behind the others.

For zmqpipeline it is told, too, what an item costs each role between the first result and the last: the time that its
threads had a processor, and their context switches, voluntary (a thread waited) and forced (another one had its turn).
"""

from __future__ import annotations

import itertools
import json
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import click

from examples.benchmarks import metg, peers, roles, work
from examples.benchmarks.bare_loops import Bare, loops_of, run_bare
from examples.benchmarks.figures import row, standard
from examples.benchmarks.lines import Line
from examples.benchmarks.rates import BATCH
from examples.benchmarks.sides import Run, run_ours, run_raw

LENGTHS = "1us,2us,5us,10us,20us,50us,100us,200us,500us,1ms,2ms,5ms,10ms,20ms"

AIMS = {1: ((20, "at least 0.9"), (10, "at least 0.8")), 2: ((50, "at least 0.9"), (20, "at least 0.85"))}
"""By the number of workers: from which length on, in microseconds, which share is aimed at."""

SWITCHES = {100.0: "at most 0.1 switches"}

Clock = Callable[[str, int, int, int], float]
"""Seconds for items of one kind: how many, of how many loops, by how many workers."""


@dataclass(frozen=True)
class Side:
    """One that is compared with the limit."""

    key: str
    name: str
    most: float
    """Items a second that it can do at best, so that short items do not take for ever."""
    clock: Clock | None = None
    peer: peers.Peer | None = None
    """One that is started once for all lengths, instead of a clock."""
    batch: int = 1
    """So many items go together: each worker gets whole batches, the same number of them."""


def _pool(chunk: int) -> Clock:
    def clock(kind: str, count: int, loops: int, workers: int) -> float:
        with peers.pool(workers, chunk) as spread:
            peers.warm(spread, workers)
            return peers.seconds(spread, work.items(kind, count, loops=loops), kind, count)

    return clock


def _raw(kind: str, count: int, loops: int, workers: int) -> float:
    return run_raw(kind, count, workers=workers, batch=BATCH, loops=loops).whole


def _peer(name: str) -> peers.Peer:
    return next(one for one in peers.PEERS if one.name == name)


SIDES = (
    Side("pool1", "Pool, chunks of 1", 80_000, _pool(1)),
    Side("pool100", "Pool, chunks of 100", 1_000_000, _pool(100), batch=100),
    Side("pyzmq", "plain pyzmq, batches of 100", 1_000_000, _raw, batch=BATCH),
    Side("dask", "Dask", 700, peer=_peer("Dask")),
    Side("ray", "Ray", 2500, peer=_peer("Ray")),
)
"""Beside `ours` and `bare`."""

KEYS = ("ours", "bare", *(side.key for side in SIDES))


@dataclass
class Cell:
    """One length with one number of workers: what each round found."""

    bare: list[Bare] = field(default_factory=list)
    rates: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Items a second, by the name of the side."""
    used: dict[str, list[roles.Used]] = field(default_factory=lambda: defaultdict(list))
    """What an item used, by role."""


Cells = dict[tuple[int, float], Cell]
"""By the number of workers and the length in microseconds."""


def count_of(seconds: float, microseconds: float, workers: int, most: float, batch: int = 1) -> int:
    """How many items to take for about so many seconds: the same number of batches for each worker, at least one."""
    wanted = seconds * min(workers * 1e6 / microseconds, most)
    each = batch * workers
    return max(2, max(1, round(wanted / each)) * each)


def measure(
    lengths: Sequence[float], workers: Sequence[int], chosen: Sequence[str], seconds: float, rounds: int
) -> Cells:
    """All rounds, everything in turn; `chosen` are the keys of sides."""
    cells: Cells = defaultdict(Cell)
    present = [side for side in SIDES if side.key in chosen]
    loops = {length: loops_of(length / 1e6) for length in lengths}
    for _, number in itertools.product(range(rounds), workers):
        for length in lengths:
            _take_turns(cells[number, length], number, length, loops[length], chosen, seconds)
        for side in present:
            if side.peer is not None:
                _in_one_go(cells, side, side.peer, number, loops, seconds)
    return cells


def _take_turns(cell: Cell, workers: int, length: float, loops: int, chosen: Sequence[str], seconds: float) -> None:
    """One round of all sides that are started for each length."""
    count = count_of(seconds, length, workers, 1e6)
    cell.bare.append(run_bare("loops", max(1, int(seconds * 1e6 / length)), workers, loops=loops))
    if "ours" in chosen:
        run = run_ours("examples.benchmarks.loops_app:app", workers=workers, items=count, loops=loops)
        cell.rates[metg.OURS].append(count / run.whole)
        _note_used(cell, run)
    for side in SIDES:
        if side.key in chosen and side.clock is not None:
            count = count_of(seconds, length, workers, side.most, side.batch)
            cell.rates[side.name].append(count / side.clock("loops", count, loops, workers))


def _note_used(cell: Cell, run: Run) -> None:
    for role, found in run.more["used"].items():
        used = roles.Used(**found)
        items = run.items - 1  # after the first result
        cell.used[role].append(roles.Used(used.cpu / items, used.voluntary / items, used.forced / items))


def _in_one_go(
    cells: Cells, side: Side, peer: peers.Peer, workers: int, loops: dict[float, int], seconds: float
) -> None:
    with peer.start(workers) as spread:
        peers.warm(spread, workers)
        for length, number in loops.items():
            count = count_of(seconds, length, workers, side.most)
            took = peers.seconds(spread, work.items("loops", count, loops=number), "loops", count)
            cells[workers, length].rates[side.name].append(count / took)


def lines_of(cells: Cells) -> Iterator[Line]:
    """What was found, as medians: the rates, METG, and what an item costs each role."""
    rates = [line for shape, cell in cells.items() for line in _rates(*shape, cell)]
    yield from rates
    yield from metg.summed_up(rates)
    for shape, cell in cells.items():
        yield from _costs(*shape, cell)


def _rates(workers: int, length: float, cell: Cell) -> Iterator[Line]:
    for side, found in cell.rates.items():
        made = row("", metg.RATES, [one.rate for one in cell.bare], found, _aim(side, workers, length))
        yield {
            "benchmark": "granularity",
            "what": f"{side}, {metg.shape_named(workers, length)}",
            "unit": metg.RATES,
            "raw": made.raw,
            "ours": made.ours,
            "target": made.target,
            "ratio": made.ratio,
            "side": side,
            "workers": workers,
            "nominal": length,
            "length": 1e6 * workers / made.raw,
        }


def _aim(side: str, workers: int, length: float) -> str:
    if side != metg.OURS:
        return ""
    return next((aim for least, aim in AIMS.get(workers, ()) if length >= least), "")


def _costs(workers: int, length: float, cell: Cell) -> Iterator[Line]:
    clock = [1e6 * workers / rate for rate in cell.rates[metg.OURS]]
    for role in roles.ROLES:
        if used := cell.used.get(role):
            yield {
                "benchmark": "granularity",
                "what": f"{role}, {metg.shape_named(workers, length)}",
                "unit": metg.COSTS,
                "raw": statistics.median(1e6 * one.cpu for one in cell.bare),
                "ours": statistics.median(1e6 * one.cpu for one in used),
                "target": SWITCHES.get(length, ""),
                "voluntary": statistics.median(one.voluntary for one in used),
                "forced": statistics.median(one.forced for one in used),
                "clock": statistics.median(clock),
                "role": role,
                "workers": workers,
                "nominal": length,
            }


def show(found: Sequence[Line], *, as_json: bool) -> None:
    """Print the tables, or a result a line."""
    for unit in (metg.RATES, metg.METG, metg.COSTS):
        lines = [line for line in found if line["unit"] == unit]
        if as_json:
            for line in lines:
                click.echo(json.dumps(line))
        elif lines:
            click.echo(f"granularity\n{text(metg.grid(lines))}\n")


def text(grid: metg.Grid) -> str:
    """The table for a terminal."""
    widths = [max(map(len, column)) for column in zip(grid.head, *grid.rows, strict=True)]
    made = []
    for name, *cells in (grid.head, *grid.rows):
        right = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        made.append(f"{name:{widths[0]}}  {right}".rstrip())
    return "\n".join(made)


def parse_lengths(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    """Microseconds of each."""
    found = []
    for one in value.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(us|ms|s)\s*", one)
        if match is None or not float(match[1]):
            raise click.BadParameter(f"{one!r} is no length. Say, for example, 100us,1ms.")
        found.append(float(match[1]) * {"us": 1.0, "ms": 1e3, "s": 1e6}[match[2]])
    return list(dict.fromkeys(found))


def _numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    found = [int(one) if one.strip().isdecimal() else 0 for one in value.split(",")]
    if not all(found):
        raise click.BadParameter(f"{value!r} are no numbers of workers. Say, for example, 1,2.")
    return list(dict.fromkeys(found))


def _keys(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    found = [one.strip() for one in value.split(",")]
    if unknown := [one for one in found if one not in KEYS]:
        raise click.BadParameter(f"{', '.join(map(repr, unknown))} unknown. Known: {', '.join(KEYS)}.")
    if found == ["bare"]:
        raise click.BadParameter("The bare loops are what the others are compared with. Name another one, too.")
    return found


@click.command("granularity")
@click.option("--lengths", default=LENGTHS, show_default=True, callback=parse_lengths, help="What an item takes.")
@click.option("--workers", default="1,2", show_default=True, callback=_numbers)
@click.option(
    "--only", default=",".join(KEYS), show_default=True, callback=_keys, help="These sides; bare is always there."
)
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="About so long a run."
)
@standard
def command(
    lengths: list[float], workers: list[int], only: list[str], seconds: float, rounds: int, as_json: bool
) -> None:
    """Items that compute, from 1 us to 20 ms: the share of what bare loops do, METG, and what each role uses."""
    chosen = list(only)
    for side in SIDES:
        if side.peer is not None and side.key in chosen and (lacks := peers.missing(side.peer.needs)):
            click.echo(f"Skipped: {side.name}. Not installed: {', '.join(lacks)}.", err=True)
            chosen.remove(side.key)
    if "ours" in chosen and not roles.readable():
        click.echo("Skipped: what each role uses. It is read from /proc/PID/schedstat, which is not here.", err=True)
    show(list(lines_of(measure(lengths, workers, chosen, seconds, rounds))), as_json=as_json)
