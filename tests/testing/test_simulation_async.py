"""Async workers in simulated runs, and in test runs."""

from __future__ import annotations

import asyncio

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
