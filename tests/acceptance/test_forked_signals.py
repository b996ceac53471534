"""What user code forks is ended by SIGTERM, as it would be in a plain program, and outlives the first Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

APP = """
import os, signal, subprocess, sys, time
from multiprocessing import get_context
from zmqpipeline import Pipeline

app = Pipeline("forking")
WHERE = os.environ["WHERE"]

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

def double(n):
    return 2 * n

def pool():
    '''Its `terminate` waits for its processes.'''
    with get_context("fork").Pool(2) as pool:
        return pool.map(double, range(3))

def process():
    one = get_context("fork").Process(target=time.sleep, args=(60,))
    one.start()
    one.terminate()
    one.join()
    return one.exitcode

def child():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def program(number):
    text = f"import os, signal, time; os.kill(os.getpid(), {int(number)}); time.sleep(60)"
    return subprocess.Popen([sys.executable, "-c", text], preexec_fn=lambda: None).wait()

def all_of_them(where):
    if where == WHERE:
        note("found", [pool(), process(), child(), program(signal.SIGTERM)])

@app.task("C")
def numbers():
    all_of_them("source")
    yield {"n": 1}

@app.worker("C")
def work(data):
    all_of_them("worker")
    return data

@app.collector
def collect(data):
    all_of_them("collector")
    note("collected", data["n"])

if __name__ == "__main__":
    app.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["source", "worker", "collector"])
def test_sigterm_ends_what_was_forked(where: str, workshop: Workshop) -> None:
    """A pool, a process of `multiprocessing`, a child of `os.fork`, and a program behind a function of ours.

    The collector's functions are called in a thread of `run`, which has handlers of its own.
    """
    workshop.write("app.py", APP)
    status, program = workshop.run("-m", "app", "run", "--no-progress", WHERE=where)
    assert status == 0, program.err
    assert workshop.lines("found") == ["[[0, 2, 4], -15, -15, -15]"]
    assert workshop.lines("collected") == ["1"]


CTRL_C = APP.replace(
    """    all_of_them("worker")
""",
    """    with get_context("fork").Pool(1) as pool:
        note("answers", pool.apply(slow))
""",
).replace(
    "def double(n):",
    """def slow():
    note("slow", os.getpid())
    while not os.path.exists("go"):
        time.sleep(0.01)
    return 7

def double(n):""",
)


@pytest.mark.parametrize("command", [("run", "--no-progress"), ("worker",)])
@pytest.mark.slow
def test_the_first_ctrl_c_leaves_alone_what_was_forked(
    command: tuple[str, ...], workshop: Workshop, eventually: Callable[..., None]
) -> None:
    """A terminal sends it to all processes: the item that is begun is finished, with the processes that it needs."""
    workshop.write("app.py", CTRL_C)
    others = ("distributor", "collector") if command == ("worker",) else ()
    started = [workshop.start("-m", "app", one, WHERE="") for one in others]
    program = workshop.start("-m", "app", *command, WHERE="")
    eventually(lambda: workshop.lines("slow"), "the pool is at work")
    program.signal(signal.SIGINT, group=True)
    # whoever looks for this has the signal before
    workshop.write("go", "")
    assert program.wait(20) == 130, program.err
    assert workshop.lines("answers") == ["7"]
    assert "KeyboardInterrupt" not in program.err
    for one in started:
        one.signal(signal.SIGTERM)
        one.wait(20)


HELD = (
    APP[: APP.index("def all_of_them")].replace(
        "def double(n):",
        """def slow():
    note("slow", os.getpid())
    while not os.path.exists("go"):
        time.sleep(0.01)
    return 7

def double(n):""",
    )
    + """
def one():
    pid = os.fork()
    if pid == 0:
        try:
            slow()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def held(where):
    if where == WHERE:
        note("answers", one())

@app.task("C")
def numbers():
    held("source")
    yield {"n": 1}

@app.worker("C")
def work(data):
    held("worker")
    return data

@app.collector
def collect(data):
    held("collector")

if __name__ == "__main__":
    app.main()
"""
)


LATE = """
def at_exit():
    one = get_context("fork").Process(target=time.sleep, args=(60,))
    one.start()
    one.terminate()
    one.join(10)
    note("exits", one.exitcode)
    one.kill()
"""


@pytest.mark.slow
def test_sigterm_ends_what_is_forked_when_the_role_is_over(workshop: Workshop) -> None:
    """In exit handlers of `run` itself and of a worker that it has started."""
    text = HELD.replace("import os", "import atexit, os").replace("\ndef held", LATE + "\ndef held")
    for where in ("worker", "collector"):
        text = text.replace(f'held("{where}")', "atexit.register(at_exit)")
    workshop.write("app.py", text)
    status, program = workshop.run("-m", "app", "run", "--no-progress", WHERE="")
    assert status == 0, program.err
    assert workshop.lines("exits") == ["-15", "-15"]


@pytest.mark.slow
def test_what_is_forked_after_the_first_ctrl_c_ends_with_the_next(
    workshop: Workshop, eventually: Callable[..., None], is_gone: Callable[[int], bool]
) -> None:
    """The role ends with that, too: nobody would need it."""
    text = HELD.replace(
        '    held("collector")',
        """    note("collected", 1)
    while not os.path.exists("fork"):
        time.sleep(0.01)
    held("collector")""",
    )
    workshop.write("app.py", text)
    run = workshop.start("-m", "app", "run", "--no-progress", WHERE="collector")
    eventually(lambda: workshop.lines("collected"), "it collects")
    run.signal(signal.SIGINT, group=True)
    eventually(lambda: "The run drains" in run.err, "it has the signal")
    workshop.write("fork", "")
    eventually(lambda: workshop.lines("slow"), "the child is at work")
    run.signal(signal.SIGINT, group=True)
    assert run.wait(20) == 130, run.err
    (pid,) = workshop.numbers("slow")
    eventually(lambda: is_gone(pid), "the child has ended", 10)
