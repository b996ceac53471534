"""Who is started again, and what ends a run: `run` and `worker --processes`, with processes that die in all ways."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = pytest.mark.processes

Eventually = Callable[..., None]

HEAD = """
import ctypes, os, signal, sys, time
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("supervised")

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

def items(most):
    return ({"n": n} for n in range(most))

@app.collector
def collect(data):
    note("collected", data["n"])
"""
MAIN = """
if __name__ == "__main__":
    app.main()
"""
RUN = ("-m", "app", "run", "--json", "--no-progress")


def start(workshop: Workshop, body: str, *arguments: str, **environ: str) -> Program:
    """Start this app with these arguments; `run` with one worker, if they do not say how many."""
    workshop.write("app.py", HEAD + body + MAIN)
    arguments = arguments or RUN
    one = ("--workers", "1") if "run" in arguments and "--workers" not in arguments else ()
    return workshop.start(*arguments, *one, **environ)


def collected(workshop: Workshop) -> list[int]:
    """The numbers of the collected items, sorted; one that was collected twice is there twice."""
    return sorted(workshop.numbers("collected"))


# workers that are stopped ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stopped_worker_does_not_hold_up_the_end(workshop: Workshop, eventually: Eventually) -> None:
    """Others do what it had; then the run ends as it would without it, long before a drain would have to be over."""
    body = """
app.task("C")(lambda: items(40))

@app.worker("C")
def work(data):
    note("by", os.getpid())
    time.sleep(0.1)
    return data
"""
    program = start(workshop, body, *RUN, "--workers", "2", ZMQPIPELINE_HEARTBEAT_TIMEOUT="2")
    eventually(lambda: len(set(workshop.numbers("by"))) == 2, "both are at work")
    os.kill(workshop.numbers("by")[-1], signal.SIGSTOP)
    # the drain alone would take 25
    assert program.wait(22) == 0, program.err
    assert collected(workshop) == list(range(40))
    assert "does not answer: it is killed (SIGKILL)" in program.err


# deaths of workers at work --------------------------------------------------------------------------------------------

ONE_KILLS = """
app.task("C")(lambda: items(300))

@app.worker("C")
def work(data):
    if data["n"] == 100:
        DEATH
    return data
"""
DEATHS = {
    **{f"status {status}": f"os._exit({status})" for status in (0, 1, 2, 3, 70, 139)},
    # the signal may come to another thread: this one must not return meanwhile
    "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV); time.sleep(9)",
    "abort": "os.abort()",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", DEATHS)
def test_an_item_that_ends_its_worker_is_failed_alone(how: str, workshop: Workshop) -> None:
    """Whatever status its function ends the process with: it is tried three times, all others are done, status 1."""
    program = start(workshop, ONE_KILLS.replace("DEATH", DEATHS[how]))
    assert program.wait() == 1, program.err
    assert collected(workshop) == [n for n in range(300) if n != 100]
    assert program.json["failures"] == 1
    assert program.err.count("a new one starts in 0.1 s") == 3, program.err


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_ten_items_in_a_row_that_kill_their_worker(workers: int, workshop: Workshop) -> None:
    """Thirty deaths with not one item collected between them: ten failed items, 290 collected, status 1."""
    body = """
app.task("C")(lambda: items(300))

@app.worker("C")
def work(data):
    if 100 <= data["n"] < 110:
        os.kill(os.getpid(), signal.SIGKILL)
    return data
"""
    program = start(workshop, body, *RUN, "--workers", str(workers))
    assert program.wait(60) == 1, program.err
    assert collected(workshop) == [n for n in range(300) if not 100 <= n < 110]
    assert program.json["failures"] == 10


@pytest.mark.slow
def test_many_items_past_their_timeout(workshop: Workshop) -> None:
    """Each costs its worker, which leaves with status 70 and is started again: 12 failed, the others done, status 1."""
    body = """
app.task("C", timeout=0.5)(lambda: items(40))

@app.worker("C")
def work(data):
    if data["n"] < 12:
        time.sleep(60)
    return data
"""
    program = start(workshop, body)
    assert program.wait(100) == 1, program.err
    assert collected(workshop) == list(range(12, 40))
    assert program.json["failures"] == 12
    assert program.err.count("ended by status 70") == 12


@pytest.mark.slow
def test_many_workers_may_die_at_once(workshop: Workshop, eventually: Eventually) -> None:
    """Twenty of 22 are killed at the same moment, before any item is collected: all is done all the same, status 0."""
    body = """
app.task("C")(lambda: items(100))

@app.worker("C")
def work(data):
    note("workers", os.getpid())
    while not Path("go").exists():
        time.sleep(0.05)
    return data
"""
    program = start(workshop, body, *RUN, "--workers", "22")
    eventually(lambda: len(set(workshop.numbers("workers"))) == 22, "all workers are at work", 60)
    for pid in list(dict.fromkeys(workshop.numbers("workers")))[:20]:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: program.err.count("ended by SIGKILL") == 20, "their deaths are seen")
    workshop.write("go", "")
    assert program.wait(60) == 0, program.err
    assert collected(workshop) == list(range(100))


@pytest.mark.slow
def test_workers_that_die_idle_are_started_later_and_later(workshop: Workshop, eventually: Eventually) -> None:
    """A worker that has nothing to do is killed six times: it is never given up, and the run ends well."""
    body = """
@app.task("B")
def first():
    yield {"n": 0}

app.task("C", depends_on="B")(lambda: items(3))

@app.worker("B")
def hold(data):
    while not Path("go").exists():
        time.sleep(0.01)
    return {"n": -1}

@app.worker("C")
def work(data):
    return data

if "C" in sys.argv:
    note("idle", os.getpid())

from zmqpipeline.processes import restarts

# one that has lived for long was well: here it may do so because it is killed late
restarts.SETTLED_AFTER = 1000.0
"""
    program = start(workshop, body)
    for times in range(1, 7):
        eventually(lambda times=times: len(workshop.lines("idle")) == times, f"worker {times} of C")
        victim = workshop.numbers("idle")[-1]
        eventually(lambda victim=victim: is_ready(victim), "it waits for its first item")
        os.kill(victim, signal.SIGKILL)
        eventually(lambda victim=victim: f"pid {victim}" in program.err, "its death is seen")
    workshop.write("go", "")
    assert program.wait() == 0, program.err
    assert collected(workshop) == [-1, 0, 1, 2]
    delays = [line.partition("starts in ")[2].split()[0] for line in program.err.splitlines() if "starts in" in line]
    assert delays == ["0.1", "0.2", "0.4", "0.8", "1.6", "3.2"], program.err


def is_ready(pid: int) -> bool:
    """Whether a role runs in a process: it answers signals with a handler of its own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


# starts that fail -----------------------------------------------------------------------------------------------------

STARTS = """
app.task("C")(lambda: items(20))

@app.worker_init("C")
def begin():
    note("starts", os.getpid())
    DEATH

@app.worker("C")
def work(data):
    note("executed", data["n"])
    return data
"""


@pytest.mark.slow
@pytest.mark.parametrize("death", ["os._exit(0)", "os._exit(2)", "os.abort()"])
def test_a_worker_that_never_becomes_ready_ends_the_run(death: str, workshop: Workshop) -> None:
    """Whatever its init function does to it: the fifth time ends the run, with status 3; no item was executed."""
    program = start(workshop, STARTS.replace("DEATH", death))
    assert program.wait() == 3, program.err
    assert "The worker of 'C' failed to start 5 times in a row" in program.err
    assert len(workshop.lines("starts")) == 5
    assert workshop.lines("executed") == []


@pytest.mark.slow
def test_a_worker_whose_init_function_raises_ends_the_run_sooner(workshop: Workshop) -> None:
    """That is a bug, and not an accident: the third time ends the run, with status 1."""
    program = start(workshop, STARTS.replace("DEATH", "raise OSError('no database')"))
    assert program.wait() == 1, program.err
    assert len(workshop.lines("starts")) == 3
    assert workshop.lines("executed") == []
    assert [(one["stage"], one["error"], one["message"]) for one in program.json["reasons"]] == [
        ("init", "OSError", "no database")
    ]


@pytest.mark.slow
def test_one_worker_that_can_start_is_enough(workshop: Workshop, eventually: Eventually) -> None:
    """Those beside it whose start fails are tried again and again, and do not end the run."""
    body = STARTS.replace("DEATH", "os.open('lock', os.O_CREAT | os.O_EXCL)").replace(
        'note("executed", data["n"])', "while not Path('go').exists(): time.sleep(0.01)"
    )
    program = start(workshop, body, *RUN, "--workers", "2")
    eventually(lambda: program.err.count("FileExistsError") >= 2, "the other one has failed")
    workshop.write("go", "")
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(20))


@pytest.mark.parametrize(
    ("body", "said"),
    [("if 'worker' in sys.argv: import nothing_of_this_name", "nothing_of_this_name"), ("", "keys")],
)
def test_a_wrong_configuration_ends_the_run_at_once(body: str, said: str, workshop: Workshop) -> None:
    """A child that cannot import the app, or has wrong keys, says so once: status 2."""
    if not body:
        body = "if 'worker' in sys.argv: os.environ['ZMQPIPELINE_KEYS'] = 'keys'"
    program = start(workshop, f"{STARTS.replace('DEATH', 'pass')}\n{body}\n")
    assert program.wait() == 2, program.err
    assert program.err.count(said) >= 1
    assert "could not start" in program.err
    assert "a new one starts" not in program.err


# worker --processes ---------------------------------------------------------------------------------------------------


def group(workshop: Workshop, body: str, *flags: str) -> list[Program]:
    """A distributor, a collector, and `worker C` with these flags."""
    workshop.write("app.py", HEAD + body + MAIN)
    roles = (("distributor",), ("collector",), ("worker", "C", *flags))
    return [workshop.start("-m", "app", *role) for role in roles]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["status 0", "status 2", "status 3", "SIGSEGV"])
def test_no_item_ends_a_group_of_workers(how: str, workshop: Workshop) -> None:
    """`worker --processes 3` goes on, whatever status an item ends its process with; the group ends with 0."""
    distributor, collector, workers = group(workshop, ONE_KILLS.replace("DEATH", DEATHS[how]), "--processes", "3")
    assert [one.wait() for one in (distributor, collector)] == [1, 1], distributor.err
    # a worker that was started again after the end would wait for the next run
    workers.signal(signal.SIGTERM)
    assert workers.wait() == 0, workers.err
    assert collected(workshop) == [n for n in range(300) if n != 100]
    assert workers.err.count("a new one starts in 0.1 s") == 3


@pytest.mark.slow
def test_a_group_that_cannot_start_ends(workshop: Workshop) -> None:
    """When each worker's start has failed five times in a row: status 3, and a line that says so."""
    distributor, collector, workers = group(workshop, STARTS.replace("DEATH", "os._exit(0)"), "--processes", "2")
    assert workers.wait() == 3, workers.err
    assert "failed to start 5 times in a row; its messages are above. The other workers drain." in workers.err
    for one in (distributor, collector):
        one.signal(signal.SIGTERM)
        assert one.wait() == 143
    assert min(Counter(workshop.lines("starts")).values()) == 1
    assert len(workshop.lines("starts")) >= 10
