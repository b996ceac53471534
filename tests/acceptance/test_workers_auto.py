"""`run` uses the machine: a worker process for each core unless it is told otherwise; those without work rest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.processes

CORES = len(os.sched_getaffinity(0))

APP = """
import os, sys, time
if "ONE_CORE" in os.environ:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from zmqpipeline import Pipeline

app = Pipeline("auto")

@app.task("A")
def a():
    for n in range(int(os.environ.get("ITEMS", "20"))):
        yield {"n": n}

@app.worker("A")
def do_a(data):
    with open("started", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(float(os.environ.get("SECONDS", "0")))
    return data

@app.task("B", depends_on=["A"])
def b():
    yield {"n": 0}

@app.worker("B", threads=4)
def do_b(data):
    return data

@app.collector
def collect(data):
    pass

if __name__ == "__main__":
    if sys.argv[1:] == ["called"]:
        print(app.run(workers={"B": 1}).tasks["A"].collected, app.run().ok, app.run(workers="auto").ok)
    else:
        app.main()
"""


@pytest.mark.parametrize(
    ("command", "task"),
    [
        (("run", "--workers", "99999999"), "A"),
        (("run", "--workers", "auto,B=4001"), "B"),
        (("worker", "--processes", "99999999"), "A"),
        (("worker", "B", "--processes", "4001"), "B"),
        (("service-worker", "s", "--processes", "4001"), "s"),
    ],
)
def test_too_many_processes_are_refused_before_one_is_started(
    command: tuple[str, ...], task: str, workshop: Any
) -> None:
    """One line, with the bound and what to do; status 2."""
    service = '@app.service("s")\ndef serve(data):\n    return data\n\nif __name__'
    workshop.write("app.py", APP.replace("if __name__", service, 1))
    status, program = workshop.run("-m", "app", *command, "--endpoint", "ipc://many")
    assert (status, program.err.count("\n")) == (2, 1), program.err
    assert f"of task {task!r}; at most 4000 of one task" in program.err
    assert "threads=" in program.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "workers"),
    [
        ([], {"A": CORES, "B": CORES}),
        (["--workers", "auto"], {"A": CORES, "B": CORES}),
        (["--workers", "3"], {"A": 3, "B": 3}),
        (["--workers", "A=3"], {"A": 3, "B": CORES}),
        (["--workers", "1,A=auto"], {"A": CORES, "B": 1}),
        (["--workers", "A=1", "--workers", "B=2"], {"A": 1, "B": 2}),
    ],
)
def test_a_run_has_a_worker_for_each_core(workshop: Any, flags: list[str], workers: dict[str, int]) -> None:
    """By default and with auto; a number, or numbers for single tasks, make it others. The summary says how many."""
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", "run", "--json", *flags)
    assert status == 0, program.err
    assert program.json["workers"] == workers


def test_affinity_counts_and_the_summary_says_so(workshop: Any) -> None:
    """A process that may use one core starts one worker a task, whatever the machine has."""
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", "run", ONE_CORE="1")
    assert status == 0, program.err
    head, *tasks = program.err.splitlines()[-3:]
    assert head.startswith("auto: 21 items in ")
    assert head.endswith(" s by 2 workers, all collected")
    assert tasks == ["  A: sent 20, collected 20, workers 1", "  B: sent 1, collected 1, workers 1"]


@pytest.mark.slow
def test_app_run_takes_the_same(workshop: Any) -> None:
    """From Python: a dict for some, nothing, and "auto"."""
    workshop.write("app.py", APP)
    status, program = workshop.run("app.py", "called")
    assert (status, program.out) == (0, "20 True True\n"), program.err


@pytest.mark.parametrize(
    "flags", [["--workers", "0"], ["--workers", "B=0"], ["--workers", "A=two"], ["--workers", "C=1"]]
)
def test_workers_that_cannot_be_are_refused(workshop: Any, flags: list[str]) -> None:
    """No worker at a private address, what is no number, an unknown task: status 2, one line, nothing is started."""
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", "run", *flags)
    assert status == 2
    assert len(program.err.splitlines()) == 1, program.err
    assert not workshop.lines("started")


def test_without_workers_others_may_join_at_an_address(workshop: Any) -> None:
    """``--workers 0 --endpoint`` is for workers from elsewhere, which are then all that there are."""
    workshop.write("app.py", APP)
    base = f"ipc://{workshop.folder}/base"
    run = workshop.start("-m", "app", "run", "--workers", "0", "--endpoint", base)
    workers = [workshop.start("-m", "app", "worker", task, "--endpoint", base) for task in "AB"]
    assert run.wait() == 0, run.err
    assert [worker.wait() for worker in workers] == [0, 0]
    assert {int(pid) for pid in workshop.lines("started")} == {workers[0].pid}


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have used."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


@pytest.mark.alone
def test_idle_roles_cost_under_one_percent_of_a_core(workshop: Any, eventually: Callable[..., None]) -> None:
    """While one item is under way all roles but one wait: none of them, nor that one, uses 1 %."""
    # until somebody writes to the pipe
    workshop.write("app.py", APP.replace("    time.sleep(", '    open("gate").read()\n    time.sleep('))
    os.mkfifo(workshop.folder / "gate")
    program = workshop.start("-m", "app", "run", "--workers", "2", ITEMS="1")
    eventually(lambda: workshop.lines("started"), "the item is under way")
    children = Path(f"/proc/{program.pid}/task/{program.pid}/children")
    # the first worker may be at work before the last one is there
    eventually(lambda: len(children.read_text().split()) == 5, "all processes are there")
    pids = [program.pid, *map(int, children.read_text().split())]
    # what is still being loaded is not idle
    eventually(lambda: _rests(pids), "all roles have started")
    before, began = {pid: cpu_seconds(pid) for pid in pids}, time.monotonic()
    time.sleep(3)
    seconds = time.monotonic() - began
    shares = {pid: (cpu_seconds(pid) - before[pid]) / seconds for pid in pids}
    assert max(shares.values()) < 0.01, shares
    (workshop.folder / "gate").write_text("go")
    assert program.wait() == 0, program.err


def _rests(pids: list[int]) -> bool:
    """Whether each has its sockets, with the threads behind them, and uses no tenth of a core for half a second."""
    if any(len(list(Path(f"/proc/{pid}/task").iterdir())) < 4 for pid in pids):
        return False
    before = [cpu_seconds(pid) for pid in pids]
    time.sleep(0.5)
    return all(cpu_seconds(pid) - then < 0.05 for pid, then in zip(pids, before, strict=True))
