"""Who waits for a role that is not there: what it says, and the option that has it end (`exit_when_idle`)."""

from __future__ import annotations

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
import os
from zmqpipeline import Pipeline

app = Pipeline("waiting")

@app.task("C")
def numbers():
    for n in range(10):
        yield {"n": n}

@app.worker("C")
def work(data):
    if data["n"] == 5 and os.path.exists("gate"):
        with open("busy", "a") as file:
            file.write(f"{os.getpid()}\\n")
        # until somebody writes to the pipe
        open("gate").read()
    return data

@app.collector
def collect(data):
    with open("collected", "a") as file:
        file.write(f"{data['n']}\\n")

if __name__ == "__main__":
    app.main()
"""
NODE = """
import logging
import os
import sys

from zmqpipeline import Collector, Distributor, EndpointAddress, Task, TaskType
from zmqpipeline.protocol import distributor, waiting

# what is said after some seconds and each minute is said five times a second
for role in (distributor, waiting):
    role.WARN_FIRST_SECONDS = role.WARN_SECONDS = 0.2
logging.basicConfig()
RESULTS, ACKS = EndpointAddress("ipc://results.ipc"), EndpointAddress("ipc://acks.ipc")

TaskType.register_type("C")

class Numbers(Task):
    task_type = TaskType("C")
    endpoint = EndpointAddress(f"ipc://{sys.argv[1]}.ipc")
    dependencies = []

    def handle(self, data, address, msgtype):
        raise AssertionError("there is no worker")

class Gather(Collector):
    endpoint, ack_endpoint = RESULTS, ACKS

    def handle_collection(self, data, task_type, msgtype):
        raise AssertionError("there is no worker")

if sys.argv[1] == "collector":
    role = Gather()
else:
    Distributor.register_task(Numbers)
    role = Distributor(RESULTS, ACKS)
role.run()
sys.exit(role.status)
"""
NO_ANSWER = "Waiting for the collector to answer: another distributor is connected to it"


@pytest.mark.slow
def test_a_second_distributor_says_what_it_waits_for(workshop: Workshop, eventually: Eventually) -> None:
    """It has addresses of its own and the same collector: it says so again and again, and takes over in the end."""
    workshop.write("node.py", NODE)
    workshop.start("node.py", "collector")
    first = workshop.start("node.py", "first")
    eventually(lambda: "No worker serves task 'C'" in first.err, "the first one runs")
    second = workshop.start("node.py", "second")
    eventually(lambda: second.err.count(NO_ANSWER) >= 3, "the second one says three times what it waits for")
    first.signal(signal.SIGKILL)
    eventually(lambda: "No worker serves task 'C'" in second.err, "the second one takes over")


@pytest.mark.slow
def test_a_second_distributor_need_not_wait_for_ever(workshop: Workshop, eventually: Eventually) -> None:
    """With the option it ends with 75; the first one is not disturbed."""
    workshop.write("node.py", NODE)
    workshop.start("node.py", "collector")
    first = workshop.start("node.py", "first")
    eventually(lambda: "No worker serves task 'C'" in first.err, "the first one runs")
    status, second = workshop.run("node.py", "second", ZMQPIPELINE_EXIT_WHEN_IDLE="1")
    assert status == 75, second.err
    assert "The collector did not answer" in second.err
    assert not first.ended()


@pytest.mark.parametrize(
    ("role", "status", "said"),
    [
        ("distributor", 75, "No collector was there for 0.5 s (exit_when_idle)."),
        ("collector", 75, "No distributor was there for 0.5 s (exit_when_idle)."),
        ("worker", 0, "Nobody was there for 0.5 s (exit_when_idle): ending."),
    ],
)
def test_a_role_that_waits_for_nobody_ends(role: str, status: int, said: str, workshop: Workshop) -> None:
    """By the flag, and by the variable; it says why."""
    workshop.write("app.py", APP)
    for flags, environ in (
        (("--exit-when-idle", "0.5"), {}),
        ((), {"ZMQPIPELINE_EXIT_WHEN_IDLE": "0.5"}),
    ):
        ended, program = workshop.run("-m", "app", role, *flags, ZMQPIPELINE_LOG_LEVEL="info", **environ)
        assert ended == status, program.err
        assert said in program.err


META = """
import sys, zmqpipeline

class Meta(zmqpipeline.MetaDataWorker):
    endpoint = "ipc://meta.ipc"

    def get_metadata(self):
        return {}

meta = Meta()
meta.run()
sys.exit(meta.status)
"""


def test_a_metadata_worker_that_waits_for_nobody_ends(workshop: Workshop) -> None:
    """With status 75, since nobody took its metadata; it says why."""
    workshop.write("meta.py", META)
    status, program = workshop.run("meta.py", ZMQPIPELINE_EXIT_WHEN_IDLE="0.5")
    assert status == 75, program.err
    assert "No distributor was there for 0.5 s (exit_when_idle)." in program.err


@pytest.mark.slow
def test_roles_that_have_each_other_do_not_end(workshop: Workshop, eventually: Eventually) -> None:
    """An item takes longer than the option says; nobody waits for anybody who is not there."""
    workshop.write("app.py", APP)
    gate = workshop.folder / "gate"
    os.mkfifo(gate)
    roles = [
        workshop.start("-m", "app", one, "--exit-when-idle", "30") for one in ("collector", "distributor", "worker")
    ]
    eventually(lambda: workshop.lines("busy"), "the item runs")
    idle = workshop.start("-m", "app", "worker", "--exit-when-idle", "5")
    eventually(lambda: len(workshop.lines("collected")) == 9, "all others are collected, by the idle one")
    # longer than it would wait if nobody were there
    with pytest.raises(AssertionError, match="still running"):
        idle.wait(6)
    gate.write_text("go")
    assert [one.wait() for one in (*roles, idle)] == [0, 0, 0, 0], [one.err for one in roles]


def test_run_does_not_end_while_a_role_of_it_is_started(workshop: Workshop) -> None:
    """The option is for roles that are started one by one: what `run` starts comes, however long it takes.

    No worker ends before the distributor is there.
    """
    slow = "import sys, time; time.sleep(1 if 'distributor' in sys.argv else 0)\n"
    workshop.write("app.py", slow + APP)
    environ = {"ZMQPIPELINE_EXIT_WHEN_IDLE": "0.05", "ZMQPIPELINE_LOG_LEVEL": "info"}
    status, program = workshop.run("-m", "app", "run", "--workers", "2", **environ)
    assert status == 0, program.err
    assert "exit_when_idle" not in program.err
    assert sorted(workshop.numbers("collected")) == list(range(10))


@pytest.mark.slow
def test_several_workers_of_one_command_end_too(workshop: Workshop) -> None:
    """By the flag and by the variable, each of them, and the command with status 0."""
    workshop.write("app.py", APP)
    for flags, environ in ((("--exit-when-idle", "0.5"), {}), ((), {"ZMQPIPELINE_EXIT_WHEN_IDLE": "0.5"})):
        command = ("-m", "app", "worker", "--processes", "2", *flags)
        status, program = workshop.run(*command, ZMQPIPELINE_LOG_LEVEL="info", **environ)
        assert (status, program.err.count("(exit_when_idle): ending")) == (0, 2), program.err


@pytest.mark.slow
def test_a_distributor_killed_in_the_farewell(workshop: Workshop, eventually: Eventually) -> None:
    """A stopped worker holds up its end. Killed then and started again it ends with 0, and the collector with it.

    One that comes when the collector is gone, too, waits for it, and ends by the option.
    """
    workshop.write("app.py", APP)
    os.mkfifo(workshop.folder / "gate")
    roles = ("collector", "distributor", "worker", "worker")
    collector, distributor, *workers = (
        workshop.start("-m", "app", one, ZMQPIPELINE_LOG_LEVEL="debug") for one in roles
    )
    # then the worker that is stopped holds none of them
    eventually(lambda: len(workshop.lines("collected")) == 9, "all others are collected")
    eventually(lambda: workshop.numbers("busy"), "a worker is busy")
    stopped = next(one for one in workers if [one.pid] != workshop.numbers("busy"))
    stopped.signal(signal.SIGSTOP)
    (workshop.folder / "gate").write_text("go")
    eventually(lambda: "sent RunEnded" in distributor.err, "the farewell")
    distributor.signal(signal.SIGKILL)
    status, second = workshop.run("-m", "app", "distributor", "--exit-when-idle", "50")
    assert status == 0, second.err
    assert collector.wait() == 0, collector.err
    status, third = workshop.run("-m", "app", "distributor", "--exit-when-idle", "0.5")
    assert status == 75, third.err
