"""The policy of `run`: what the end of a process means, without one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from zmqpipeline.runtime.crew import Crew, Place
from zmqpipeline.supervisor import IDLE_DEATHS_LIMIT, Plan, RunSupervisor


class Numbers:
    """What a collector's machine would show: so many items collected and failed."""

    def __init__(self) -> None:
        self.collected = self.failed = 0

    def snapshot(self) -> Any:
        """The counts of the only task."""
        return SimpleNamespace(tasks={"C": (self.collected, self.failed)})


def test_failed_items_do_not_hide_that_workers_keep_dying() -> None:
    """A worker that dies as it starts gives up items at their crash limit; only a collected one proves it well."""
    numbers = Numbers()
    collector = cast(Any, SimpleNamespace(machine=numbers, counts=[]))
    plan = Plan("p", collector, Place("distributor", []), [], {"C": None}, drain_timeout=1.0)
    supervisor = RunSupervisor(plan, Crew())
    verdicts = []
    for _ in range(IDLE_DEATHS_LIMIT - 1):
        numbers.failed += 1
        verdicts.append(supervisor._kept_dying())
    numbers.collected += 1
    verdicts.append(supervisor._kept_dying())
    assert not any(verdicts)
    for _ in range(IDLE_DEATHS_LIMIT - 2):
        assert not supervisor._kept_dying()
    assert supervisor._kept_dying()
