"""`run --workers MIN:MAX` with real processes: it grows for a burst, shrinks in a pause, and never gives up an item.

A run has more items than it can do while something is waited for; a file named `fast` has them take no time.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import troubles

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Eventually = Callable[..., None]

APP = """
import os, sys, time
from pathlib import Path
from zmqpipeline import Pipeline

HERE = Path(__file__).resolve().parent
app = Pipeline("scaled")
ITEMS, SECONDS = int(os.environ.get("ITEMS", "300")), float(os.environ.get("SECONDS", "0.2"))

def note(name, text):
    with open(HERE / name, "a") as file:
        file.write(f"{text}\\n")

def wait_for(name):
    while not (HERE / name).exists():
        time.sleep(0.02)

@app.task("C", TOTAL)
def items():
    for n in range(ITEMS):
        yield {"n": n}
    note("given", "all")
    if "PAUSE" in os.environ:
        wait_for("more")
        yield {"n": ITEMS}

@app.worker_init("C")
def begin():
    time.sleep(float(os.environ.get("INIT", "0")))
    if "BUG" in os.environ:
        raise KeyError("bug")

@app.worker("C")
def work(data):
    note("workers", os.getpid())
    note("begun", data["n"])
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and not (HERE / "fast").exists():
        time.sleep(0.02)
    return data

@app.collector
def collect(data):
    note("collected", data["n"])

if __name__ == "__main__":
    if sys.argv[1:] == ["called"]:
        print(app.run(workers={"C": "1:3"}).ok)
    else:
        app.main()
"""


def children_of(pid: int) -> list[int]:
    """The child processes of a process, by their ids."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Scene:
    """The app in a workshop, and what is seen of it."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop

    def start(self, workers: str, *flags: str, total: str = "total=None", **environ: str) -> Program:
        """Start `run --workers` with this."""
        self.workshop.write("app.py", APP.replace("TOTAL", total))
        run = ("-m", "app", "run", "--no-progress", "--log-level", "info", "--workers", workers)
        return self.workshop.start(*run, *flags, **environ)

    @property
    def pids(self) -> list[int]:
        """The workers that have executed items."""
        return list(dict.fromkeys(self.workshop.numbers("workers")))

    def children(self, program: Program) -> int:
        """How many workers `run` has now."""
        return len(children_of(program.pid)) - 1

    def assert_each_once(self, items: Iterable[int]) -> None:
        """Every item was collected once."""
        assert sorted(self.workshop.numbers("collected")) == list(items)


@pytest.fixture
def scene(workshop: Workshop) -> Scene:
    """Everything in a folder of its own."""
    return Scene(workshop)


@pytest.mark.parametrize("total", ["total=None", "total=2001"])
def test_it_grows_for_a_burst_and_shrinks_in_a_pause(scene: Scene, total: str, eventually: Eventually) -> None:
    """One worker, then four, then one; `status` says how many are there and desired; each item once."""
    program = scene.start("1:4", total=total, PAUSE="1", ITEMS="2000")
    eventually(lambda: scene.children(program) == 4, "there are four")
    eventually(lambda: len(scene.pids) == 4, "all four are at work")
    status, asked = scene.workshop.run("-m", "app", "status", "--json")
    assert (status, asked.json["tasks"]["C"]["desired_workers"]) == (0, 4), asked.err
    scene.workshop.write("fast", "")
    eventually(lambda: len(scene.workshop.lines("collected")) == 2000, "all that was given is done")
    eventually(lambda: scene.children(program) == 1, "one is left")
    status, asked = scene.workshop.run("-m", "app", "status")
    assert "1/1" in asked.out
    scene.workshop.write("more", "")
    assert program.wait() == 0, program.err
    scene.assert_each_once(range(2001))
    assert "by 1 to 4 workers, all collected" in program.err
    assert "Task 'C' is given" in program.err
    assert "WARNING" not in "".join(troubles(program.err))


def test_a_fixed_number_asks_nobody(scene: Scene) -> None:
    """As many as ever, from the start, and no thread that asks; a range of one number is that number."""
    program = scene.start("2:2", ITEMS="40")
    assert program.wait() == 0, program.err
    assert "by 2 workers" in program.err
    assert "is given" not in program.err


def test_none_until_there_is_work(scene: Scene) -> None:
    """0:2 begins without a worker; the task opens, and has one."""
    program = scene.start("0:2", "--json", ITEMS="1", total="total=1")
    assert program.wait() == 0, program.err
    assert json.loads(program.out)["workers"] == {"C": 1}
    scene.assert_each_once(range(1))


def test_a_worker_that_is_killed_is_replaced(scene: Scene, eventually: Eventually) -> None:
    """Also one that the growth has brought."""
    program = scene.start("1:3", ITEMS="2000")
    eventually(lambda: len(scene.pids) == 3, "all are at work")
    os.kill(scene.pids[-1], signal.SIGKILL)
    eventually(lambda: len(scene.pids) == 4, "another one is at work")
    scene.workshop.write("fast", "")
    assert program.wait() == 0, program.err
    scene.assert_each_once(range(2000))


def test_the_distributor_is_killed(scene: Scene, eventually: Eventually) -> None:
    """The next one is asked; nothing shrinks while nobody answers, and it is told what is desired."""
    program = scene.start("1:3", ITEMS="2000")
    eventually(lambda: len(scene.pids) == 3, "all are at work")
    (distributor,) = set(children_of(program.pid)) - set(scene.pids)
    os.kill(distributor, signal.SIGKILL)
    eventually(lambda: "The distributor (pid" in program.err, "its death is seen")
    known = len(scene.workshop.lines("collected"))
    eventually(lambda: len(scene.workshop.lines("collected")) > known + 30, "they go on")
    scene.workshop.write("fast", "")
    assert program.wait() == 0, program.err
    scene.assert_each_once(range(2000))
    assert len(scene.pids) == 3, "nobody was sent away"


def test_a_bug_in_an_init_function(scene: Scene) -> None:
    """It ends the run as with a fixed number: the places that are not filled are not waited for."""
    program = scene.start("1:8", BUG="1")
    assert program.wait() == 1, program.err
    assert "KeyError: 'bug'" in program.err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_run_drains_while_it_grows(scene: Scene, how: signal.Signals, eventually: Eventually) -> None:
    """At the first sign of growth: what runs is collected, nobody is left."""
    program = scene.start("1:6", ITEMS="100000")
    eventually(lambda: "is given" in program.err, "it grows")
    program.signal(how, group=how == signal.SIGINT)
    assert program.wait() == 128 + how, program.err
    assert sorted(scene.workshop.numbers("collected")) == sorted(scene.workshop.numbers("begun"))


def test_workers_behind_a_command(scene: Scene, eventually: Eventually) -> None:
    """The same with `--launch`: those that leave are asked by their lifeline."""
    launch = shlex.join(["sh", "-c", '"$@"; true', "--"])
    program = scene.start("1:3", "--launch", launch, PAUSE="1", ITEMS="2000")
    eventually(lambda: len(scene.pids) == 3, "all are at work")
    scene.workshop.write("fast", "")
    eventually(lambda: len(scene.workshop.lines("collected")) == 2000, "all that was given is done")
    eventually(lambda: scene.children(program) == 1, "one is left")
    scene.workshop.write("more", "")
    assert program.wait() == 0, program.err
    scene.assert_each_once(range(2001))
    assert "WARNING" not in "".join(troubles(program.err))


def test_a_command_that_leads_nowhere_is_asked_once(scene: Scene, eventually: Eventually) -> None:
    """All but the first wait in a queue: the run goes on with one, and ends without the others."""
    launch = f"{sys.executable} {scene.workshop.write('waits.py', WAITS)} {{index}}"
    program = scene.start("1:4", "--launch", launch, ITEMS="2000", total="total=2000")
    eventually(lambda: scene.workshop.lines("queued"), "others wait")
    scene.workshop.write("fast", "")
    assert program.wait() == 0, program.err
    scene.assert_each_once(range(2000))
    queued = scene.workshop.lines("queued")
    assert len(queued) == len(set(queued)) <= 3, "nobody is asked for twice"
    assert len(scene.pids) == 1


WAITS = """
import os, sys, time
if sys.argv[1] != "0":
    with open("queued", "a") as file:
        file.write(f"{sys.argv[1]}\\n")
    time.sleep(600)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_from_python(scene: Scene) -> None:
    """`app.run(workers={"C": "1:3"})`, which leaves no thread behind."""
    scene.workshop.write("app.py", APP.replace("TOTAL", "total=None"))
    status, program = scene.workshop.run("app.py", "called", ITEMS="50")
    assert (status, program.out) == (0, "True\n"), program.err
    scene.assert_each_once(range(50))


def test_the_wrong_way_round_is_refused(scene: Scene) -> None:
    """Before anything is started, with what to do."""
    program = scene.start("3:1")
    assert program.wait() == 2
    assert "asks for at least 3 and at most 1 processes of task 'C'" in program.err
