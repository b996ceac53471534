"""A page's server in a thread of this process, fed with answers that are made up: of thousands of workers, say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from zmqpipeline.cli.asker import Asker
from zmqpipeline.cli.page.place import listening, url_of
from zmqpipeline.cli.page.plan import PagePlan
from zmqpipeline.cli.page.server import serve
from zmqpipeline.cli.page.shown import RunOver
from zmqpipeline.cli.page.site import Site
from zmqpipeline.cli.page.watch import Watch
from zmqpipeline.protocol.messages import (
    FailureStatus,
    LostWorker,
    RunningItem,
    Status,
    TaskCounts,
    TaskStatus,
    WorkerStatus,
)


class MadeUp:
    """Answers as an `Asker` does."""

    def __init__(self, answer: Callable[[int], Sequence[Status]]) -> None:
        """`answer` makes them, of the number of the question, from 0."""
        self._answer = answer
        self._asked = 0

    def ask(self, max_age: float = 0.0) -> Sequence[Status]:
        """The next answer."""
        self._asked += 1
        return self._answer(self._asked - 1)


@contextmanager
def served(answer: Callable[[int], Sequence[Status]], plan: PagePlan, interval: float = 0.5) -> Iterator[str]:
    """The address of a page that shows these answers."""
    ready, ends = threading.Event(), []

    async def run() -> None:
        asker = cast("Asker", MadeUp(answer))
        watch, loop = Watch(asker, interval), asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(watch.end, RunOver(0)))
        ready.set()
        await serve(Site(plan, watch, asker), watch, listener, "127.0.0.1", None, own=False)

    with listening("127.0.0.1", 0, "another") as listener:
        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        ready.wait()
        try:
            yield url_of(listener)
        finally:
            ends[0]()
            thread.join()


def crowd(question: int, workers: int = 2000, failures: int = 10_000) -> list[Status]:
    """A run of so many workers and failed items, which has gone on since the question before."""
    done, kinds = 100_000 + 1000 * question, 100
    names = [f"T{number}" for number in range(5)]
    of_each = workers // len(names)
    tasks = [
        TaskStatus(
            TaskCounts(name, "open", done + 500, done, failures // len(names), redelivered=17),
            *(1_000_000, 300, 20, 180, of_each, 60.0 + question, 0, ""),
        )
        for name in names
    ]
    trace = "Traceback (most recent call last):\n" + "\n".join(f'  File "app.py", line {line}' for line in range(40))
    told = [
        FailureStatus(
            *(names[number % 5], "worker", "ValueError", f"no such thing: {number}", f"app.py:{number} work"),
            *(trace if number < 20 else "", failures // kinds, number, 3, "{'path': 'a/long/name/of/a/file'}"),
        )
        for number in range(kinds)
    ]
    there = [
        WorkerStatus(
            *(f"node{number % 64:02}/{1000 + number}", names[number % 5], f"node{number % 64:02}", 1000 + number),
            *(2, "busy", 4, done // workers, [RunningItem(done + number, 1, number / 100)], 4096),
            service_time=0.012,
        )
        for number in range(workers)
    ]
    lost = [LostWorker(f"node07/{number}", "T1", "killed by SIGKILL", 5.0 + number) for number in range(50)]
    said = {"failures": told, "lost": lost, "lost_workers": 120}
    return [Status("crowd", "feed" * 8, "running", 60.0 + question, "", tasks, there, **said)]  # type: ignore[arg-type]
