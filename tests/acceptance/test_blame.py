"""Who is blamed for a worker's death: what had begun. All else goes to others, at full speed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

Eventually = Callable[..., None]

APP = """
import os, signal, threading, time
from zmqpipeline import Pipeline

app = Pipeline("blame")
ITEMS, LIMIT = int(os.environ["ITEMS"]), int(os.environ.get("LIMIT", "3"))

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

@app.task("C", crash_limit=LIMIT)
def numbers():
    for n in range(ITEMS):
        yield {"n": n}

@app.worker_init("C")
def init():
    note("workers", os.getpid())
    INIT

@app.worker("C")
def work(data):
    TRIAL
    return data

count = 0

@app.collector
def collect(data):
    global count
    count += 1
    if count % 1000 == 0:
        note("collected", time.monotonic())

@app.failed
def failed(failure):
    note("failed", failure.data["n"])
    note("stages", failure.stage)

if __name__ == "__main__":
    app.main()
"""


# in the midst of a flow: a test that kills from outside may come too late
DIES = """if data["n"] in (300_000, 600_000, 900_000) and not os.path.exists(f"died{data['n']}"):
        note(f"died{data['n']}", time.monotonic())
        # a moment later, in whatever it does then: no item of its own kills it
        threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGKILL)).start()"""


@pytest.mark.alone
def test_what_a_killed_worker_had_queued_goes_out_at_full_speed(workshop: Workshop) -> None:
    """kill -9 of one of two workers with thousands of trivial items at hand: the next 30,000 take no second.

    The best of three deaths counts: what else the machine does only adds to it.
    """
    workshop.write("app.py", APP.replace("TRIAL", DIES).replace("INIT", "pass"))
    items = 1_500_000
    status, program = workshop.run("-m", "app", "run", "--workers", "2", "--json", ITEMS=str(items), timeout=100)
    assert status == 0, program.err
    assert program.json["tasks"]["C"]["collected"] == items
    times = [float(line) for line in workshop.lines("collected")]
    slowest = []
    for number in (300_000, 600_000, 900_000):
        (died,) = map(float, workshop.lines(f"died{number}"))
        at = sum(one <= died for one in times)
        around = zip(times[at - 5 : at + 60], times[at + 25 :], strict=False)
        slowest.append(max(later - earlier for earlier, later in around))
    usual = 30 * (times[-1] - times[0]) / len(times)
    print(f"30,000 items took {usual:.2f} s; the slowest around each death", *(f"{one:.2f} s" for one in slowest))
    # one by one they take fifty times as long, on a slow machine, too
    assert min(slowest) < max(1.0, 8 * usual), (slowest, usual)


def running(workshop: Workshop) -> list[int]:
    """The items that workers say to be at, as `status` has it."""
    runs = map(json.loads, workshop.run("-m", "app", "status", "--json", ITEMS="0")[1].out.splitlines())
    return [item["number"] for run in runs for worker in run["workers"] for item in worker["running"]]


@pytest.mark.slow
def test_an_item_that_never_ran_is_never_blamed(workshop: Workshop, eventually: Eventually) -> None:
    """With crash_limit=1, a worker is killed in its long item, behind which thousands wait: that one alone fails."""
    trial = 'data["n"] == 60_000 and (note("long", os.getpid()), time.sleep(1000))'
    workshop.write("app.py", APP.replace("TRIAL", trial).replace("INIT", "pass"))
    program = workshop.start("-m", "app", "run", "--workers", "1", "--json", ITEMS="120000", LIMIT="1")
    eventually(lambda: workshop.lines("long"), "the long item")
    # the worker says what it is at some milliseconds after it began
    eventually(lambda: 60_000 in running(workshop), "the distributor knows that it runs")
    os.kill(workshop.numbers("long")[0], signal.SIGKILL)
    assert program.wait(60) == 1, program.err
    assert workshop.numbers("failed") == [60_000]
    assert workshop.lines("stages") == ["crash"]
    assert program.json["tasks"]["C"]["collected"] == 119_999


@pytest.mark.parametrize("limit", [1, 3])
def test_no_item_is_blamed_for_a_worker_that_dies_of_its_initialisation(limit: int, workshop: Workshop) -> None:
    """As when the system ends a process that loads a model: the first four die, and the fifth does all of it."""
    init = 'len(open("workers").readlines()) < 5 and os.kill(os.getpid(), signal.SIGKILL)'
    workshop.write("app.py", APP.replace("TRIAL", "pass").replace("INIT", init))
    status, program = workshop.run("-m", "app", "run", "--workers", "1", "--json", ITEMS="30", LIMIT=str(limit))
    assert status == 0, program.err
    assert (program.json["tasks"]["C"]["collected"], len(workshop.lines("workers"))) == (30, 5)


def test_a_killer_that_comes_first_after_an_initialisation_is_found(workshop: Workshop) -> None:
    """It kills its process a moment after the init function has returned: the second death is the last."""
    trial = 'data["n"] == 0 and os.kill(os.getpid(), signal.SIGKILL)'
    workshop.write("app.py", APP.replace("TRIAL", trial).replace("INIT", "pass"))
    status, program = workshop.run("-m", "app", "run", "--workers", "1", "--json", ITEMS="30", LIMIT="2")
    assert status == 1, program.err
    assert (workshop.numbers("failed"), len(workshop.lines("workers"))) == ([0], 3)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_killer_among_thousands_of_short_items_is_found(limit: int, workshop: Workshop) -> None:
    """It kills at once, in the midst of a batch: within three deaths it is known and failed, and no other with it."""
    trial = 'data["n"] == 30_000 and (note("killed", os.getpid()), os.kill(os.getpid(), signal.SIGKILL))'
    workshop.write("app.py", APP.replace("TRIAL", trial).replace("INIT", "pass"))
    status, program = workshop.run("-m", "app", "run", "--json", ITEMS="60000", LIMIT=str(limit), timeout=100)
    assert status == 1, program.err
    assert workshop.numbers("failed") == [30_000]
    assert program.json["tasks"]["C"]["collected"] == 59_999
    assert len(workshop.lines("killed")) <= 3
