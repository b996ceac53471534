"""A sample of the chaos: one seed a fault. The command runs as many as one likes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.chaos.faults import FAULTS
from tests.acceptance.chaos.runner import run

pytestmark = [pytest.mark.processes, pytest.mark.slow]

SEED = 1
"""With this one something is done in every run of the sample."""

WORK_SECONDS = 0.4
"""The tasks of the sample are shorter than those of the command."""

AT_ONCE = 4
"""So many runs go on at a time: most of one is waiting."""

GROUPS = [list(FAULTS)[at : at + AT_ONCE] for at in range(0, len(FAULTS), AT_ONCE)]


@pytest.mark.parametrize("names", GROUPS, ids=", ".join)
def test_nothing_is_lost_collected_twice_or_hung(names: list[str]) -> None:
    """Real processes, in which one of these faults strikes at a random moment, keep all that is promised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda name: run(SEED, name, work=WORK_SECONDS), names))
    for result in results:
        assert not result.problems, f"{result.line}\n{result.hits}\n{result.last_words}"
        # a worker that runs out of memory may survive it: then its item failed, and nobody was hit
        assert result.hits or result.verdict.failed, f"nothing was done to this run: {result.line}"
