"""SIGTERM and Ctrl-C for every role that is a process: it drains, within its time, with the status that is promised."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = pytest.mark.processes

Eventually = Callable[..., None]

APP = """
import os, time
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("signals")

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

def hold(what):
    note("held", what)
    while not Path("go").exists():
        time.sleep(0.01)

@app.task("C")
def numbers():
    for n in range(100000):
        yield {"n": n}

@app.worker("C")
def work(data):
    time.sleep(0.002)
    if data["n"] == 20 and os.environ.get("HOLD") == "worker":
        hold("worker")
    note("executed", data["n"])
    return data

@app.collector
def collect(data):
    if data["n"] == 20 and os.environ.get("HOLD") == "collector":
        hold("collector")
    note("collected", data["n"])

@app.service("echo")
def echo(data):
    if "hold" in data:
        hold("service")
    return data

if __name__ == "__main__":
    app.main()
"""

TASK_ROLES = ("worker C", "worker C --processes 2", "distributor", "collector")
SERVICE_ROLES = ("service-worker echo", "service-worker echo --processes 2", "service")


def start(workshop: Workshop, *roles: str, **environ: str) -> dict[str, Program]:
    """Start these commands of the app."""
    workshop.write("app.py", APP)
    return {role: workshop.start("-m", "app", *role.split(), **environ) for role in roles}


def status_of(role: str, signum: int) -> int:
    """What a role ends with that drained on a signal."""
    return 0 if "worker" in role and signum == signal.SIGTERM else 128 + signum


def end(programs: dict[str, Program], roles: tuple[str, ...], signum: int, timeout: float = 60) -> None:
    """Signal these one after the other, as a terminal does; each ends with its own status, and without a traceback."""
    for role in roles:
        programs[role].signal(signum, group=signum == signal.SIGINT)
        assert programs[role].wait(timeout) == status_of(role, signum), f"{role}: {programs[role].err}"
        assert "Traceback" not in programs[role].err


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_roles_of_tasks_drain(signum: int, workshop: Workshop, eventually: Eventually) -> None:
    """Workers alone and in groups, distributor and collector, in the middle of work: all executed is collected."""
    programs = start(workshop, *reversed(TASK_ROLES))
    eventually(lambda: len(workshop.lines("collected")) > 300, "300 items collected")
    if signum == signal.SIGINT:
        # the last of them ends by the word of the distributor, with which the run has ended
        end(programs, TASK_ROLES[:-1], signum)
        assert programs["collector"].wait() == 1
        assert "The run ended early: the distributor was interrupted" in programs["collector"].err
    else:
        end(programs, TASK_ROLES, signum)
    assert sorted(workshop.numbers("collected")) == sorted(workshop.numbers("executed"))


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_roles_of_services_drain(signum: int, workshop: Workshop) -> None:
    """Service workers alone and in groups, and the broker, which has answered before."""
    programs = start(workshop, *reversed(SERVICE_ROLES))
    for n in range(3):
        status, asked = workshop.run("-m", "app", "call", "echo", f'{{"n": {n}}}')
        assert status == 0, asked.err
    end(programs, SERVICE_ROLES, signum)


BUSY = [
    ("worker", "distributor"),
    ("worker", "worker C"),
    ("collector", "collector"),
    ("service", "service"),
    ("service", "service-worker echo"),
]
"""What is held up, and a role that waits for it."""


def hold_up(workshop: Workshop, eventually: Eventually, held: str, *flags: str) -> dict[str, Program]:
    """Start what it takes, and wait until a function that does not return is at work."""
    roles = SERVICE_ROLES[::2] if held == "service" else ("worker C", "distributor", "collector")
    programs = start(workshop, *(" ".join((role, *flags)) for role in roles), HOLD=held)
    if held == "service":
        workshop.start("-m", "app", "call", "echo", '{"hold": 1}')
    eventually(lambda: workshop.lines("held") == [held], "a function that does not return")
    return dict(zip(roles, programs.values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("held", "role"), BUSY, ids=[role for _, role in BUSY])
def test_a_drain_has_an_end(held: str, role: str, workshop: Workshop, eventually: Eventually) -> None:
    """With `--drain-timeout 0.5`, who waits for what does not come ends all the same, soon, with its usual status."""
    programs = hold_up(workshop, eventually, held, "--drain-timeout", "0.5")
    end(programs, (role,), signal.SIGTERM, timeout=20)


HANGS = """
import time
from pathlib import Path
from zmqpipeline import Pipeline

app = Pipeline("hangs")

@app.task("C")
def numbers():
    for n in range(1000):
        yield {"n": n}

@app.worker("C")
def work(data):
    return data

@app.collector
def collect(data):
    Path("hangs").touch()
    time.sleep(1000)
"""


@pytest.mark.slow
def test_a_run_whose_collector_hangs_has_one_drain_time(workshop: Workshop, eventually: Eventually) -> None:
    """The collector gets no second one after the others: what it holds is not acknowledged, and not lost."""
    workshop.write("hangs.py", HANGS)
    run = workshop.start("-m", "zmqpipeline", "-A", "hangs:app", "run", "--workers", "1", "--drain-timeout", "12")
    eventually((workshop.folder / "hangs").exists, "a function that does not return")
    began = time.monotonic()
    run.signal(signal.SIGTERM)
    assert run.wait() == 143, run.err
    assert 12 <= time.monotonic() - began < 24


@pytest.mark.slow
@pytest.mark.parametrize(("held", "role"), BUSY, ids=[role for _, role in BUSY])
def test_a_second_signal_ends_at_once(held: str, role: str, workshop: Workshop, eventually: Eventually) -> None:
    """Whichever of two signals is second, nobody waits for the drain time-out of 25 s."""
    programs = hold_up(workshop, eventually, held)
    programs[role].signal(signal.SIGTERM)
    programs[role].signal(signal.SIGINT)
    assert programs[role].wait(20) in (130, 143), programs[role].err


METADATA = """
import os, signal, sys, threading, time
import zmqpipeline

class Words(zmqpipeline.MetaDataWorker):
    endpoint = zmqpipeline.EndpointAddress("ipc://metadata.ipc")

    def get_metadata(self):
        return {"path": "/"}

def interrupt():
    while signal.getsignal(signum) in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler):
        time.sleep(0.001)
    os.kill(os.getpid(), signum)

signum = int(sys.argv[1])
threading.Thread(target=interrupt).start()
words = Words()
try:
    words.run()
except KeyboardInterrupt:
    print("interrupted")
print(words.status, words.signum)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_metadata_worker_that_nobody_wants_ends(signum: int, workshop: Workshop) -> None:
    """A program of the class API: after SIGTERM `run` returns; Ctrl-C it raises. The rest is the program's own."""
    workshop.write("words.py", METADATA)
    status, program = workshop.run("words.py", str(signum.real))
    raised = "interrupted\n" if signum == signal.SIGINT else ""
    assert (status, program.out) == (0, f"{raised}0 {signum.real}\n"), program.err
