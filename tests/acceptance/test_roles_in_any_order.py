"""Four processes, started one by one in any order, over ipc and tcp; and one of them killed."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.processes

APP = """
import time
from zmqpipeline import Pipeline

app = Pipeline("order")
out = open("collected", "a", buffering=1)

@app.task("C")
def numbers():
    for n in range({items}):
        yield {{"n": n}}

@app.worker("C", threads={threads})
def work(data):
    time.sleep({seconds})
    return data

@app.collector
def collect(data):
    out.write(f"{{data['n']}}\\n")

if __name__ == "__main__":
    app.main()
"""

ORDERS = [
    ("ipc", ("collector", "distributor", "worker C", "worker C")),
    ("ipc", ("worker C", "distributor", "worker C", "collector")),
    ("tcp", ("worker C", "worker C", "collector", "distributor")),
    ("tcp", ("distributor", "collector", "worker C", "worker C")),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transport", "order"), ORDERS, ids=lambda value: value if isinstance(value, str) else value[0]
)
def test_four_processes_in_any_order(transport: str, order: tuple[str, ...], workshop: Any, free_port: int) -> None:
    """10,000 one-millisecond items, each collected once; all four end by themselves with status 0."""
    workshop.write("app.py", APP.format(items=10_000, threads=4, seconds=0.001))
    place = ["--endpoint", f"tcp://127.0.0.1:{free_port}"] if transport == "tcp" else []
    programs = []
    for role in order:
        programs.append(workshop.start("-m", "app", *role.split(), *place))
        time.sleep(0.4)  # the order is the input here, and a start is no event that anyone reports
    statuses = [program.wait() for program in programs]
    assert statuses == [0, 0, 0, 0], [program.err for program in programs]
    assert sorted(workshop.numbers("collected")) == list(range(10_000))


@pytest.mark.alone
def test_a_killed_worker_costs_nothing_but_its_time(workshop: Any, eventually: Callable[..., None]) -> None:
    """kill -9 of one of two workers: 2,000 collected, none twice, within 5 s of what one worker alone needs."""
    threads, seconds = 2, 0.01
    workshop.write("app.py", APP.format(items=2_000, threads=threads, seconds=seconds))
    collector, distributor, first, second = (
        workshop.start("-m", "app", *role.split()) for role in ("collector", "distributor", "worker C", "worker C")
    )
    # the yardstick: what a nap takes on this machine, beside all else that it does now
    eventually(lambda: len(workshop.lines("collected")) > 200, "200 items collected")
    began, before = time.monotonic(), len(workshop.lines("collected"))
    eventually(lambda: len(workshop.lines("collected")) > 900, "900 items collected")
    first.signal(signal.SIGKILL)
    killed_at, left = time.monotonic(), 2_000 - len(workshop.lines("collected"))
    took_each = 2 * threads * (killed_at - began) / (2_000 - left - before)
    statuses = [program.wait() for program in (collector, distributor, second)]
    took = time.monotonic() - killed_at
    assert statuses == [0, 0, 0], distributor.err
    assert sorted(workshop.numbers("collected")) == list(range(2_000))
    assert took < left * max(seconds + 0.0005, 1.2 * took_each) / threads + 5


def test_roles_end_well_on_sigterm(workshop: Any, eventually: Callable[..., None]) -> None:
    """SIGTERM: a worker drains with status 0, distributor and collector with 143; what was executed is collected."""
    workshop.write("app.py", APP.format(items=100_000, threads=1, seconds=0.01))
    programs = {role: workshop.start("-m", "app", *role.split()) for role in ("collector", "distributor", "worker C")}
    eventually(lambda: len(workshop.lines("collected")) > 20, "20 items collected")
    statuses = {}
    for role in ("worker C", "distributor", "collector"):
        programs[role].signal(signal.SIGTERM)
        statuses[role] = programs[role].wait()
    assert statuses == {"worker C": 0, "distributor": 143, "collector": 143}
    collected = workshop.numbers("collected")
    assert len(set(collected)) == len(collected)


@pytest.mark.slow
def test_worker_processes_share_one_command(workshop: Any) -> None:
    """`worker --processes 2` starts two workers, serves every task, and ends with 0 when both have."""
    workshop.write("app.py", APP.format(items=200, threads=1, seconds=0.01))
    programs = [
        workshop.start("-m", "app", *role) for role in (["collector"], ["distributor"], ["worker", "--processes", "2"])
    ]
    assert [program.wait() for program in programs] == [0, 0, 0]
    assert sorted(workshop.numbers("collected")) == list(range(200))


def test_an_idle_worker_may_go_home(workshop: Any) -> None:
    """`--idle-timeout` ends a worker that hears of nobody, with status 0."""
    workshop.write("app.py", APP.format(items=1, threads=1, seconds=0))
    status, program = workshop.run("-m", "app", "worker", "--idle-timeout", "0.3")
    assert status == 0, program.err


def test_orders_differ() -> None:
    """The orders above are of the same four roles, and no two are alike."""
    assert len({order for _, order in ORDERS}) == len(ORDERS)
    assert all(sorted(one) == sorted(two) for (_, one), (_, two) in itertools.pairwise(ORDERS))
