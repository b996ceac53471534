"""A forked child that comes back from the function that has forked ends there; the run does not notice."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.acceptance.conftest import troubles

pytestmark = [pytest.mark.processes, pytest.mark.slow]

HEAD = """
import asyncio, atexit, os, sys
from zmqpipeline import Pipeline, events

app = Pipeline("forking")
HOW = os.environ.get("HOW", "")
done = set()

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

def fork(where, wait=True):
    '''Once in a place; True in the child if it is to return.'''
    if where in done:
        return False
    done.add(where)
    pid = os.fork()
    if pid == 0:
        note("pids", os.getpid())
        atexit.register(note, "atexit", where)
        # in one piece, once its buffer is flushed: others write to the same file
        sys.stdout.write(f"said by the child {where}\\n")
        if HOW == "exit":
            sys.exit(7)
        if HOW == "raise":
            raise ValueError("the child's own")
        return True
    note("statuses", f"{where} {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}")
    return False

"""

MAIN = """
if __name__ == "__main__":
    app.main()
"""

EVERYWHERE = """
@app.metadata
def metadata():
    fork("metadata")
    return {}

@app.task("A", key=lambda item: fork("key") or item["n"])
def numbers():
    for n in range(9):
        if n == 3:
            fork("source")
        yield {"n": n}
    fork("end of the source")

@app.available("A")
def gate(ack):
    fork("gate")
    return True

@app.worker_init("A")
def begin():
    fork("init")
    yield
    fork("close")

@app.thread_init("A")
def begin_thread():
    fork("thread init")

@app.worker("A")
def work(data):
    if data["n"] == 5:
        fork("worker")
    if data["n"] == 7:
        raise ValueError("this item fails")
    return data

@app.collector("A")
def collect(data, journal):
    fork("collector")

@app.failed
def failed(failure):
    fork("failed")

@app.ack_data
def ack():
    fork("ack data")

@app.task("B", for_each="A")
def made(data):
    if data["n"] == 4:
        fork("feeder")
    if data["n"] == 5:
        fork("feeder's items")
        yield {"n": -1}
    yield {"n": data["n"]}

@app.worker("B", batch=3)
def works(items):
    fork("batch")
    return items

@app.collector("B", batch=4)
def collects(items):
    fork("batch of the collector")

@app.task("C", timeout=20)
def alone():
    yield {"n": 0}

@app.worker("C")
def timed(data):
    fork("with a timeout")
    return data

@app.collector("C")
def collect_alone(data):
    pass

@app.task("D", for_each="B", gather="A")
def gathered(parent, results):
    fork("gather")
    yield {"n": len(results)}
    fork("gather's items")

@app.worker("D")
def work_on_gathered(data):
    return data

@app.collector("D")
def collect_gathered(data):
    pass

@app.finished
def finish():
    fork("finished")
"""

PLACES = {
    *("metadata", "key", "source", "end of the source", "gate", "init", "thread init", "close", "worker", "collector"),
    *("failed", "ack data", "feeder", "feeder's items", "gather", "gather's items", "batch", "batch of the collector"),
    *("with a timeout", "finished"),
}

ASYNC = """
@app.task("A")
async def numbers():
    for n in range(9):
        await asyncio.sleep(0)
        if n == 3:
            fork("source")
        yield {"n": n}

@app.worker_init("A")
async def begin():
    await asyncio.sleep(0)
    fork("init")
    yield
    fork("close")

@app.thread_init("A")
async def begin_thread():
    fork("thread init")

@app.worker("A")
async def work(data):
    await asyncio.sleep(0)
    if data["n"] == 5:
        fork("worker")
    return data

@app.collector("A")
async def collect(data, journal):
    await asyncio.sleep(0)
    fork("collector")

@app.finished
async def finish():
    fork("finished")
"""

ASYNC_PLACES = {"source", "init", "thread init", "close", "worker", "collector", "finished"}

STATUS = {"return": 0, "exit": 7, "raise": 1}
SAYS = re.compile(r"^A forked child \(process \d+, forked at \S+app.py:\d+\) returned .* status 0. .*os._exit", re.M)


def warnings(said: str) -> list[str]:
    """The warnings, but for those of who waits for others."""
    return [line for line in troubles(said) if "WARNING" in line]


def check(workshop: Any, program: Any, how: str, places: set[str], is_gone: Any) -> None:
    """Each child has ended, once, with its status, its output and what it has to say; and no exit handler was run."""
    assert sorted(workshop.lines("statuses")) == sorted(f"{place} {STATUS[how]}" for place in places), program.err
    assert all(map(is_gone, workshop.numbers("pids")))
    assert not workshop.lines("atexit")
    said = re.findall("said by the child (.*)", program.out + program.err)
    assert sorted(said) == sorted(places)
    assert len(SAYS.findall(program.err)) == (len(places) if how == "return" else 0), program.err
    assert program.err.count("ValueError: the child's own") == (len(places) if how == "raise" else 0)
    assert "SystemExit" not in program.err


@pytest.mark.parametrize("how", STATUS)
def test_a_child_that_comes_back_ends(how: str, workshop: Any, is_gone: Any) -> None:
    """Wherever it was forked: nothing fails for it, nothing is done twice, and the journal is whole."""
    workshop.write("app.py", HEAD + EVERYWHERE + MAIN)
    line = ("-m", "app", "run", "--workers", "1", "--json", "--journal", "run.db")
    status, program = workshop.run(*line, HOW=how, PYTHONUNBUFFERED="")
    assert status == 1, program.err
    tasks = program.json["tasks"]
    assert {name: one["collected"] for name, one in tasks.items()} == {"A": 8, "B": 9, "C": 1, "D": 8}, program.out
    assert len(warnings(program.err)) == program.err.count("Item 7 of 'A' failed") == 1, program.err
    check(workshop, program, how, PLACES, is_gone)


@pytest.mark.parametrize("how", STATUS)
def test_a_child_of_an_async_function_ends(how: str, workshop: Any, is_gone: Any) -> None:
    """The same on event loops."""
    workshop.write("app.py", HEAD + ASYNC + MAIN)
    line = ("-m", "app", "run", "--workers", "1", "--json", "--journal", "run.db")
    status, program = workshop.run(*line, HOW=how, PYTHONUNBUFFERED="")
    assert status == 0, program.err
    assert program.json["tasks"]["A"]["collected"] == 9
    assert warnings(program.err) == []
    check(workshop, program, how, ASYNC_PLACES, is_gone)


SIMPLE = """
@app.task("A")
def numbers():
    for n in range(9):
        yield {"n": n}

@app.collector
def collect(data):
    note("collected", data["n"])
"""

WAITING = """
async def part():
    return fork("task")

@app.worker("A")
async def work(data):
    if data["n"] == 5:
        await asyncio.create_task(part())
        if os.fork() == 0:
            await asyncio.get_event_loop().create_future()
    await asyncio.sleep(0.01)
    return data
"""


def test_a_child_that_waits_on_the_event_loop_ends(workshop: Any) -> None:
    """It would wait for ever, or execute what other calls wait for."""
    workshop.write("app.py", HEAD + SIMPLE + WAITING + MAIN)
    status, program = workshop.run("-m", "app", "run", "--workers", "1")
    assert status == 0, program.err
    assert sorted(workshop.numbers("collected")) == list(range(9))
    assert workshop.lines("statuses") == ["task 1"]
    assert program.err.count("came back to the event loop of its parent") == 2, program.err


UNAFFECTED = """
import pty, time
from multiprocessing import get_context

def note_it(n):
    print("printed by the process")
    note("processes", n)

def double(n):
    return 2 * n

def daemonise():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note("daemons", os.getpid())
            os._exit(0)
        os._exit(0)
    os.wait()

@app.worker("A")
def work(data):
    if data["n"] == 1:
        process = get_context("fork").Process(target=note_it, args=(3,))
        process.start()
        process.join()
        assert process.exitcode == 0, process.exitcode
    if data["n"] == 2:
        pool = get_context("fork").Pool(2)
        assert pool.map(double, range(100)) == list(range(0, 200, 2))
        pool.close()
        pool.join()
    if data["n"] == 3:
        daemonise()
    if data["n"] == 4:
        pid, terminal = pty.fork()
        if pid == 0:
            return data
        with os.fdopen(terminal, "rb", buffering=0) as heard:
            assert b"forked child" in heard.read(1000)
            assert os.waitpid(pid, 0)[1] == 0
    if data["n"] == 5 and os.fork() == 0:
        # a pipeline of its own, on threads that this process has started
        inner = Pipeline("inner")
        inner.task("I")(lambda: [{"n": n} for n in range(5)])
        inner.worker("I")(lambda item: item)
        inner.collector(lambda item: None)
        run = inner.test_run()
        note("inner", len(run.results))
    return data
"""


def test_what_ends_by_itself_is_left_alone(workshop: Any, eventually: Any) -> None:
    """Processes and pools of multiprocessing, daemons; and a child may have a pipeline of its own before it returns."""
    workshop.write("app.py", HEAD + SIMPLE + UNAFFECTED + MAIN)
    status, program = workshop.run("-m", "app", "run", "--workers", "1")
    assert status == 0, program.err
    assert sorted(workshop.numbers("collected")) == list(range(9))
    assert workshop.lines("processes") == ["3"]
    assert (program.out + program.err).count("printed by the process") == 1
    eventually(lambda: len(workshop.lines("daemons")) == 1, "the daemon has begun")
    eventually(lambda: workshop.lines("inner") == ["5"], "the inner pipeline is done")
    eventually(lambda: "returned from the function" in program.err, "and its process has ended")


OTHERS = """
from zmqpipeline.testing import serving

@app.service("S")
def answer(request):
    fork("service")
    return request

@app.worker("A", threads=3)
def work(data):
    if data["n"] == 5:
        fork("one of several threads")
    return data

@app.on(events.TaskStarted)
def see(event):
    fork("observer")

def in_test_run():
    assert len(app.test_run().results) == 9
    with serving(app) as client:
        assert client.request({"n": 1}, timeout=20) == {"n": 1}

if __name__ == "__main__":
    in_test_run()
    print("once")
"""


@pytest.mark.parametrize("how", STATUS)
def test_a_child_of_a_test_run_ends(how: str, workshop: Any) -> None:
    """It does not come to what the program does after the test run."""
    workshop.write("app.py", HEAD + SIMPLE + OTHERS)
    status, program = workshop.run("app.py", HOW=how)
    assert status == 0, program.err
    assert program.out.count("once") == 1
    places = "observer", "one of several threads", "service"
    assert sorted(workshop.lines("statuses")) == [f"{place} {STATUS[how]}" for place in places]
