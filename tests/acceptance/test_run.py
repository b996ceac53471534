"""`run`: what it starts, what it leaves behind, and how it ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.apps import GOES_NO_FURTHER

pytestmark = pytest.mark.processes

HEAD = """
import ctypes, os, signal, sys, threading, time
from zmqpipeline import Pipeline

app = Pipeline("run")

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

@app.collector
def collect(data):
    note("collected", data["n"])
"""
MAIN = """
if __name__ == "__main__":
    app.main()
"""
SLEEPER = (
    HEAD
    + GOES_NO_FURTHER
    + """
SECONDS = float(os.environ.get("SECONDS", "0.01"))

@app.task("C")
def numbers():
    note("pids", os.getpid())
    for n in range(int(os.environ.get("ITEMS", "100"))):
        yield {"n": n}

@app.worker_init("C")
def begin():
    note("pids", os.getpid())
    note("workers", os.getpid())

@app.worker("C")
def work(data):
    note("started", data["n"])
    go_no_further(data["n"])
    if os.environ.get("HOLD"):
        ctypes.PyDLL(None).usleep(int(SECONDS * 1e6))  # a PyDLL call keeps the GIL
    else:
        time.sleep(SECONDS)
    return data
"""
    + MAIN
)


def test_run_collects_everything_and_says_so(workshop: Any) -> None:
    """A whole run by one command: status 0, a summary on stderr, nothing of ours on stdout."""
    workshop.write("app.py", SLEEPER)
    status, program = workshop.run("-m", "app", "run", "--workers", "2", SECONDS="0.001")
    assert status == 0, program.err
    assert sorted(workshop.numbers("collected")) == list(range(100))
    assert "run: 100 items in" in program.err
    assert program.out == ""


@pytest.mark.slow
def test_run_leaves_no_folder_behind(workshop: Any) -> None:
    """The private folder for the sockets is gone afterwards."""
    workshop.write("app.py", SLEEPER)
    (workshop.folder / "t").mkdir()
    status, program = workshop.run("-m", "app", "run", ITEMS="3", TMPDIR=str(workshop.folder / "t"))
    assert status == 0, program.err
    assert list((workshop.folder / "t").iterdir()) == []


@pytest.mark.slow
def test_json_is_one_object_whatever_is_printed(workshop: Any) -> None:
    """With --json, prints of user functions in every process go to stderr, and stdout is one JSON object."""
    text = SLEEPER.replace('    note("started", data["n"])', '    print("chatter")').replace(
        '    note("collected", data["n"])', '    print("gossip")'
    )
    workshop.write("app.py", text)
    status, program = workshop.run("-m", "app", "run", "--json", ITEMS="5")
    assert status == 0, program.err
    assert program.err.count("chatter") == program.err.count("gossip") == 5
    assert program.json["ok"] is True
    assert program.json["status"] == program.json["failures"] == 0
    assert program.json["tasks"]["C"]["collected"] == program.json["tasks"]["C"]["sent"] == 5


def test_kill_of_run_leaves_nobody(
    workshop: Any, eventually: Callable[..., None], is_gone: Callable[[int], bool]
) -> None:
    """kill -9 of `run`: soon no process of it is left, nor one that holds the GIL for a minute; the next run tidies."""
    workshop.write("app.py", SLEEPER)
    folders = workshop.folder / "tmp"
    folders.mkdir()
    program = workshop.start("-m", "app", "run", "--workers", "2", SECONDS="60", HOLD="1", TMPDIR=str(folders))
    eventually(lambda: len(workshop.lines("started")) >= 2, "both workers at work")
    pids = workshop.numbers("pids")
    assert len(pids) == 3
    program.signal(signal.SIGKILL)
    program.wait()
    eventually(lambda: all(is_gone(pid) for pid in pids), "all children gone", timeout=40)
    assert len(list(folders.iterdir())) == 1
    assert workshop.run("-m", "app", "run", ITEMS="1", TMPDIR=str(folders))[0] == 0
    assert not list(folders.iterdir())


def test_ctrl_c_drains(workshop: Any, eventually: Callable[..., None], is_gone: Callable[[int], bool]) -> None:
    """Ctrl-C (to the whole group, as a terminal does): what was begun is collected, a summary, status 130."""
    workshop.write("app.py", SLEEPER)
    program = workshop.start("-m", "app", "run", "--workers", "2", SECONDS="0.2", ITEMS="100000")
    eventually(lambda: len(workshop.lines("collected")) >= 4, "four items collected")
    program.signal(signal.SIGINT, group=True)
    assert program.wait() == 130, program.err
    assert sorted(workshop.numbers("collected")) == sorted(workshop.numbers("started"))
    assert "items in" in program.err
    assert not any(one in program.err for one in ("Traceback", "connection to the distributor"))
    assert all(is_gone(pid) for pid in workshop.numbers("pids"))


@pytest.mark.slow
def test_sigterm_drains(workshop: Any, eventually: Callable[..., None]) -> None:
    """SIGTERM to `run` alone does the same, with status 143."""
    workshop.write("app.py", SLEEPER)
    program = workshop.start("-m", "app", "run", "--json", SECONDS="0.1", ITEMS="100000")
    eventually(lambda: len(workshop.lines("collected")) >= 2, "two items collected")
    program.signal(signal.SIGTERM)
    assert program.wait() == 143, program.err
    assert sorted(workshop.numbers("collected")) == sorted(workshop.numbers("started"))
    assert program.json["ok"] is False
    assert program.json["tasks"]["C"]["collected"] == len(workshop.lines("collected"))


def test_a_second_signal_ends_at_once(workshop: Any, eventually: Callable[..., None]) -> None:
    """While it drains, the next Ctrl-C ends it, and its children, without waiting for what runs."""
    workshop.write("app.py", SLEEPER)
    program = workshop.start("-m", "app", "run", SECONDS="60")
    eventually(lambda: workshop.lines("started"), "an item begun")
    program.signal(signal.SIGINT, group=True)
    eventually(lambda: "drains" in program.err, "the log line about draining")
    program.signal(signal.SIGINT, group=True)
    assert program.wait(20) == 130


def test_a_drain_has_an_end(workshop: Any, eventually: Callable[..., None]) -> None:
    """What still runs after the drain time-out is left behind; the run ends."""
    workshop.write("app.py", SLEEPER)
    program = workshop.start("-m", "app", "run", "--drain-timeout", "0.5", SECONDS="60")
    eventually(lambda: workshop.lines("started"), "an item begun")
    program.signal(signal.SIGINT)
    assert program.wait(40) == 130


def test_a_killed_worker_is_started_again(workshop: Any, eventually: Callable[..., None]) -> None:
    """kill -9 of the only worker: the log says how it ended, a new one takes over, every item is collected once."""
    workshop.write("app.py", SLEEPER)
    workshop.write("most", "50")
    program = workshop.start("-m", "app", "run", "--workers", "1", "--json", SECONDS="0.02")
    eventually(lambda: len(workshop.lines("collected")) >= 10, "ten items collected")
    victim = workshop.numbers("workers")[0]
    os.kill(victim, signal.SIGKILL)
    workshop.write("most", "1000")
    assert program.wait() == 0, program.err
    assert sorted(workshop.numbers("collected")) == list(range(100))
    assert len(workshop.lines("workers")) == 2
    assert f"The worker of 'C' (pid {victim}) ended by SIGKILL" in program.err
    assert program.err.count("a new one starts in") == 1
    told = [line for line in program.err.splitlines() if "was lost" in line]
    assert len(told) == 1
    assert f"/{victim} was lost (killed by SIGKILL); its " in told[0]
    assert "item(s) of 'C' go to other workers" in told[0]
    assert program.json["tasks"]["C"]["redelivered"] >= 1


@pytest.mark.slow
def test_an_item_that_kills_its_workers_is_given_up(workshop: Any) -> None:
    """An item that takes its worker with it three times is failed; the rest is collected; status 1."""
    text = SLEEPER.replace(
        '    note("started", data["n"])', '    data["n"] == 3 and os.kill(os.getpid(), signal.SIGKILL)'
    )
    workshop.write("app.py", text)
    status, program = workshop.run("-m", "app", "run", "--json", SECONDS="0", ITEMS="10")
    assert status == 1, program.err
    assert sorted(workshop.numbers("collected")) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert program.json["failures"] == 1


@pytest.mark.slow
def test_an_item_that_kills_its_workers_takes_no_other_with_it(workshop: Any) -> None:
    """Its neighbours in the other threads of a killed worker are collected: on its last try an item runs alone."""
    text = SLEEPER.replace('@app.worker("C")', '@app.worker("C", threads=4)').replace(
        '    note("started", data["n"])',
        '    data["n"] == 3 and (time.sleep(0.05), os.kill(os.getpid(), signal.SIGKILL))',
    )
    workshop.write("app.py", text)
    status, program = workshop.run("-m", "app", "run", "--json", SECONDS="0.1", ITEMS="12")
    assert status == 1, program.err
    assert sorted(set(workshop.numbers("collected"))) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert program.json["failures"] == 1


@pytest.mark.slow
def test_a_worker_that_cannot_start_ends_the_run(workshop: Any) -> None:
    """worker_init that raises three times in a row: status 1, and one line that says so."""
    text = SLEEPER.replace('    note("workers", os.getpid())', '    raise RuntimeError("no database")')
    workshop.write("app.py", text)
    status, program = workshop.run("-m", "app", "run", "--workers", "1")
    assert status == 1, program.err
    assert "No worker of 'C' can be initialized, and each would meet the same: RuntimeError: no database" in program.err
    assert len(workshop.lines("pids")) == 4


def distributors(workshop: Any) -> list[int]:
    """The process ids of the distributors so far, in order: each begins the source anew."""
    workers = set(workshop.numbers("workers"))
    return [pid for pid in workshop.numbers("pids") if pid not in workers]


@pytest.mark.slow
def test_a_killed_distributor_is_started_again(workshop: Any, eventually: Callable[..., None]) -> None:
    """kill -9 of the distributor, three times in the middle: the run goes on, and every item is collected once.

    What was delivered again before the first of these is in the summary.
    """
    once = 'if data["n"] < 5 and not os.path.exists(name := f"seen {data[\'n\']}"): note(name, ""); raise Retry(0)'
    text = SLEEPER.replace('    note("started", data["n"])', f"    {once}")
    workshop.write("app.py", text.replace("import Pipeline", "import Pipeline, Retry"))
    workshop.write("most", "0")
    program = workshop.start("-m", "app", "run", "--json", "--workers", "2", SECONDS="0.01", ITEMS="600")
    for life in range(1, 4):
        mark = len(workshop.lines("collected")) + 40
        workshop.write("most", f"{mark + 40}")
        eventually(lambda mark=mark: len(workshop.lines("collected")) >= mark, "forty more items collected")
        assert len(distributors(workshop)) == life
        os.kill(distributors(workshop)[-1], signal.SIGKILL)
        # the next one begins its source when workers have done some of what they hold
        workshop.write("most", f"{mark + 120}")
        said = f"The distributor (pid {distributors(workshop)[-1]}) ended by SIGKILL"
        eventually(lambda said=said: said in program.err, "the log line about its death")
        eventually(lambda life=life: len(distributors(workshop)) > life, "the next distributor at work")
    workshop.write("most", "1000")
    assert program.wait() == 0, program.err
    assert sorted(workshop.numbers("collected")) == list(range(600))
    assert len(distributors(workshop)) == 4
    counts = program.json["tasks"]["C"]
    assert (counts["collected"], counts["redelivered"]) == (600, 5)
    assert program.err.count("a new one starts in") == program.err.count("connection to the distributor broke") == 3


@pytest.mark.slow
def test_a_distributor_that_keeps_dying_ends_the_run(workshop: Any) -> None:
    """Five deaths in a row without an item collected in between: status 3, one line, and what was collected is kept."""
    text = SLEEPER.replace("        yield", "        n == 5 and os.kill(os.getpid(), signal.SIGSEGV)\n        yield")
    workshop.write("app.py", text)
    status, program = workshop.run("-m", "app", "run", "--json", SECONDS="0")
    assert status == 3, program.err
    assert len(distributors(workshop)) >= 5
    assert "kept dying (5 times in a row, last by SIGSEGV)" in program.err
    assert sorted(workshop.numbers("collected")) == sorted(set(workshop.numbers("collected")))
    assert program.json["status"] == 3


@pytest.mark.slow
def test_a_run_drains_while_its_distributor_is_away(workshop: Any, eventually: Callable[..., None]) -> None:
    """Ctrl-C between two lives of the distributor: the run ends soon, with 130, and starts nobody."""
    workshop.write("app.py", SLEEPER)
    program = workshop.start("-m", "app", "run", SECONDS="0.05", ITEMS="100000")
    eventually(lambda: len(workshop.lines("collected")) >= 2, "two items collected")
    os.kill(distributors(workshop)[0], signal.SIGKILL)
    eventually(lambda: "a new one starts in" in program.err, "the log line about its death")
    program.signal(signal.SIGINT, group=True)
    assert program.wait() == 130, program.err
    assert "Traceback" not in program.err


@pytest.mark.slow
@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_distributor_that_user_code_ends_keeps_dying(status: int, workshop: Any) -> None:
    """Whatever status a source ends it with, it is started again; the fifth time ends the run with 3, and one line."""
    workshop.write("app.py", SLEEPER.replace("        yield", f"        n == 5 and os._exit({status})\n        yield"))
    code, program = workshop.run("-m", "app", "run")
    assert code == 3, program.err
    assert f"kept dying (5 times in a row, last by status {status})" in program.err


@pytest.mark.slow
def test_sys_exit_in_a_source_fails_its_task(workshop: Any) -> None:
    """SystemExit is what the source raised, not the end of the distributor: what was yielded is collected, status 1."""
    workshop.write("app.py", SLEEPER.replace("        yield", "        n == 5 and sys.exit(5)\n        yield"))
    status, program = workshop.run("-m", "app", "run")
    assert status == 1, program.err
    assert "SystemExit" in program.err
    assert sorted(workshop.numbers("collected")) == [0, 1, 2, 3, 4]


def test_failures_are_counted_and_the_run_goes_on(workshop: Any) -> None:
    """A raising worker function fails its items; everything else is collected; status 1, and no traceback on stderr."""
    workshop.write("app.py", SLEEPER.replace('    note("started", data["n"])', '    1 / (data["n"] % 5)'))
    status, program = workshop.run("-m", "app", "run", "--json", SECONDS="0", ITEMS="50")
    assert status == 1
    assert program.json["failures"] == 10
    assert program.json["tasks"]["C"]["collected"] == 40


@pytest.mark.slow
def test_a_source_that_raises_is_told_once(workshop: Any) -> None:
    """The distributor's error appears once; what was yielded before is collected; status 1."""
    workshop.write("app.py", SLEEPER.replace('        yield {"n": n}', '        yield {"n": n // (n < 7)}'))
    status, program = workshop.run("-m", "app", "run", SECONDS="0")
    assert status == 1
    assert sorted(workshop.numbers("collected")) == list(range(7))
    assert program.err.count("Traceback") == 1


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [False, True])
def test_a_source_that_raises_no_exception_is_told_once(is_async: bool, workshop: Any) -> None:
    """A CancelledError of the user, and what else no `except Exception` meets, is the end of the task alone."""
    source = SLEEPER.replace("        yield", "        if n == 7: raise asyncio.CancelledError\n        yield")
    text = source.replace("def numbers", "async def numbers") if is_async else source
    workshop.write("app.py", f"import asyncio\n{text}")
    status, program = workshop.run("-m", "app", "run", SECONDS="0")
    assert (status, program.err.count("Traceback")) == (1, 1)
    assert sorted(workshop.numbers("collected")) == list(range(7))


def test_metadata_that_raises_ends_the_run(workshop: Any) -> None:
    """A metadata function that raises ends the run soon, with status 1, its error told once."""
    workshop.write(
        "app.py",
        SLEEPER.replace('@app.worker_init("C")', "@app.metadata\ndef meta():\n    1 / 0\n\n@app.worker_init('C')"),
    )
    status, program = workshop.run("-m", "app", "run")
    assert status == 1
    assert program.err.count("Traceback") == 1
    assert "  metadata: ZeroDivisionError: division by zero in app.py:" in program.err
    assert workshop.lines("collected") == []


@pytest.mark.slow
def test_metadata_of_any_type_reaches_the_roles(workshop: Any) -> None:
    """`app.run(metadata=...)` takes what items take; `--meta` gives strings; both beat what the function returns."""
    text = (
        HEAD
        + """
@app.metadata
def metadata():
    return {"a": 1, "b": 2}

@app.task("C", times=1)
def one(metadata):
    return {"n": sorted(metadata.items())}

@app.worker("C")
def work(data, metadata):
    assert sorted(metadata.items()) == [tuple(pair) for pair in data["n"]]
    return {"n": repr(metadata["b"])}

if __name__ == "__main__":
    if sys.argv[1:]:
        app.main()
    import datetime
    assert app.run(metadata={"b": datetime.date(2020, 2, 2)}).ok
"""
    )
    workshop.write("app.py", text)
    assert [workshop.run("app.py")[0], workshop.run("app.py", "run", "--meta", "b=x=y")[0]] == [0, 0]
    assert workshop.lines("collected") == ["datetime.date(2020, 2, 2)", "'x=y'"]


API = (
    SLEEPER.removesuffix(MAIN)
    + """
def numbers_of(number):
    return [int(line) for line in open("collected")]

if __name__ == "__main__":
    WHAT
    print("done")
"""
)


def program(what: str) -> str:
    """A script that calls `app.run` in its main part."""
    return API.replace("WHAT", what.strip().replace("\n", "\n    "))


@pytest.mark.slow
def test_app_run_returns_the_summary_and_collects_here(workshop: Any) -> None:
    """`app.run()` in a script: the collector's function runs in this process, and it may be called twice."""
    workshop.write(
        "script.py",
        program(
            """
seen = []
app.failed(lambda failure: None)
for _ in range(2):
    summary = app.run(workers={"C": 2})
    assert summary.ok, summary
    assert summary.tasks["C"].collected == 100
print(os.path.getsize("collected"))
"""
        ),
    )
    status, script = workshop.run("script.py", SECONDS="0")
    assert status == 0, script.err
    assert sorted(workshop.numbers("collected")) == sorted([*range(100), *range(100)])


@pytest.mark.slow
def test_app_run_may_be_called_in_a_thread(workshop: Any) -> None:
    """Outside the main thread there are no signal handlers; everything else is the same."""
    what = """
found = []
thread = threading.Thread(target=lambda: found.append(app.run()))
thread.start()
thread.join(50)
assert found[0].ok
"""
    workshop.write("script.py", program(what))
    status, script = workshop.run("script.py", SECONDS="0")
    assert status == 0, script.err


@pytest.mark.slow
def test_a_time_limit_drains_and_raises(workshop: Any, is_gone: Callable[[int], bool]) -> None:
    """Past `timeout`, what runs is finished and PipelineTimeout is raised."""
    workshop.write(
        "script.py",
        program(
            """
from zmqpipeline.errors import PipelineTimeout
try:
    app.run(timeout=1.5)
except PipelineTimeout as error:
    print(error)
"""
        ),
    )
    status, script = workshop.run("script.py", SECONDS="0.1", ITEMS="100000")
    assert status == 0, script.err
    assert "was not over within 1.5 s" in script.out
    assert sorted(workshop.numbers("collected")) == sorted(workshop.numbers("started"))
    assert all(is_gone(pid) for pid in workshop.numbers("pids"))


def test_ctrl_c_in_a_script_is_a_keyboard_interrupt(workshop: Any, eventually: Callable[..., None]) -> None:
    """`app.run()` drains on Ctrl-C and then raises KeyboardInterrupt, so that the script does not go on."""
    workshop.write("script.py", program("app.run()"))
    script = workshop.start("script.py", SECONDS="0.05", ITEMS="100000")
    eventually(lambda: workshop.lines("collected"), "an item collected")
    script.signal(signal.SIGINT, group=True)
    assert script.wait() == -signal.SIGINT
    assert "done" not in script.out
    assert "KeyboardInterrupt" in script.err
