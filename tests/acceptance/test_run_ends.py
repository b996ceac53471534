"""How runs of the class API end: a broken run, Ctrl-C on each role, `shutdown`; each program, and those beside it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.support.apps import FIVE_ITEMS
from zmqpipeline.protocol.early_end import MARGIN_SECONDS

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Eventually = Callable[..., None]

PROGRAM = """
import os, signal, sys, threading, time
from pathlib import Path
import zmqpipeline as z

z.TaskType.register_type("C")
WORK, RESULTS, ACKS = (z.EndpointAddress(f"ipc://{name}.ipc") for name in ("work", "results", "acks"))
BUG, ITEMS = os.environ.get("BUG"), int(os.environ.get("ITEMS", "40"))

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

class Numbers(z.Task):
    task_type, endpoint, dependencies = z.TaskType("C"), WORK, []
    def handle(self):
        self.n_count += 1
        if BUG == "source" and self.n_count == 20:
            return ["no dict"]
        self.is_complete = self.n_count == ITEMS
        return {"n": self.n_count}

class Works(z.SingleThreadedWorker):
    task_type, endpoint, collector_endpoint = z.TaskType("C"), WORK, RESULTS
    def handle_execution(self, data):
        note("executed", data["n"])
        if BUG == "hold" or data["n"] > int(os.environ.get("MOST", "1000000")):
            while not Path("go").exists():
                time.sleep(0.01)
        time.sleep(float(os.environ.get("SLEEP", "0")))
        if BUG == "worker" and data["n"] == 3:
            raise ValueError("no three")
        return data

class Gathers(z.Collector):
    endpoint, ack_endpoint = RESULTS, ACKS
    def handle_collection(self, data):
        if BUG == "collector" and data["n"] == 3:
            raise ValueError("no three")
        if BUG == "fives" and data["n"] % 5 == 0:
            raise ValueError("no five")
        note("collected", data["n"])
    def handle_finished(self):
        print("finished", self.ok)
    if BUG == "ack_data":
        def get_ack_data(self):
            raise ValueError("no data")

def make(name):
    if name == "distributor":
        z.Distributor.register_task(Numbers)
        return z.Distributor(RESULTS, ACKS)
    return Works(stay="STAY" in os.environ) if name == "worker" else Gathers()

role = make(sys.argv[1])
if "SHUTDOWN" in os.environ:
    def end():
        while not Path("end").exists():
            time.sleep(0.01)
        role.shutdown()
    threading.Thread(target=end, daemon=True).start()
try:
    role.run()
except KeyboardInterrupt:
    # a second one is for `run`, and may come late
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("interrupted")
    role.shutdown()
    sys.exit(7)
except z.errors.RunFailed as error:
    print("troubles", *error.troubles)
    raise
finally:
    if sys.argv[1] != "worker":
        print(role.ok, [one.message for one in role.failures], role.summary.ok, role.summary.tasks)
"""
ROLES = ("worker", "collector", "distributor")


def start(workshop: Workshop, *roles: str, **environ: str) -> dict[str, Program]:
    """Start these roles, a process each."""
    workshop.write("prog.py", PROGRAM)
    return {role: workshop.start("prog.py", role, **environ) for role in roles}


def letter(program: Program) -> str:
    """The last line of a program that did not catch RunFailed: status 1, and the call of `run` in the traceback."""
    assert program.wait() == 1, program.err
    last = program.err.splitlines()[-1]
    assert last.startswith("zmqpipeline.errors.RunFailed: The run "), program.err
    assert program.err.count("Traceback") >= 1
    assert "role.run()" in program.err
    return last


def test_a_run_whose_source_raised_is_a_failure_of_all(workshop: Workshop) -> None:
    """The distributor raises its TypeError; collector and worker are told, and why; `handle_finished` is called."""
    programs = start(workshop, *ROLES, BUG="source")
    assert programs["distributor"].wait() == 1
    assert "SerializeError: Numbers.handle (prog.py:16) returned a list" in programs["distributor"].err
    assert "producer.py" not in programs["distributor"].err
    for role in ("worker", "collector"):
        assert "task 'C' was not sent in whole: " in letter(programs[role])
    assert programs["collector"].out.startswith("finished False\ntroubles C\nFalse [] False")
    assert sorted(workshop.numbers("collected")) == list(range(1, 20))


@pytest.mark.parametrize("where", ["worker", "collector"])
def test_a_run_with_a_failed_item_is_a_failure_of_all(where: str, workshop: Workshop) -> None:
    """Each role ends in good order, raises RunFailed, and names task, number, error, file and line."""
    programs = start(workshop, *ROLES, BUG=where)
    line = 32 if where == "worker" else 39
    for role in ROLES:
        assert f"task 'C': 1 failed (ValueError: no three in prog.py:{line} " in letter(programs[role])
    assert "finished False" in programs["collector"].out
    for role in ("collector", "distributor"):
        assert "False ['no three'] False" in programs[role].out, programs[role].out
        assert "sent=40, collected=39, failed=1" in programs[role].out


def test_who_knows_which_items_failed(workshop: Workshop) -> None:
    """Eight alike in the collector: it has all of them, the distributor the first; both have the number."""
    programs = start(workshop, *ROLES, BUG="fives")
    for role, known in (("collector", 8), ("distributor", 1)):
        assert "task 'C': 8 failed (ValueError: no five in prog.py:41 handle_collection)" in letter(programs[role])
        assert f"False {['no five'] * known} False" in programs[role].out
        assert "sent=40, collected=32, failed=8" in programs[role].out


def test_trouble_at_the_end_has_the_name_of_the_function_that_raised(workshop: Workshop) -> None:
    """`get_ack_data` is not `handle_finished`, at the distributor either, which is only told."""
    programs = start(workshop, *ROLES, BUG="ack_data")
    for role in ROLES:
        assert "everything was collected, but the ack_data function raised ValueError" in letter(programs[role])
        assert "troubles ack_data\n" in programs[role].out


def test_a_good_run_is_a_success_of_all(workshop: Workshop) -> None:
    """Nothing is raised, `ok` is True, and nothing is on stderr."""
    programs = start(workshop, *ROLES)
    assert [program.wait() for program in programs.values()] == [0, 0, 0]
    assert [program.complaints for program in programs.values()] == ["", "", ""]
    assert programs["collector"].out.startswith("finished True\nTrue [] True")
    assert programs["distributor"].out.startswith("True [] True")


def interrupted(program: Program) -> None:
    """It was interrupted, entered its `except KeyboardInterrupt`, and is over."""
    program.signal(signal.SIGINT)
    assert program.wait() == 7, program.err
    assert program.out.startswith("interrupted\n"), program.out


def interrupted_twice(program: Program) -> None:
    """Two of them, as fast as a person: it does not wait for what runs, and is over in the same way."""
    program.signal(signal.SIGINT)
    time.sleep(0.2)
    # a role that waits for nothing is over with the first one: another would meet python on its way out
    if not program.out:
        program.signal(signal.SIGINT)
    assert program.wait(20) == 7, program.err
    assert program.out.startswith("interrupted\n"), program.out


@pytest.mark.parametrize("role", ["distributor", "collector"])
def test_ctrl_c_during_items_ends_the_run(role: str, workshop: Workshop, eventually: Eventually) -> None:
    """Who was interrupted drains and raises KeyboardInterrupt; the others are told, and by whom the run ended early."""
    programs = start(workshop, *ROLES, ITEMS="100000", SLEEP="0.005")
    eventually(lambda: len(workshop.lines("collected")) > 20, "items")
    interrupted(programs.pop(role))
    for program in programs.values():
        assert f"The run ended early: the {role} was interrupted or shut down." in letter(program)
    if role == "distributor":
        assert sorted(workshop.numbers("executed")) == sorted(workshop.numbers("collected"))
    assert "finished" not in workshop.programs[1].out


@pytest.mark.parametrize("role", ["distributor", "collector"])
def test_ctrl_c_twice_waits_for_nothing_and_still_tells(role: str, workshop: Workshop, eventually: Eventually) -> None:
    """An item holds the worker: the second Ctrl-C ends the drain of 25 s, and the others end, too."""
    programs = start(workshop, *ROLES, BUG="hold")
    eventually(lambda: workshop.lines("executed"), "an item that holds")
    program = programs.pop(role)
    interrupted_twice(program)
    for other in programs.values():
        assert "The run ended early" in letter(other)


@pytest.mark.parametrize("roles", [("collector", "distributor"), ("worker", "distributor"), ROLES[:2]], ids="-".join)
@pytest.mark.parametrize("at", [0, 1])
def test_ctrl_c_before_any_item(roles: tuple[str, str], at: int, workshop: Workshop, eventually: Eventually) -> None:
    """Two roles that wait for the third: who is interrupted raises; distributor and collector take the other along.

    Also a collector a worker, that no distributor could tell.
    """
    programs = start(workshop, *roles, ZMQPIPELINE_LOG_LEVEL="debug")
    for name in ("work", "results", "acks"):
        needed = {"work": "distributor", "results": "collector", "acks": "collector"}[name]
        if needed in roles:
            eventually((workshop.folder / f"{name}.ipc").exists, f"{name} is bound")
    # nothing that can be seen from outside says that they have spoken with each other: both have had the time for it
    time.sleep(2.0)
    assert not any(program.ended() for program in programs.values())
    first, other = programs[roles[at]], programs[roles[1 - at]]
    interrupted(first)
    if roles[at] == "worker":
        interrupted(other)
    else:
        assert f"The run ended early: the {roles[at]} was interrupted or shut down" in letter(other)


def test_ctrl_c_on_a_worker_ends_that_worker_alone(workshop: Workshop, eventually: Eventually) -> None:
    """It drains and raises KeyboardInterrupt; another one does the rest, and the run is a good one."""
    programs = start(workshop, *ROLES, ITEMS="300", SLEEP="0.005", MOST="100")
    eventually(lambda: len(workshop.lines("collected")) > 20, "items")
    another = workshop.start("prog.py", "worker", ITEMS="300", SLEEP="0.005")
    worker = programs.pop("worker")
    worker.signal(signal.SIGINT)
    # what it holds is for this one to do; it takes no other item
    (workshop.folder / "go").touch()
    assert worker.wait() == 7, worker.err
    assert worker.out.startswith("interrupted\n"), worker.out
    assert [program.wait() for program in (*programs.values(), another)] == [0, 0, 0]
    assert sorted(workshop.numbers("collected")) == list(range(1, 301))
    assert len(workshop.numbers("executed")) == 300


def test_ctrl_c_twice_on_a_worker_gives_up_its_item(workshop: Workshop, eventually: Eventually) -> None:
    """It does not wait for the item that holds it, which another worker executes again."""
    programs = start(workshop, *ROLES, BUG="hold", ITEMS="3")
    eventually(lambda: workshop.lines("executed"), "an item that holds")
    worker = programs.pop("worker")
    interrupted_twice(worker)
    (workshop.folder / "go").touch()
    another = workshop.start("prog.py", "worker", BUG="hold", ITEMS="3")
    assert [program.wait() for program in (*programs.values(), another)] == [0, 0, 0]
    assert sorted(workshop.numbers("collected")) == [1, 2, 3]


@pytest.mark.parametrize("role", ["distributor", "collector"])
def test_shutdown_ends_the_run_of_the_others(role: str, workshop: Workshop, eventually: Eventually) -> None:
    """Who is shut down returns from `run` in good order; the others are told, and end with status 1."""
    programs = start(workshop, *(one for one in ROLES if one != role), ITEMS="100000", SLEEP="0.005")
    ended = workshop.start("prog.py", role, ITEMS="100000", SLEEP="0.005", SHUTDOWN="1")
    eventually(lambda: len(workshop.lines("collected")) > 20, "items")
    (workshop.folder / "end").touch()
    assert ended.wait() == 0, ended.err
    assert ended.out.startswith("False [] False")
    for program in programs.values():
        assert f"the {role} was interrupted or shut down" in letter(program)


@pytest.mark.parametrize("role", ["distributor", "collector"])
def test_shutdown_before_run_ends_the_run_of_those_who_wait(role: str, workshop: Workshop) -> None:
    """They try to connect from time to time: who was shut down stays as long as that takes, tells them, and returns."""
    programs = start(workshop, *(one for one in ROLES if one != role))
    # they have looked for it in vain, and look again in intervals
    time.sleep(2.0)
    assert not any(program.ended() for program in programs.values())
    workshop.write("early.py", PROGRAM.replace("try:\n    role.run()", "role.shutdown()\ntry:\n    role.run()"))
    ended = workshop.start("early.py", role)
    assert ended.wait() == 0, ended.err
    for program in programs.values():
        assert f"the {role} was interrupted or shut down" in letter(program)


EARLY = """
import signal, sys
import prog
from zmqpipeline.runtime.transport.sockets import RouterSocket
opened = RouterSocket.open
def open_and_interrupt(self):
    opened(self)
    RouterSocket.open = opened
    signal.raise_signal(signal.SIGINT)
RouterSocket.open = open_and_interrupt
try:
    prog.make(sys.argv[1]).run()
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(7)
"""


@pytest.mark.parametrize("role", ["distributor", "collector"])
def test_ctrl_c_while_a_role_opens_its_sockets(role: str, workshop: Workshop) -> None:
    """It waits until they are all open, and then ends in good order: one that nobody knows of would never be closed."""
    workshop.write("prog.py", PROGRAM.partition("role = make")[0])
    workshop.write("early.py", EARLY)
    program = workshop.start("early.py", role)
    assert program.wait() == 7, program.err
    assert program.out == "interrupted\n"


STARTING = """
import zmqpipeline
# what follows takes long
import os, time
from pathlib import Path

Path(f"importing-{os.getpid()}").touch()
while not Path("come").exists():
    time.sleep(0.01)
"""


@pytest.mark.parametrize("role", ["distributor", "collector"])
def test_commands_that_are_still_starting_learn_that_the_run_has_ended(
    role: str, workshop: Workshop, eventually: Eventually
) -> None:
    """They import for long, say; when they come nobody is there any more. They look for a note, and end."""
    workshop.write("app.py", FIVE_ITEMS)
    workshop.write("late.py", STARTING + FIVE_ITEMS)
    ended = workshop.start("-m", "app", role, "--endpoint", "ipc://.")
    eventually(lambda: list(workshop.folder.glob("*.ipc")), "it is there")
    others = [workshop.start("-m", "late", one, "--endpoint", "ipc://.") for one in ROLES if one != role]
    eventually(lambda: len(list(workshop.folder.glob("importing-*"))) == 2, "both import")
    # the margin: a human needs longer
    time.sleep(2 * MARGIN_SECONDS)
    ended.signal(signal.SIGINT)
    assert ended.wait() == 130, ended.err
    (workshop.folder / "come").touch()
    assert [one.wait() for one in others] == [0, 1], [one.err for one in others]
    assert f"The run ended early: the {role} was interrupted or shut down" in others[1].err


def test_a_process_that_was_another_program_before_is_of_the_next_run(workshop: Workshop) -> None:
    """By `exec` it is as old as that one, which may have seen the end of the run before; so may a program have."""
    workshop.write("app.py", FIVE_ITEMS)
    workshop.write(
        "program.py",
        """
import os, signal, subprocess, sys, time
from pathlib import Path
import zmqpipeline
command = [sys.executable, "-m", "app", "collector", "--endpoint", "ipc://."]
first = subprocess.Popen(command)
while len(list(Path().glob("*.ipc"))) < 2:
    time.sleep(0.01)
first.send_signal(signal.SIGINT)
assert first.wait() == 130
print("over", flush=True)
if sys.argv[1] == "exec":
    os.execv(sys.executable, command)
from app import app
from zmqpipeline import Options
app.compile("collector", options=Options(endpoint="ipc://.")).run()
""",
    )
    for way in ("exec", "program"):
        program = workshop.start("program.py", way)
        while "over" not in program.out:
            assert not program.ended(), program.err
            time.sleep(0.01)
        time.sleep(5.0)
        assert not program.ended(), program.err
        others = [workshop.start("-m", "app", one, "--endpoint", "ipc://.") for one in ("distributor", "worker")]
        assert [one.wait() for one in (program, *others)] == [0, 0, 0], program.err


@pytest.mark.parametrize("role", ["distributor", "collector"])
@pytest.mark.parametrize("order", [0, 1])
def test_the_next_run_is_started_at_once_in_any_order(
    role: str, order: int, workshop: Workshop, eventually: Eventually
) -> None:
    """After Ctrl-C all roles are started again, with a gap that is longer than a role looks for notes at first."""
    bound = {"distributor": "work.ipc", "collector": "acks.ipc"}[role]
    first = start(workshop, role)[role]
    eventually((workshop.folder / bound).exists, "it is there")
    interrupted(first)
    one, *rest = ROLES[order:] + ROLES[:order]
    programs = [workshop.start("prog.py", one)]
    time.sleep(4.5)
    assert not programs[0].ended(), programs[0].err
    programs += [workshop.start("prog.py", name) for name in rest]
    assert [program.wait() for program in programs] == [0, 0, 0], [program.err for program in programs]


def test_who_comes_after_a_collector_was_ended_says_that_it_waits(workshop: Workshop, eventually: Eventually) -> None:
    """Nobody is there that could tell it: a line after five seconds, and the end, if `exit_when_idle` says when."""
    (collector,) = start(workshop, "collector").values()
    eventually((workshop.folder / "acks.ipc").exists, "it is there")
    interrupted(collector)
    (distributor,) = start(workshop, "distributor", ZMQPIPELINE_EXIT_WHEN_IDLE="12").values()
    eventually(lambda: "Waiting for a collector to connect to." in distributor.err, "the line")
    distributor.wait()
    assert "No collector was there for 12 s (exit_when_idle)." in distributor.err
    assert distributor.out.startswith("False [] False")


def test_sigterm_is_no_end_of_the_run(workshop: Workshop, eventually: Eventually) -> None:
    """A distributor that SIGTERM ended may be started again: the others wait for the next one, which ends the run."""
    programs = start(workshop, *ROLES, ITEMS="300", SLEEP="0.005", MOST="100", ZMQPIPELINE_DRAIN_TIMEOUT="1")
    eventually(lambda: len(workshop.lines("collected")) > 20, "items")
    distributor = programs.pop("distributor")
    distributor.signal(signal.SIGTERM)
    assert distributor.wait() == 0, distributor.err
    (workshop.folder / "go").touch()
    again = workshop.start("prog.py", "distributor", ITEMS="300", SLEEP="0.005")
    assert [program.wait() for program in (*programs.values(), again)] == [0, 0, 0]
    assert sorted(workshop.numbers("collected")) == list(range(1, 301))


def test_a_worker_that_stays_serves_run_after_run(workshop: Workshop, eventually: Eventually) -> None:
    """One that ended early, one with a failed item, a good one; SIGTERM ends it with status 0."""
    (worker,) = start(workshop, "worker", STAY="1", BUG="worker", SLEEP="0.005").values()
    programs = start(workshop, "collector", "distributor", ITEMS="100000")
    eventually(lambda: len(workshop.lines("collected")) > 20, "items")
    interrupted(programs["distributor"])
    letter(programs["collector"])
    programs = start(workshop, "collector", "distributor")
    assert "1 failed" in letter(programs["distributor"])
    assert "1 failed" in letter(programs["collector"])
    programs = start(workshop, "collector", "distributor", ITEMS="2")
    assert [program.wait() for program in programs.values()] == [0, 0], programs["distributor"].err
    assert not worker.ended()
    assert worker.err.count("This worker stays for the next run.") == 2, worker.err
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
