"""Async workers in simulated runs, and in test runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from zmqpipeline import Pipeline
from zmqpipeline.testing import SimulatedPipeline

COUNT = 30


def waits() -> Pipeline:
    """Thirty calls that wait, with a resource that was waited for."""
    app = Pipeline("waits")
    app.add_task("A", lambda: ({"n": n} for n in range(COUNT)), timeout=60)

    @app.worker_init("A")
    async def connect() -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0.001)
        return asyncio.get_running_loop()

    @app.worker("A", concurrency=10)
    async def work(
        data: dict[str, int], resource: asyncio.AbstractEventLoop, number: int, thread_index: int
    ) -> dict[str, int]:
        assert resource is asyncio.get_running_loop()
        await asyncio.sleep(0.001)
        return {"n": data["n"], "number": number, "thread": thread_index}

    return app


EXPECTED = [{"n": n, "number": n, "thread": 0} for n in range(COUNT)]


def test_a_test_run_awaits_them() -> None:
    """As in processes."""
    run = waits().test_run(workers=2)
    assert sorted((data for _, data in run.results), key=lambda data: int(data["n"])) == EXPECTED


@pytest.mark.parametrize("seed", range(5))
def test_a_simulated_run_awaits_them(seed: int) -> None:
    """Whatever strikes, each is collected once."""
    run = SimulatedPipeline(waits(), seed=seed).run()
    assert sorted((data for _, data in run.results), key=lambda data: int(data["n"])) == EXPECTED


@pytest.mark.parametrize("seed", range(5))
def test_what_a_worker_opened_is_closed_when_it_ends_in_good_order(seed: int) -> None:
    """Each of them once, but for those that were killed."""
    app = Pipeline("closes")
    steps: list[str] = []
    app.add_task("A", lambda: ({"n": n} for n in range(COUNT)))

    @app.worker_init("A")
    def connect() -> Iterator[int]:
        steps.append("open")
        yield 1
        steps.append("close")

    app.add_worker("A", lambda data, resource: data)
    assert len(app.test_run(workers=2).results) == COUNT
    assert sorted(steps) == ["close"] * (len(steps) // 2) + ["open"] * (len(steps) // 2)
    steps.clear()
    run = SimulatedPipeline(app, seed=seed).run()
    assert len(run.results) == COUNT
    assert steps.count("close") == steps.count("open") - run.notes.get("workers", 0)
