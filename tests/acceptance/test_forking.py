"""User code that forks: what it has forked outlives a killed role, and keeps neither its address nor its journal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.processes, pytest.mark.slow]

APP = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("forking")

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

def double(n):
    if not n:
        note("forked", os.getpid())
    return 2 * n

def doubled(count):
    '''By processes that were forked, and that nobody ends when their parent is killed.'''
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        yield from pool.map(double, range(count))

def held_until(name):
    while not Path(name).exists():
        time.sleep(0.01)

@app.task("C")
def numbers():
    note("distributor", os.getpid())
    for n in doubled(100) if os.environ["WHERE"] == "source" else range(100):
        if n == 50:
            held_until("go")
        yield {"n": n}

@app.worker("C")
def work(data):
    return data

pools = {}

@app.collector
def collect(data):
    if os.environ["WHERE"] == "collector" and not pools:
        pools["one"] = ProcessPoolExecutor(2, mp_context=get_context("fork"))
        pools["one"].submit(double, 0).result()
    note("collected", data["n"])

@app.finished
def finish():
    for pool in pools.values():
        pool.shutdown()

if __name__ == "__main__":
    app.main()
"""


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_a_distributor_whose_source_forks_may_be_killed(
    transport: str, workshop: Any, free_port: int, eventually: Callable[..., None], is_gone: Callable[[int], bool]
) -> None:
    """A ProcessPoolExecutor of the source lives on: the next distributor binds the same address, and the run ends."""
    workshop.write("app.py", APP)
    place = ["--endpoint", f"tcp://127.0.0.1:{free_port}"] if transport == "tcp" else []
    program = workshop.start("-m", "app", "run", "--json", *place, WHERE="source")
    eventually(lambda: len(workshop.lines("collected")) >= 20, "the run is under way")
    (orphan,) = set(workshop.numbers("forked"))
    os.kill(workshop.numbers("distributor")[0], signal.SIGKILL)
    eventually(lambda: len(workshop.lines("distributor")) == 2, "a new distributor is at work")
    assert not is_gone(orphan)
    workshop.write("go", "")
    assert program.wait() == 0, program.err
    assert "in use" not in program.err
    assert sorted(workshop.numbers("collected")) == list(range(0, 200, 2))


def test_a_run_whose_collector_forks_may_be_killed(
    workshop: Any, eventually: Callable[..., None], is_gone: Callable[[int], bool]
) -> None:
    """The pool of its collector's function lives on: the same line again has the journal, and the run goes on."""
    workshop.write("app.py", APP)
    command = ("-m", "app", "run", "--journal", "run.db", "--endpoint", f"ipc://{workshop.folder}/base")
    first = workshop.start(*command, WHERE="collector")
    eventually(lambda: len(workshop.lines("collected")) >= 20, "the run is under way")
    first.signal(signal.SIGKILL)
    first.wait()
    orphan = workshop.numbers("forked")[0]
    assert not is_gone(orphan)
    eventually(lambda: is_gone(workshop.numbers("distributor")[0]), "its distributor is gone")
    workshop.write("go", "")
    status, second = workshop.run(*command, WHERE="collector")
    assert status == 0, second.err
    assert not is_gone(orphan)
    assert set(workshop.numbers("collected")) == set(range(100))
