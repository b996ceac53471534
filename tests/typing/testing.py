"""The fixtures, the simulation and the client are typed: read by type checkers, never run."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from typing import Any

from typing_extensions import assert_type

from zmqpipeline import Pipeline, ServiceClient
from zmqpipeline.pytest_plugin import RunPipeline, ServiceClientOf
from zmqpipeline.testing import Failure, SimulatedPipeline, TestRun, serving

app = Pipeline("typed")


def test_run(run_pipeline: RunPipeline) -> None:
    """A fixture in a user's test."""
    run = run_pipeline(app, workers=2, raise_failures=False)
    assert_type(run, TestRun)
    assert_type(run.results, list[tuple[str, dict[str, Any]]])
    assert_type(run.failures, list[Failure])


def test_service(service_client: ServiceClientOf) -> None:
    """The other one."""
    client = service_client(app, "upper")
    assert_type(client, ServiceClient)
    assert_type(client.submit({"text": "a"}), Future[Any])
    with serving(app, "upper", workers=2) as other:
        assert_type(other, ServiceClient)


def test_simulation() -> None:
    """A seed of an app."""
    run = SimulatedPipeline(app, seed=17, workers={"C": 2}, faults=["workers"]).run()
    assert_type(run.seed, int)
    assert_type(run.executions, Counter[tuple[str, int]])
    assert_type([one.what for one in run.faults], list[str])
