"""What observers are told of whole runs, through trouble: the sums are those of the machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.observing import ObservedWorld
from zmqpipeline.protocol import observed
from zmqpipeline.protocol.observed import ObservedCollector, ObservedDistributor

SAMPLE = 40


def judge(first: int, end: int) -> None:
    """Run these seeds, and hold what was told against what happened."""
    for seed in range(first, end):
        world = ObservedWorld(seed)
        world.run()
        world.judge_lives()


@pytest.mark.parametrize(
    "first", [pytest.param(first, marks=[pytest.mark.slow] if first else []) for first in range(0, SAMPLE, 10)]
)
def test_the_sums_of_events_are_those_of_the_machines(first: int) -> None:
    """In each life of each process, whatever strikes."""
    judge(first, first + 10)


def only_handled(self: ObservedDistributor, event: Any, now: float, *rest: Any) -> Any:
    """Look away."""
    return self._machine.handle(event, now)


BROKEN: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "repeats-told": (observed, "_undone", lambda ledger, spans: spans),
    "retries-unheard": (ObservedDistributor, "_raised", only_handled),
    "losses-unheard": (ObservedDistributor, "_left", lambda *rest: None),
    "acks-unheard": (ObservedDistributor, "_done", only_handled),
    "failures-unheard": (ObservedCollector, "_failed", lambda *rest: None),
    "tasks-never-over": (ObservedDistributor, "_ended", lambda *rest: None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_on_purpose_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one of the first seeds."""
    monkeypatch.setattr(*BROKEN[name])
    with pytest.raises(AssertionError):
        judge(0, 6)
