"""What observers are told of whole runs, through trouble: the sums are those of the machines."""

from __future__ import annotations

import pytest

from tests.observing import ObservedWorld

SAMPLE = 120


@pytest.mark.parametrize(
    "first", [pytest.param(first, marks=[pytest.mark.slow] if first else []) for first in range(0, SAMPLE, 20)]
)
def test_the_sums_of_events_are_those_of_the_machines(first: int) -> None:
    """In each life of each process, whatever strikes."""
    for seed in range(first, first + 20):
        world = ObservedWorld(seed)
        world.run()
        world.judge_lives()
