"""A web application of FastAPI that asks a service: all are answered, though a worker is killed."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

REQUESTS = 1000


async def ask_all(web: Any, kill: int) -> list[httpx.Response]:
    """All of them at once; this process is killed when a fifth is answered."""
    transport = httpx.ASGITransport(app=web)
    answered: list[httpx.Response] = []
    async with (
        web.router.lifespan_context(web),
        httpx.AsyncClient(transport=transport, base_url="http://web", timeout=60) as client,
    ):

        async def ask(n: int) -> httpx.Response:
            answer = await client.get(f"/price/item-{n}")
            answered.append(answer)
            if len(answered) == REQUESTS // 5:
                os.kill(kill, signal.SIGKILL)
            return answer

        return await asyncio.gather(*(ask(n) for n in range(REQUESTS)))


def test_all_requests_are_answered_though_a_worker_is_killed(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000 at once, through the example's 20 lines, to two workers."""
    folder = f"ipc://{tmp_path}/prices"
    monkeypatch.setenv("ZMQPIPELINE_ENDPOINT", folder)
    command = ("-m", "examples.fastapi_app.app")
    broker = workshop.start(*command, "service", ZMQPIPELINE_ENDPOINT=folder)
    workers = [workshop.start(*command, "service-worker", "price", ZMQPIPELINE_ENDPOINT=folder) for _ in range(2)]
    web = importlib.import_module("examples.fastapi_app.web").web
    answers = asyncio.run(ask_all(web, workers[0].pid))
    assert [one.status_code for one in answers] == [200] * REQUESTS
    assert [one.json() for one in answers] == [
        {"item": f"item-{n}", "cents": 25 * len(f"item-{n}")} for n in range(REQUESTS)
    ]
    assert workers[0].wait() == -signal.SIGKILL
    broker.signal(signal.SIGTERM)
    assert [broker.wait(), workers[1].wait()] == [128 + signal.SIGTERM, 0]
