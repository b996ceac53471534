"""Async workers and services as real processes: as many calls go on at a time as they say."""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import HEAD, MAIN, RUN, Eventually, collected, start

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes

WAITS = """
import asyncio

app.task("C")(lambda: items(int(os.environ["ITEMS"])))

@app.worker("C", concurrency=100)
async def work(data, number, attempt, thread_index, metadata, task_type):
    assert (number, attempt, thread_index, metadata, task_type) == (data["n"], 1, 0, {}, "C")
    note("executed", data["n"])
    WAIT
    return data
"""

ALL_AT_ONCE = """
begun, all_there = [], asyncio.Event()

async def wait_for_all():
    begun.append(0)
    if len(begun) == MOST:
        all_there.set()
    await all_there.wait()
    await asyncio.sleep(0.01)
"""
"""A call ends when so many have begun; with fewer at a time the first would wait for ever."""


def test_a_hundred_calls_wait_at_a_time(workshop: Workshop) -> None:
    """Each of the first hundred waits for the others: they are all under way; parameters are given by name."""
    body = WAITS.replace("WAIT", "await wait_for_all()") + ALL_AT_ONCE.replace("MOST", "100")
    program = start(workshop, body, ITEMS="1000")
    assert program.wait() == 0, program.err
    assert collected(workshop) == sorted(workshop.numbers("executed")) == list(range(1000))


HELD = """while data["n"] >= 1000 and not Path("go").exists():
        await asyncio.sleep(0.01)"""


def test_a_killed_worker_costs_nothing_but_its_calls(workshop: Workshop, eventually: Eventually) -> None:
    """SIGKILL in the middle: each item is collected once, and only what was under way is executed again."""
    body = WAITS.replace("1, 0, {}", "attempt, 0, {}").replace("WAIT", HELD) + PIDS
    program = start(workshop, body, *RUN, "--workers", "2", ITEMS="2000")
    eventually(lambda: len(workshop.lines("collected")) == 1000, "half of them are collected")
    eventually(lambda: len(workshop.lines("executed")) == 1200, "both workers hold as many as they may")
    os.kill(workshop.numbers("pids")[0], signal.SIGKILL)
    workshop.write("go", "")
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(2000))
    again = [number for number, times in Counter(workshop.numbers("executed")).items() if times > 1]
    # what it had begun: the collector had heard of all that was done
    assert len(again) <= 100, len(again)
    assert min(again) >= 1000


PIDS = """
@app.worker_init("C")
async def begin():
    note("pids", os.getpid())
"""


def test_an_async_service_answers_many_requests_at_a_time(workshop: Workshop) -> None:
    """Each of the first fifty waits for the others: they are all under way; what one raises is its client's."""
    workshop.write(
        "app.py",
        HEAD
        + """
import asyncio

@app.worker_init("ask")
async def begin():
    await asyncio.sleep(0.01)
    return {"there": 1}

@app.service("ask", concurrency=50)
async def ask(data, resource):
    if data["n"] == 7:
        raise LookupError("seven")
    await wait_for_all()
    return {"n": data["n"], **resource}
"""
        + ALL_AT_ONCE.replace("MOST", "50")
        + MAIN,
    )
    workshop.write(
        "client.py",
        """
import app, json
from zmqpipeline.errors import ServiceError
with app.app.client("ask") as client:
    replies = client.request([{"n": n} for n in range(8, 108)])
    try:
        client.request({"n": 7})
        said = ""
    except ServiceError as error:
        said = str(error)
    print(json.dumps([replies, said]))
""",
    )
    workshop.start("-m", "app", "service")
    workshop.start("-m", "app", "service-worker", "ask")
    status, program = workshop.run("client.py")
    assert status == 0, program.err
    replies, said = program.json
    assert replies == [{"n": n, "there": 1} for n in range(8, 108)]
    assert "LookupError" in said


CLASSES = """
import asyncio
import threading

from zmqpipeline import Collector, Distributor, EndpointAddress, SingleThreadedWorker, Task, TaskType

TaskType.register_type("C")

class Numbers(Task):
    task_type = TaskType("C")
    endpoint = "inproc://work"
    dependencies = []
    sent = 0

    def handle(self, data, address, msgtype):
        self.sent += 1
        self.is_complete = self.sent == 200
        return {"n": self.sent}

class Waits(SingleThreadedWorker):
    task_type = TaskType("C")
    endpoint = "inproc://work"
    collector_endpoint = "inproc://results"
    concurrency = 50
    now = most = 0

    async def init_worker(self):
        await asyncio.sleep(0.01)
        self.ready = True

    async def handle_execution(self, data):
        assert self.ready
        self.now += 1
        self.most = max(self.most, self.now)
        # the first fifty wait for each other
        while self.most < 50:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        self.now -= 1
        return data

class Collects(Collector):
    endpoint = "inproc://results"
    ack_endpoint = "inproc://acks"
    got = 0

    def handle_collection(self, data, task_type, msgtype):
        self.got += 1

Distributor.register_task(Numbers)
worker, collector = Waits(), Collects()
roles = [Distributor("inproc://results", "inproc://acks"), worker, collector]
threads = [threading.Thread(target=role.run) for role in roles]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(collector.got, worker.most)
"""


def test_a_worker_of_the_class_api_may_be_async(workshop: Workshop) -> None:
    """`async def handle_execution` with `concurrency`, and an async `init_worker`."""
    workshop.write("classes.py", CLASSES)
    status, program = workshop.run("classes.py")
    assert status == 0, program.err
    assert program.out.split() == ["200", "50"]


@pytest.mark.slow
def test_ten_thousand_calls_at_a_time(workshop: Workshop) -> None:
    """20,000 calls on one worker with concurrency=10000: each of the first 10,000 waits for all of these."""
    body = WAITS.replace("WAIT", "await wait_for_all()").replace("concurrency=100", "concurrency=10000")
    program = start(workshop, body + ALL_AT_ONCE.replace("MOST", "10000"), ITEMS="20000")
    assert program.wait(110) == 0, program.err
    assert len(workshop.lines("collected")) == 20000
