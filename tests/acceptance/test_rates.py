"""Rates and limits of tasks, as real processes."""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.test_supervision import HEAD, MAIN, RUN, Eventually, collected, start

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

STALLS = """
import threading

def watch():
    # how long this process was held up: what comes late from it, or to it, was not handed out too fast
    last = time.monotonic()
    while True:
        time.sleep(0.01)
        now = time.monotonic()
        if now - last > 0.1:
            note("stalls", now - last)
        last = now

threading.Thread(target=watch, daemon=True).start()
"""

BODY = (
    STALLS
    + """
import asyncio

app.task("C", HOW)(lambda: items(int(os.environ["ITEMS"])))

@app.worker("C", concurrency=50)
async def work(data):
    note("begun", time.monotonic())
    while str(data["n"]) == os.environ.get("HOLDS") and not Path("go").exists():
        await asyncio.sleep(0.01)
    await asyncio.sleep(float(os.environ.get("SECONDS", "0")))
    note("ended", time.monotonic())
    return data
"""
)


def begun(workshop: Workshop) -> list[float]:
    """When calls began, in order."""
    return sorted(map(float, workshop.lines("begun")))


def stalled(workshop: Workshop) -> float:
    """For how long processes were held up, in all: what is handed out at its rate may begin closer together then."""
    return sum(map(float, workshop.lines("stalls")))


def check_rate(workshop: Workshop, times: list[float], rate: float) -> None:
    """In every second no more than the rate and its burst, with some room for how long messages take."""
    room = 0.2 + stalled(workshop)
    for at, first in enumerate(times):
        within = sum(first <= one < first + 1.0 for one in times[at:])
        assert within <= (2 + room) * rate + 1, (within, room)


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_rate_holds_for_all_workers(workers: str, workshop: Workshop) -> None:
    """120 items at 60 a second take two seconds, with however many workers; and not much longer."""
    program = start(workshop, BODY.replace("HOW", 'rate="3600/m"'), *RUN, "--workers", workers, ITEMS="120")
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(120))
    times, room = begun(workshop), stalled(workshop)
    assert 1.8 - room <= times[-1] - times[0] <= 5 + room, (times[-1] - times[0], room)
    check_rate(workshop, times, 60)


def test_a_limit_holds_for_all_workers(workshop: Workshop) -> None:
    """Seven at once, of two workers that could have a hundred."""
    program = start(workshop, BODY.replace("HOW", "limit=7"), *RUN, "--workers", "2", ITEMS="150", SECONDS="0.03")
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(150))
    events = sorted(
        [(float(one), 1) for one in workshop.lines("begun")] + [(float(one), -1) for one in workshop.lines("ended")]
    )
    now = most = 0
    for _, step in events:
        now += step
        most = max(most, now)
    assert 4 <= most <= 7, most


def test_a_distributor_that_is_started_again_does_not_double_it(workshop: Workshop, eventually: Eventually) -> None:
    """Killed in the middle: the rate holds across both."""
    body = BODY.replace("HOW", 'rate="60/s", key="n"')
    distributor = start(workshop, body, "-m", "app", "distributor", ITEMS="240")
    others = [workshop.start("-m", "app", role, ITEMS="240", HOLDS="150") for role in ("worker", "collector")]
    eventually(lambda: len(workshop.lines("begun")) > 60, "a quarter")
    os.kill(distributor.pid, signal.SIGKILL)
    distributor.wait()
    again = workshop.start("-m", "app", "distributor", ITEMS="240")
    workshop.write("go", "")
    assert again.wait() == 0, again.err
    assert [one.wait() for one in others] == [0, 0]
    assert collected(workshop) == list(range(240))
    check_rate(workshop, begun(workshop), 60)


AGAIN = (
    STALLS
    + """
import asyncio
from zmqpipeline import Retry

app.task("C", HOW)(lambda: items(100))

@app.worker("C", concurrency=10)
async def work(data, attempt):
    note("begun", time.monotonic())
    if data["n"] == 30 and attempt <= 3:
        note("again", time.monotonic())
        raise Retry(after=0.5, pause=PAUSE)
    if data["n"] == 31 and attempt == 1:
        raise ValueError("a failure counts")
    return data
"""
)


@pytest.mark.parametrize("pause", [False, True])
def test_an_item_comes_again_and_that_is_no_failure(pause: bool, workshop: Workshop) -> None:
    """Three times, with no retries allowed beside one; with a pause nothing else is handed out meanwhile."""
    body = AGAIN.replace("HOW", "retries=1, backoff=0.01, limit=10").replace("PAUSE", str(pause))
    program = start(workshop, body, *RUN, "--workers", "2")
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(100))
    asked = sorted(map(float, workshop.lines("again")))
    assert len(asked) == 3
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(asked))
    assert "Retry" not in program.err, program.err
    if pause:
        # what had been handed out before it was said may begin a moment later
        late = asked[0] + 0.1 + stalled(workshop)
        within = [one for one in begun(workshop) if late < one < asked[0] + 0.45]
        assert within == [], (len(within), late)


def test_an_api_that_refuses(workshop: Workshop) -> None:
    """It answers 429 to each but so many, until half a second later: few are refused, and all prompts are answered."""
    body = """
import asyncio
from zmqpipeline import Retry

app.task("C", limit=20)(lambda: items(300))
taken, refused_at = 0, None

@app.worker("C", concurrency=20)
async def work(data):
    global taken, refused_at
    if refused_at is not None and time.monotonic() >= refused_at + 0.5:
        taken, refused_at = 0, None
    if taken == 100:
        refused_at = refused_at or time.monotonic()
        note("refused", data["n"])
        raise Retry(after=0.5, pause=True)
    taken += 1
    await asyncio.sleep(0.005)
    return data
"""
    program = start(workshop, body)
    assert program.wait() == 0, program.err
    assert collected(workshop) == list(range(300))
    # of each of the two pauses those that were handed out before it was said
    assert 2 <= len(workshop.lines("refused")) <= 60


PAUSED = """
from zmqpipeline import Retry

app.task("C", limit=4)(lambda: items(40))

@app.worker("C", threads=4)
def work(data):
    note("begun", time.monotonic())
    if data["n"] == 5 and not Path("paused").exists():
        note("paused", time.monotonic())
        raise Retry(after=float(os.environ["AFTER"]), pause=True)
    return data
"""


def leased(workshop: Workshop) -> int:
    """How many items are with workers."""
    status, program = workshop.run("-m", "app", "status", "--json")
    return int(program.json["tasks"]["C"]["leased"]) if status == 0 else -1


@pytest.mark.parametrize("killed", ["distributor", "distributor and worker", "all"])
def test_a_pause_outlives_the_distributor(killed: str, workshop: Workshop, eventually: Eventually) -> None:
    """The next one hands out nothing before it is over: the collector tells it, from its journal if all were killed."""
    after = 15.0

    def begin(role: str) -> Program:
        journal = ("--journal", "run.journal") if role == "collector" else ()
        return workshop.start("-m", "app", role, *journal, "--log-level", "debug", AFTER=str(after))

    workshop.write("app.py", HEAD + PAUSED + MAIN)
    roles = {role: begin(role) for role in ("collector", "distributor", "worker")}
    eventually(lambda: workshop.lines("paused"), "the pause")
    (asked,) = map(float, workshop.lines("paused"))
    # the collector knows of it, and what was handed out before it was said is done
    eventually(
        lambda: "received Pauses" in roles["collector"].err and leased(workshop) == 0,
        "everybody has heard of the pause",
    )
    moment = time.monotonic()
    assert moment < asked + after - 1, "this machine is too slow to see it"
    victims = list(roles) if killed == "all" else killed.split(" and ")
    for role in victims:
        os.kill(roles[role].pid, signal.SIGKILL)
        roles[role].wait()
    for role in victims:
        roles[role] = begin(role)
    assert [one.wait() for one in roles.values()] == [0, 0, 0], roles["distributor"].err
    assert collected(workshop) == list(range(40))
    within = [round(one - asked, 2) for one in begun(workshop) if moment < one < asked + after - 0.1]
    assert within == [], within


CLASSES = """
import time
from zmqpipeline import Collector, Distributor, SingleThreadedWorker, Task, TaskType

TaskType.register_type("C")

class Numbers(Task):
    task_type = TaskType("C")
    endpoint = "ipc://work.ipc"
    dependencies = []
    LIMITS

    def handle(self):
        self.n_count += 1
        self.is_complete = self.n_count == 60
        return {"n": self.n_count}

class Worker(SingleThreadedWorker):
    task_type = TaskType("C")
    endpoint = "ipc://work.ipc"
    collector_endpoint = "ipc://results.ipc"
    concurrency = 20

    async def handle_execution(self, data):
        import asyncio
        note("begun", time.monotonic())
        await asyncio.sleep(0.02)
        note("ended", time.monotonic())
        return data

class Gather(Collector):
    endpoint = "ipc://results.ipc"
    ack_endpoint = "ipc://acks.ipc"

    def handle_collection(self, data):
        note("collected", data["n"])

def note(name, text):
    with open(name, "a") as file:
        file.write(f"{text}\\n")

STALLS

def main(role):
    if role == "distributor":
        Distributor.register_task(Numbers)
        Distributor(collector_endpoint="ipc://results.ipc", collector_ack_endpoint="ipc://acks.ipc").run()
    elif role == "worker":
        Worker().run()
    else:
        Gather().run()

if __name__ == "__main__":
    import sys
    main(sys.argv[1])
"""


@pytest.mark.parametrize("limits", ['rate = "30/s"', "limit = 3"])
def test_a_class_has_a_rate_and_a_limit(limits: str, workshop: Workshop) -> None:
    """As attributes, with the meaning of the keywords."""
    workshop.write("classes.py", CLASSES.replace("LIMITS", limits).replace("STALLS", STALLS))
    roles = [workshop.start("classes.py", role) for role in ("distributor", "worker", "collector")]
    assert [one.wait() for one in roles] == [0, 0, 0], roles[0].err
    assert collected(workshop) == list(range(1, 61))
    if "rate" in limits:
        times = begun(workshop)
        assert times[-1] - times[0] >= 1.8 - stalled(workshop), times[-1] - times[0]
        check_rate(workshop, times, 30)
        return
    events = sorted(
        [(float(one), 1) for one in workshop.lines("begun")] + [(float(one), -1) for one in workshop.lines("ended")]
    )
    now = most = 0
    for _, step in events:
        now += step
        most = max(most, now)
    assert 2 <= most <= 3, most


CRAWL = (
    STALLS
    + """
HOSTS = {"big": 120, "slow": 60, "c": 40, "d": 5}

@app.task("page", first=[{"host": "big", "page": 0}], for_each="page", key=str, rate="20/s", rate_by="host")
def links(page):
    if page["page"] == 0 and page["host"] == "big":
        for host, pages in HOSTS.items():
            yield from ({"host": host, "page": n} for n in range(pages))

@app.worker("page", threads=30)
def fetch(data):
    note(f"host-{data['host']}", time.monotonic())
    # a run that is not over before somebody is killed
    while (data["host"], data["page"]) == ("big", 60) and not Path("go").exists():
        time.sleep(0.01)
    time.sleep(0.3 if data["host"] == "slow" else 0.01)
    return data

@app.collector("page")
def keep(data):
    note("pages", f"{data['host']} {data['page']}")
"""
)


@pytest.mark.parametrize("killed", [(), ("distributor",), ("collector",), ("distributor", "worker", "collector")])
def test_a_rate_for_each_host(killed: tuple[str, ...], workshop: Workshop, eventually: Eventually) -> None:
    """Each is asked no faster than its rate, whoever dies; none waits for the pages of another."""

    def begin(role: str) -> Program:
        journal = ("--journal", "run.journal") if role == "collector" else ()
        return workshop.start("-m", "app", role, *journal)

    workshop.write("app.py", HEAD + CRAWL + MAIN)
    roles = {role: begin(role) for role in ("collector", "distributor", "worker")}
    eventually(lambda: len(workshop.lines("host-big")) > 40, "a third")
    for role in killed:
        os.kill(roles[role].pid, signal.SIGKILL)
        roles[role].wait()
    for role in killed:
        roles[role] = begin(role)
    workshop.write("go", "")
    assert [one.wait() for one in roles.values()] == [0, 0, 0], roles["distributor"].err
    hosts = {"big": 120, "slow": 60, "c": 40, "d": 5}
    assert set(workshop.lines("pages")) == {f"{host} {page}" for host, pages in hosts.items() for page in range(pages)}
    for host in hosts:
        check_rate(workshop, sorted(map(float, workshop.lines(f"host-{host}"))), 20)
    first, last = ({host: edge(map(float, workshop.lines(f"host-{host}"))) for host in hosts} for edge in (min, max))
    if not killed:
        # 120 pages at 20 a second, with a burst of 20
        room = stalled(workshop)
        assert last["big"] - first["big"] <= 9 + room, (last["big"] - first["big"], room)
        assert last["d"] - first["big"] <= 3 + room, (last["d"] - first["big"], room)
        assert last["c"] - first["c"] <= 4 + room, (last["c"] - first["c"], room)


CHANGED = """
@app.task("site")
def sites():
    for n in range(5):
        yield {"n": n}

@app.worker("site")
def look(data):
    return data

@app.task("page", for_each="site"RATE)
def pages(site):
    for n in range(20):
        yield {"host": site["n"] % 2, "page": 20 * site["n"] + n}

@app.worker("page")
def fetch(data):
    return data

@app.collector("page")
def keep(data):
    note("pages", data["page"])
"""


@pytest.mark.parametrize(
    "rates", [(', rate="1/s", rate_by="host"', ""), (', rate="5/s"', ', rate="90/s", rate_by="host"')]
)
def test_a_rate_by_that_comes_or_goes(rates: tuple[str, str], workshop: Workshop, eventually: Eventually) -> None:
    """A run is killed, and goes on by an app in which `rate_by` was taken away, or was added: nothing is left."""
    command = ("-m", "app", "run", "--journal", "run.journal", "--workers", "1", "--json")
    workshop.write("app.py", HEAD + CHANGED.replace("RATE", rates[0]) + MAIN)
    program = workshop.start(*command)
    eventually(lambda: len(workshop.lines("pages")) > 1, "the first pages")
    program.signal(signal.SIGKILL, group=True)
    program.wait()
    workshop.write("app.py", HEAD + CHANGED.replace("RATE", rates[1]) + MAIN)
    status, program = workshop.run(*command)
    assert status == 0, program.err
    assert set(workshop.lines("pages")) == set(map(str, range(100)))
