"""`run --launch`: workers behind a command line, one of which passes on no more than ssh does, with real processes."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.conftest import ROOT
from tests.support.apps import NOTES_NUMBERS
from zmqpipeline.runtime.security import keyfiles

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

Eventually = Callable[..., None]

SSH = """
# like ssh: joins its arguments, has them read by a shell that has none of our environment, files, folder or session,
# and copies the three standard streams; a signal ends it, and is not passed on
import os, subprocess, sys, threading

with open("ssh", "a") as file:
    file.write(f"{os.getpid()}\\n")
far = subprocess.Popen(
    ["sh", "-c", " ".join(sys.argv[2:])], stdin=-1, stdout=-1, stderr=-1, cwd="/", env={"PATH": os.environ["PATH"]},
    start_new_session=True,
)

def copy(source, target):
    while data := os.read(source, 65536):
        try:
            while data:
                data = data[os.write(target, data):]
        except OSError:
            break
    if target > 2:
        far.stdin.close()

threading.Thread(target=copy, args=(0, far.stdin.fileno()), daemon=True).start()
outputs = [threading.Thread(target=copy, args=pair) for pair in ((far.stdout.fileno(), 1), (far.stderr.fileno(), 2))]
for thread in outputs:
    thread.start()
for thread in outputs:
    thread.join()
status = far.wait()
# its own threads are not waited for
os._exit(255 if status < 0 else status)
"""

APP = (
    """
import os, signal, sys, time
from pathlib import Path
from zmqpipeline import Pipeline

HERE = Path(__file__).resolve().parent
app = Pipeline("launched")

def note(name, text):
    with open(HERE / name, "a") as file:
        file.write(f"{text}\\n")

@app.task(TASK)
def items():
    return ({"n": n} for n in range(ITEMS))

@app.worker(TASK, OPTIONS)
def work(data):
    note("workers", os.getpid())
    BODY
    return data
"""
    + NOTES_NUMBERS
)


class Stage:
    """The app in a workshop, and the ways to its workers."""

    def __init__(self, workshop: Workshop, port: int) -> None:
        self.workshop, self.port = workshop, port
        workshop.write("ssh.py", SSH)

    def start(
        self,
        launch: str,
        body: str,
        *flags: str,
        items: int = 300,
        options: str = "",
        task: str = "C",
        workers: int = 2,
    ) -> Program:
        """Start `run` with workers behind this."""
        texts = {"TASK": repr(task), "ITEMS": str(items), "OPTIONS": options, "BODY": body}
        app = APP
        for name, text in texts.items():
            app = app.replace(name, text)
        self.workshop.write("app.py", app)
        run = ("-m", "app", "run", "--no-progress", "--workers", str(workers))
        return self.workshop.start(*run, "--launch", launch, *flags)

    @property
    def ssh(self) -> str:
        """The launch command that goes by our ssh."""
        folder = self.workshop.folder
        way = f"cd {folder} && exec env PYTHONPATH={ROOT}"
        return f"{shlex.join([sys.executable, str(folder / 'ssh.py')])} node{{index}} {way}"

    @property
    def far(self) -> tuple[str, ...]:
        """The flags of an address that workers of other machines could reach."""
        return ("--endpoint", f"tcp://127.0.0.1:{self.port}")

    def at_work(self, number: int) -> bool:
        """Whether so many processes have executed items."""
        return len(self.pids) >= number

    @property
    def pids(self) -> list[int]:
        """The workers that have executed items, in the order of their first one."""
        return list(dict.fromkeys(self.workshop.numbers("workers")))

    def assert_each_once(self, items: int = 300) -> None:
        """Every item was collected once."""
        assert sorted(self.workshop.numbers("collected")) == list(range(items))


@pytest.fixture
def stage(workshop: Workshop, free_port: int) -> Stage:
    """Everything in a folder of its own, at a port of its own."""
    return Stage(workshop, free_port)


@pytest.mark.parametrize("launch", ["nice -n 5", "env X={index}", """sh -c 'exec "$@"' --""", "ssh", "ssh, private"])
def test_workers_behind_a_command(launch: str, stage: Stage) -> None:
    """All is collected once, status 0.

    User code finds its environment and an empty standard input, and its output arrives where a local worker's does.
    """
    flags = stage.far if launch == "ssh" else ()
    body = """
    if data["n"] == 0:
        print("printed", sys.stdin.read(), os.environ.get("PYTHONPATH"))
        print("said", sorted(name for name in os.environ if name.startswith("ZMQPIPELINE_")), file=sys.stderr)
    note("index", os.environ.get("X", ""))
"""
    program = stage.start(stage.ssh if launch.startswith("ssh") else launch, body, *flags)
    assert program.wait() == 0, program.err
    stage.assert_each_once()
    assert f"printed  {ROOT}\n" in program.out
    # nothing but what the test itself has in its environment
    assert "said ['ZMQPIPELINE_HEARTBEAT_TIMEOUT']\n" in program.err
    assert "\x1e" not in program.err
    assert "WARNING" not in program.complaints
    if "index" in launch:
        assert set(stage.workshop.lines("index")) <= {"0", "1"}


def test_settings_and_hard_words_go_through_a_remote_shell(stage: Stage) -> None:
    """Variables that are settings, and the name of a task with all that a shell reads, arrive as they are."""
    task = """it's "a"; $HOME `id` *"""
    stage.workshop.environ["ZMQPIPELINE_MAX_HELD_BYTES"] = "1234567"
    body = """note("seen", [os.environ["ZMQPIPELINE_MAX_HELD_BYTES"], sys.argv[-1]])"""
    program = stage.start(stage.ssh, body, *stage.far, task=task, items=3)
    assert program.wait() == 0, program.err
    assert set(stage.workshop.lines("seen")) == {str(["1234567", task])}


@pytest.mark.parametrize("victim", ["worker", "ssh"])
def test_a_far_worker_is_lost(
    victim: str, stage: Stage, eventually: Eventually, is_gone: Callable[[int], bool]
) -> None:
    """Killed, or the ssh before it: its death is named, another one starts, each item is collected once, status 0."""
    program = stage.start(
        stage.ssh,
        """
    while not (HERE / "go").exists():
        time.sleep(0.01)
""",
        *stage.far,
    )
    eventually(lambda: stage.at_work(2), "both are at work")
    first = stage.pids[0] if victim == "worker" else stage.workshop.numbers("ssh")[0]
    os.kill(first, signal.SIGKILL)
    how = "status 255" if victim == "worker" else "SIGKILL"
    eventually(lambda: f"ended by {how}" in program.err, "its death is seen")
    eventually(lambda: stage.at_work(3), "another one is at work")
    # one that has lost its ssh leaves by itself
    eventually(lambda: sum(map(is_gone, stage.pids)) == 1, "the first one is gone")
    stage.workshop.write("go", "")
    assert program.wait() == 0, program.err
    stage.assert_each_once()
    assert program.err.count("a new one starts in 0.1 s") == 1, program.err
    assert "failed to start" not in program.err


@pytest.mark.parametrize("launch", ["ssh", "nice -n 5", """sh -c '"$@"; true' --"""])
def test_the_run_is_killed(launch: str, stage: Stage, eventually: Eventually, is_gone: Callable[[int], bool]) -> None:
    """Its workers leave by themselves, also in the middle of an item, and so does what was between."""
    program = stage.start(stage.ssh if launch == "ssh" else launch, "time.sleep(300)", *stage.far)
    eventually(lambda: stage.at_work(2), "both are at work")
    program.signal(signal.SIGKILL)
    between = stage.workshop.numbers("ssh") if launch == "ssh" else []
    eventually(lambda: all(map(is_gone, [*stage.pids, *between])), "all are gone")


def test_the_run_is_killed_while_a_call_holds_the_interpreter(
    stage: Stage, eventually: Eventually, is_gone: Callable[[int], bool]
) -> None:
    """No thread of the worker can see the end of the lifeline: behind a command that becomes it, the system ends it."""
    program = stage.start("nice -n 5", "import ctypes; ctypes.PyDLL(None).sleep(300)", workers=1)
    eventually(lambda: stage.at_work(1), "it is at work")
    program.signal(signal.SIGKILL)
    eventually(lambda: is_gone(stage.pids[0]), "it is gone")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("launch", ["ssh", "nice -n 5", """sh -c '"$@"; true' --"""])
def test_the_run_drains(launch: str, how: signal.Signals, stage: Stage, eventually: Eventually) -> None:
    """By SIGTERM, or by Ctrl-C, which a terminal sends to its whole group: what runs is collected, nobody is killed."""
    program = stage.start(
        stage.ssh if launch == "ssh" else launch,
        """
    while not (HERE / "go").exists():
        time.sleep(0.01)
    note("done", data["n"])
""",
        *stage.far,
    )
    eventually(lambda: stage.at_work(2), "both are at work")
    program.signal(how, group=how == signal.SIGINT)
    eventually(lambda: "The run drains" in program.err, "the run drains")
    stage.workshop.write("go", "")
    assert program.wait() == 128 + how, program.err
    assert sorted(stage.workshop.numbers("collected")) == sorted(stage.workshop.numbers("done")) != []
    assert len(stage.pids) == 2
    assert "killed" not in program.err


def test_a_drain_does_not_wait_for_a_command_on_its_way(stage: Stage, eventually: Eventually) -> None:
    """An ssh that still connects holds no item: it is ended at once."""
    launch = f"sh -c 'echo $$ >> {stage.workshop.folder}/waiting; exec sleep 300' --"
    program = stage.start(launch, "pass", workers=1)
    eventually(lambda: stage.workshop.lines("waiting"), "the command runs")
    program.signal(signal.SIGTERM)
    assert program.wait(20) == 143, program.err
    assert "did not end in time" not in program.err


def test_a_worker_that_is_replaced(stage: Stage) -> None:
    """It says so by its standard error: no failed start, no death, each item once."""
    program = stage.start(stage.ssh, "pass", *stage.far, options="max_items=100", workers=1)
    assert program.wait() == 0, program.err
    stage.assert_each_once()
    assert len(stage.pids) == 3
    assert "ended by" not in program.err


def test_an_init_function_that_raises(stage: Stage) -> None:
    """The run ends with status 1 and says what was raised, as with workers on this machine."""
    body = """return data

@app.worker_init(TASK)
def load():
    raise RuntimeError("no model")
"""
    program = stage.start(stage.ssh, body.replace("TASK", "'C'"), *stage.far)
    assert program.wait() == 1, program.err
    assert "no model" in program.err.splitlines()[-1] or "RuntimeError: no model" in program.err
    assert program.err.count("Traceback") == 1, program.err


def test_a_folder_that_the_worker_does_not_see(stage: Stage) -> None:
    """The address is a relative path, and the worker is in another folder: refused, with what to do, status 2."""
    far = stage.ssh.replace(f"cd {stage.workshop.folder}", "cd /usr").replace(
        "PYTHONPATH=", f"PYTHONPATH={stage.workshop.folder}:"
    )
    program = stage.start(far, "pass", "--endpoint", "ipc://addresses")
    assert program.wait() == 2, program.err
    assert "which this one" in program.err
    assert "--endpoint tcp://HOST:PORT" in program.err


REFUSED = {
    "sh -c 'exec \"$@\" <&-' --": "hears of its run on standard input",
    "sh -c 'exec \"$@\" </dev/null' --": "and it was empty",
    "sh -c 'echo hello | \"$@\"' --": "it began with b'hello'",
    "./no-program": "cannot be started: Exec format error",
    "no-such-command": "'no-such-command', which is not found",
    "": "names no command",
    "nice 'x": "cannot be split",
}


@pytest.mark.parametrize("launch", REFUSED)
def test_a_command_that_cannot_do_is_refused(launch: str, stage: Stage) -> None:
    """In a sentence that says what to do, with status 2."""
    stage.workshop.write("no-program", "neither a script nor a program").chmod(0o755)
    program = stage.start(launch, "pass", workers=1)
    assert program.wait() == 2, program.err
    assert REFUSED[launch] in program.err
    assert "Traceback" not in program.err


def test_a_command_that_fails(stage: Stage) -> None:
    """It is tried five times, and the run ends with status 3 and a hint."""
    program = stage.start("sh -c 'echo no route >&2; exit 255' --", "pass", workers=1)
    assert program.wait() == 3, program.err
    assert program.err.count("no route\n") == 5
    assert program.err.count("Nothing was heard of the worker behind 'sh'") == 1


def test_a_terminal_is_refused(stage: Stage) -> None:
    """It would show the worker's key, which is let in for no longer than that worker is there."""
    stage.workshop.write(
        "terminal.py", "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    )
    keyfiles.make_all(stage.workshop.folder / "keys")
    launch = f"{sys.executable} terminal.py env PYTHONPATH={ROOT}"
    program = stage.start(launch, "pass", "--keys", "keys", "--encryption", "required", workers=1)
    assert program.wait() == 3, program.err
    assert program.out.count("that is a terminal, which shows what is sent to it") == 5, program.out
    assert stage.pids == []


def test_another_interpreter(stage: Stage) -> None:
    """``--python`` stands behind the command as it was given, and the search path of ours is not for it."""
    stage.workshop.write("python with blank", f'#!/bin/sh\necho "$PYTHONPATH" >> paths\nexec {sys.executable} "$@"\n')
    path = stage.workshop.folder / "python with blank"
    path.chmod(0o755)
    program = stage.start("nice -n 5", "pass", "--python", str(path))
    assert program.wait() == 0, program.err
    stage.assert_each_once()
    assert set(stage.workshop.lines("paths")) == {str(ROOT)}
