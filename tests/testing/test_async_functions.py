"""Async sources, feeders and collector's functions: as plain ones, on an event loop of their role."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from zmqpipeline import Pipeline
from zmqpipeline.errors import RegistrationError, RunFailed
from zmqpipeline.testing import SimulatedPipeline


def numbers_of(run: Any, task: str = "C") -> list[int]:
    """What was collected of a task, sorted."""
    return sorted(data["n"] for one, data in run.results if one == task)


def loops() -> list[str]:
    """The threads of event loops that run, also if they are given time to end."""
    found = [one for one in threading.enumerate() if one.name.startswith("zmqpipeline-async")]
    for one in found:
        one.join(60)
    return [one.name for one in found if one.is_alive()]


async def generator() -> AsyncIterator[dict[str, Any]]:
    """Items, with something to wait for between them."""
    for n in range(300):
        if n % 50 == 0:
            await asyncio.sleep(0.001)
        yield {"n": n}


async def some() -> list[dict[str, Any]]:
    """A list, made once."""
    await asyncio.sleep(0)
    return [{"n": n} for n in range(300)]


async def one_each(number: int) -> dict[str, Any]:
    """One a call."""
    await asyncio.sleep(0)
    return {"n": number}


def gives_generator() -> AsyncIterator[dict[str, Any]]:
    """A plain function may return an async generator."""
    return generator()


@pytest.mark.parametrize(
    ("function", "keywords"),
    [
        (generator, {}),
        (some, {}),
        (one_each, {"times": 300}),
        (generator, {"key": "n"}),
        (gives_generator, {}),
    ],
    ids=["generator", "list", "times", "keys", "plain"],
)
def test_an_async_source_gives_items(function: Callable[..., Any], keywords: dict[str, Any]) -> None:
    """Each once, and no thread is left; in a simulation with faults, too."""
    app = Pipeline("source")
    app.add_task("C", function, **keywords)
    app.add_worker("C", dict)
    assert numbers_of(app.test_run(workers=2)) == list(range(300))
    assert numbers_of(SimulatedPipeline(app, seed=2).run()) == list(range(300))
    assert loops() == []


def test_it_is_asked_for_no_more_than_is_wanted() -> None:
    """As a plain source: it is not ahead of its workers."""
    app, given, released = Pipeline("demand"), [], threading.Event()

    @app.task("C")
    async def endless() -> AsyncIterator[dict[str, Any]]:
        for n in range(10_000):
            given.append(n)
            yield {"n": n}

    @app.worker("C")
    def slow(data: dict[str, Any]) -> dict[str, Any]:
        if data["n"] == 0:
            released.wait(0.3)
            seen.append(len(given))
        return data

    seen: list[int] = []
    app.test_run(timeout=60)
    assert seen[0] < 100, seen


@pytest.mark.parametrize("how", ["source", "feeder", "collector", "finished"])
def test_what_it_raises_is_told_as_of_a_plain_one(how: str) -> None:
    """With the function's own line in the traceback."""
    app = Pipeline("raises")

    @app.task("C")
    async def source() -> AsyncIterator[dict[str, Any]]:
        yield {"n": 1}
        if how == "source":
            raise ValueError("as planned")

    app.add_worker("C", dict)

    @app.task("D", for_each="C")
    async def feed(data: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        yield {"n": 1}
        if how == "feeder":
            raise ValueError("as planned")

    app.add_worker("D", dict)

    @app.collector("D")
    async def collect(data: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        if how == "collector":
            raise ValueError("as planned")

    @app.finished
    async def finished() -> None:
        if how == "finished":
            raise ValueError("as planned")

    if how == "finished":
        run = app.test_run(raise_failures=False)
        assert not run.summary.ok
    else:
        with pytest.raises((ValueError, RunFailed), match="as planned"):
            app.test_run()
    assert loops() == []


def test_results_are_given_on_by_an_async_function() -> None:
    """A generator, a list, one dict or None, with names; their first items may come from one, too."""
    app = Pipeline("stages")

    async def first() -> AsyncIterator[dict[str, Any]]:
        for n in range(20):
            await asyncio.sleep(0)
            yield {"n": n}

    @app.task("A", first=first, for_each="A", key="n")
    async def again(data: dict[str, Any], depth: int) -> dict[str, Any] | None:
        await asyncio.sleep(0)
        return {"n": data["n"] + 100} if depth < 2 else None

    @app.task("B", for_each="A")
    async def halves(data: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for half in range(250 if data["n"] == 0 else 2):
            yield {"n": data["n"], "half": half}

    for name in "AB":
        app.add_worker(name, dict)
    run = app.test_run(timeout=60)
    assert numbers_of(run, "A") == [n + 100 * depth for depth in range(3) for n in range(20)]
    assert len(numbers_of(run, "B")) == 248 + 2 * 60
    assert loops() == []


@pytest.mark.parametrize("batch", [None, 10])
def test_an_async_collector_is_called_in_order_with_the_journal(batch: int | None) -> None:
    """One call at a time, on one event loop, which the others share; what it writes is there with its marks."""
    app, seen, used = Pipeline("collects"), [], []
    app.add_task("C", lambda: [{"n": n} for n in range(100)])
    app.add_worker("C", dict)

    async def one(data: dict[str, Any], journal: Any) -> dict[str, Any]:
        used.append(asyncio.get_running_loop())
        await asyncio.sleep(0.0001)
        journal.execute("CREATE TABLE IF NOT EXISTS numbers (n PRIMARY KEY)")
        journal.execute("INSERT INTO numbers VALUES (:n)", data)
        return {"n": data["n"]}

    async def many(results: list[dict[str, Any]], journal: Any) -> None:
        for data in results:
            await one(data, journal)

    if batch is None:
        app.add_collector(one, "C")
    else:
        app.add_collector(many, "C", batch=batch)

    @app.finished
    async def finished(journal: Any) -> None:
        await asyncio.sleep(0)
        used.append(asyncio.get_running_loop())
        seen.extend(journal.execute("SELECT n FROM numbers ORDER BY n"))

    app.test_run(workers=2)
    assert [n for (n,) in seen] == list(range(100))
    assert len(set(used)) == 1
    assert loops() == []


@pytest.mark.parametrize("decorator", ["available", "metadata", "ack_data"])
def test_functions_that_are_asked_all_the_time_are_plain(decorator: str) -> None:
    """With what to write."""
    app = Pipeline("plain")

    async def function(*given: Any) -> None: ...

    app.add_task("C", list)
    with pytest.raises(RegistrationError, match="is an async function; these are not called"):
        app.add_available("C", function) if decorator == "available" else getattr(app, f"add_{decorator}")(function)


def test_a_generator_with_times_or_a_collector_that_yields_is_refused() -> None:
    """One item a call, one answer a result."""
    app = Pipeline("yields")
    with pytest.raises(RegistrationError, match="has a `yield`"):
        app.add_task("C", generator, times=3)

    async def collect(data: dict[str, Any]) -> AsyncIterator[None]:
        yield

    with pytest.raises(RegistrationError, match="has a `yield`"):
        app.add_collector(collect)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("batch", [None, 8])
def test_an_exit_in_a_task_of_a_workers_call_is_the_failure_of_its_item(
    batch: int | None, error: BaseException
) -> None:
    """The test run goes on with the others."""
    app = Pipeline("exits")
    app.task("C", on_failed="continue")(lambda: ({"n": n} for n in range(50)))

    async def exits() -> None:
        raise error

    async def work(given: Any) -> Any:
        await asyncio.sleep(0.001)
        if any(one["n"] == 7 for one in ([given] if batch is None else given)):
            await asyncio.gather(exits())
        return given

    app.worker("C", concurrency=10, batch=batch)(work)
    app.collector(lambda data: None)
    run = app.test_run(raise_failures=False, timeout=60)
    assert numbers_of(run) == [n for n in range(50) if n != 7]
    assert [(failure.data, failure.error) for failure in run.failures] == [({"n": 7}, type(error).__name__)]
