"""Init functions that are generators: what they yield is the resource, and it is closed at every end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import RUN, Eventually, collected, start

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

THREADS = """
app.task("C")(lambda: items(int(os.environ.get("ITEMS", "60"))))

@app.worker_init("C")
def connect(metadata):
    note("steps", f"open {os.getpid()}")
    yield ["shared"]
    note("steps", f"close {os.getpid()}")

@app.thread_init("C")
def cursor(resource, thread_index):
    yield (resource, thread_index)
    note("steps", f"close thread {thread_index}")

@app.worker("C", threads=3)
def work(data, resource, thread_index):
    assert resource == (["shared"], thread_index)
    note("begun", data["n"])
    while os.environ.get("WAITS") and not Path("go").exists():
        time.sleep(0.01)
    return data
"""
ASYNC = """
import asyncio

app.task("C")(lambda: items(int(os.environ.get("ITEMS", "60"))))

@app.worker_init("C")
async def connect(metadata):
    await asyncio.sleep(0.01)
    note("steps", f"open {os.getpid()}")
    here = asyncio.current_task()
    yield ["shared"]
    await asyncio.sleep(0.01)
    assert here is asyncio.current_task()
    note("steps", f"close {os.getpid()}")

@app.thread_init("C")
async def cursor(resource, thread_index):
    yield (resource, thread_index)
    await asyncio.sleep(0.01)
    note("steps", f"close thread {thread_index}")

@app.worker("C", concurrency=3)
async def work(data, resource, thread_index):
    assert resource == (["shared"], thread_index)
    note("begun", data["n"])
    while os.environ.get("WAITS") and not Path("go").exists():
        await asyncio.sleep(0.01)
    return data
"""
BODIES = {"threads": THREADS, "async": ASYNC}
both = pytest.mark.parametrize("sort", BODIES)


def check_steps(workshop: Workshop, sort: str) -> None:
    """Each process opens and closes once; its threads close first."""
    steps = workshop.lines("steps")
    opened = [one.split()[1] for one in steps if one.startswith("open")]
    assert sorted(opened) == sorted(one.split()[1] for one in steps if one[:5] == "close" and "thread" not in one)
    threads = range(3 if sort == "threads" else 1)
    assert sorted(one for one in steps if "thread" in one) == sorted(
        f"close thread {index}" for index in threads for _ in opened
    )
    if len(opened) == 1:
        assert steps[-1] == f"close {opened[0]}"


@both
def test_it_is_closed_when_the_run_is_over(sort: str, workshop: Workshop) -> None:
    """After the last item, in each worker that had one."""
    program = start(workshop, BODIES[sort])
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(60))
    check_steps(workshop, sort)


@both
def test_it_is_closed_when_the_run_is_interrupted(sort: str, workshop: Workshop, eventually: Eventually) -> None:
    """Ctrl-C: when what has begun has ended."""
    program = start(workshop, BODIES[sort], WAITS="1")
    eventually(lambda: len(workshop.lines("begun")) == 3, "three items")
    program.signal(signal.SIGINT)
    eventually(lambda: "The run drains" in program.err, "the drain is said")
    workshop.write("go", "")
    assert program.wait() == 130, program.err
    check_steps(workshop, sort)


@both
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_is_closed_when_a_worker_is_stopped(
    number: signal.Signals, sort: str, workshop: Workshop, eventually: Eventually
) -> None:
    """A worker of its own, that a signal drains."""
    worker = start(workshop, BODIES[sort], "-m", "app", "worker", WAITS="1")
    # more items than it can do before it has heard of the signal
    for role in ("distributor", "collector"):
        workshop.start("-m", "app", role, ITEMS="1000000")
    eventually(lambda: len(workshop.lines("begun")) == 3, "three items")
    worker.signal(number)
    workshop.write("go", "")
    assert worker.wait() == (130 if number == signal.SIGINT else 0), worker.err
    check_steps(workshop, sort)


@both
def test_it_is_closed_when_a_process_is_replaced(sort: str, workshop: Workshop) -> None:
    """Each of the processes that `max_items` ends closes its own."""
    body = BODIES[sort].replace('app.worker("C", ', 'app.worker("C", max_items=20, ')
    program = start(workshop, body)
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(60))
    check_steps(workshop, sort)
    assert sum(one.startswith("open") for one in workshop.lines("steps")) >= 3


@both
def test_what_was_open_is_closed_when_the_next_one_cannot_be(sort: str, workshop: Workshop) -> None:
    """`thread_init` raises: what `worker_init` made is closed all the same."""
    word = "async def" if sort == "async" else "def"
    body = BODIES[sort].replace(
        f"{word} cursor(resource, thread_index):\n", f"{word} cursor(resource, thread_index):\n    1 / 0\n"
    )
    program = start(workshop, body)
    # the run gives up as soon as each worker would meet the same
    assert program.wait() in (1, 3), program.err
    steps = workshop.lines("steps")
    assert steps
    assert steps[1::2] == [one.replace("open", "close") for one in steps[::2]]


@both
def test_what_raises_when_it_is_closed_is_told_and_ends_nothing(sort: str, workshop: Workshop) -> None:
    """A line with its traceback; all results are there, and the status is 0."""
    close = '    note("steps", f"close {os.getpid()}")\n'
    body = BODIES[sort].replace(close, '    raise OSError("the disk is gone")\n')
    program = start(workshop, body)
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(60))
    said = "The worker_init function 'connect' of task 'C' raised when it was to close what it had made"
    assert program.err.count(said) == 1
    assert "OSError: the disk is gone" in program.err
    # the first frame is that of the user's function
    _, _, frames = program.err.partition("Traceback (most recent call last):\n")
    assert f'File "{workshop.folder}/' in frames.splitlines()[0]


@both
@pytest.mark.parametrize(
    ("instead", "said"),
    [
        ("return", "The worker_init function 'connect' of task 'C' has a `yield`, and ended before it."),
        ("yield 1", "The worker_init function 'connect' of task 'C' yielded a second time"),
    ],
)
def test_a_generator_that_does_not_yield_once_is_told(instead: str, said: str, sort: str, workshop: Workshop) -> None:
    """Nothing before the end, or a second time: an error that says so."""
    body = BODIES[sort]
    if instead == "return":
        body = body.replace('    note("steps", f"open', f'    {instead}\n    note("steps", f"open')
    else:
        body = body.replace('    note("steps", f"close {os', f'    {instead}\n    note("steps", f"close {{os')
    program = start(workshop, body)
    assert program.wait() in ((1, 3) if instead == "return" else (0,)), program.err
    assert said in program.err
    # no code of the user raised it, and of ours nothing is shown
    assert "Traceback" not in program.err


@both
def test_what_hangs_when_it_is_closed_is_left_alone(sort: str, workshop: Workshop, eventually: Eventually) -> None:
    """For as long as a drain may take; then a line says so, and the worker ends."""
    hang = "await asyncio.sleep(60)" if sort == "async" else "time.sleep(60)"
    body = BODIES[sort].replace('    note("steps", f"close {os', f'    {hang}\n    note("steps", f"close {{os')
    program = start(workshop, body, ZMQPIPELINE_DRAIN_TIMEOUT="1")
    assert program.wait() == 0, program.err
    said = "The worker_init function 'connect' of task 'C' has not closed what it made within 1 s; it is left alone."
    assert said in program.err
    assert collected(workshop) == list(range(60))


def test_a_worker_without_an_item_opens_nothing(workshop: Workshop, eventually: Eventually) -> None:
    """So there is nothing to close."""
    program = start(workshop, THREADS, ITEMS="0")
    assert program.wait() == 0, program.err
    assert workshop.lines("steps") == []


def test_a_service_worker_closes_it_too(workshop: Workshop, eventually: Eventually) -> None:
    """At the broker's end."""
    body = """
@app.worker_init("ask")
def connect():
    note("steps", "open")
    yield 7
    note("steps", "close")

@app.service("ask")
def ask(data, resource):
    return {"got": resource}
"""
    service = start(workshop, body, "-m", "app", "service")
    worker = workshop.start("-m", "app", "service-worker", "ask")
    status, program = workshop.run("-m", "app", "call", "ask", "{}")
    assert (status, program.out) == (0, '{"got": 7}\n'), program.err
    service.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert workshop.lines("steps") == ["open", "close"]


def test_what_is_open_is_closed_although_a_later_init_function_hangs(
    workshop: Workshop, eventually: Eventually
) -> None:
    """A SIGTERM cancels the one that hangs, and has the one before go on behind its `yield`."""
    body = """
import asyncio

app.task("C")(lambda: items(5))

@app.worker_init("C")
async def connect():
    yield 1
    note("steps", "closed")

@app.thread_init("C")
async def cursor():
    note("steps", "hangs")
    try:
        await asyncio.sleep(1000)
    finally:
        note("steps", "cleaned")

@app.worker("C")
async def work(data):
    return data
"""
    program = start(workshop, body, *RUN, "--drain-timeout", "3")
    eventually(lambda: workshop.lines("steps") == ["hangs"], "the second init function")
    program.signal(signal.SIGTERM)
    assert program.wait() == 143, program.err
    assert workshop.lines("steps") == ["hangs", "cleaned", "closed"]


def test_an_async_init_that_hangs_is_cancelled(workshop: Workshop) -> None:
    """Past `init_timeout` it may clean up, and the worker says what it waited for."""
    body = """
import asyncio

app.task("C")(lambda: items(5))

@app.worker_init("C")
async def connect():
    try:
        await asyncio.sleep(60)
    finally:
        note("steps", "cleaned")
    yield 1

@app.worker("C", init_timeout=0.3)
async def work(data):
    return data
"""
    program = start(workshop, body)
    assert program.wait() == 3, program.err
    assert (
        "'connect' of task 'C' did not return within 0.3 s (init_timeout=); it waits on its event loop" in program.err
    )
    assert workshop.lines("steps") == ["cleaned"] * 5
    assert "InvalidStateError" not in program.err, program.err
