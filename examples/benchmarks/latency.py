"""One item at a time: how long until it is executed, collected and acknowledged, so that the next one may go.

The yardstick is the round trip ventilator - worker - sink - ventilator in plain pyzmq: the same three processes and the
same three ways. A service request is measured as `service` does it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import click

from examples.benchmarks import service
from examples.benchmarks.figures import Row, percentile, row, show, standard
from examples.benchmarks.sides import TRANSPORTS, run_ours, run_raw

SIDES = ("raw", "ours")


def measure_round(side: str, items: int, transport: str) -> Sequence[float]:
    """The seconds that each of so many items took; a tenth more go before them, so that nothing is cold."""
    warm = max(20, items // 10)
    if side == "ours":
        run = run_ours("examples.benchmarks.single_app", transport=transport, items=items + warm)
    else:
        run = run_raw("trivial", items + warm, transport=transport, one_at_a_time=True)
    times: list[float] = run.more["times"]
    if len(times) != items + warm:
        raise SystemExit(f"{len(times)} of {items + warm} items were timed.")
    return times[warm:]


def measure(items: int, rounds: int, transports: Sequence[str]) -> list[Row]:
    """All rounds, the sides in turn, so that what else the machine does strikes both."""
    found: dict[tuple[str, str], list[Sequence[float]]] = {}
    for _, transport, side in itertools.product(range(rounds), transports, SIDES):
        found.setdefault((transport, side), []).append(measure_round(side, items, transport))

    def made(transport: str, what: str, share: float, target: str) -> Row:
        raw, ours = ([1e6 * percentile(one, share) for one in found[transport, side]] for side in SIDES)
        return row(f"{transport}, one item, {what}", "us", raw, ours, target)

    rows = []
    for transport in transports:
        rows.append(made(transport, "median", 0.5, "at most 3"))
        rows.append(made(transport, "99 of 100", 0.99, ""))
    return rows


def service_rows(requests: int, rounds: int) -> list[Row]:
    """The two rows of the service benchmark that are about one request at a time."""
    return [
        replace(one, what=one.what.replace("one request at a time", "ipc, one request"))
        for one in service.measure(requests, rounds)
        if one.unit == "us"
    ]


@click.command("latency")
@click.option("--items", type=click.IntRange(20), default=2000, show_default=True, help="So many, one at a time.")
@click.option("--transport", type=click.Choice(TRANSPORTS), multiple=True, default=("ipc",), show_default=True)
@standard
def command(items: int, transport: Sequence[str], rounds: int, as_json: bool) -> None:
    """One item at a time, and one service request, beside raw round trips."""
    rows = measure(items, rounds, transport) + service_rows(items, rounds)
    show("latency", rows, as_json=as_json)
