"""A sample of the chaos: one seed a fault. The command runs as many as one likes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.acceptance.chaos.faults import FAULTS
from tests.acceptance.chaos.runner import Result, run

pytestmark = pytest.mark.processes

SEED = 1
"""With this one something is done in every run of the sample."""

WORK_SECONDS = 0.4
"""The tasks of the sample are shorter than those of the command."""

AT_ONCE = 4
"""So many runs go on at a time: most of one is waiting."""


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Result]]]:
    """The runs of those faults that were selected, under way."""
    items = [item for item in request.session.items if item.path == request.path]
    names = [item.callspec.params["name"] for item in items if isinstance(item, pytest.Function)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(run, SEED, name, work=WORK_SECONDS) for name in names}


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_lost_collected_twice_or_hung(name: str, runs: dict[str, Future[Result]]) -> None:
    """Real processes, in which this fault strikes at a random moment, keep all that is promised."""
    result = runs[name].result()
    assert not result.problems, f"{result.line}\n{result.hits}\n{result.last_words}"
    # a worker that runs out of memory may survive it: then its item failed, and nobody was hit
    assert result.hits or result.verdict.failed, "nothing was done to this run"
