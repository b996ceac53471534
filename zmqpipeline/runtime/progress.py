"""How far a run is: numbers read from the collector's machine, for the progress line and the summary. Draws nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.messages import TaskCounts


@dataclass(frozen=True)
class Progress:
    """The items of all tasks that are done. `seconds` is how long the run has taken so far."""

    counts: list[TaskCounts] = field(default_factory=list)
    total: int | None = None
    """How many items there will be, if every task says so."""
    seconds: float = 0.0
    inherited: int = 0
    """How many items were done before, by processes that are gone."""
    inherited_failed: int = 0
    """How many of those had failed."""
    totals: Mapping[str, int | None] = field(default_factory=dict)
    """How many items each task announces, None where it does not say."""
    workers: int = 0
    """How many worker processes there are."""

    @property
    def done(self) -> int:
        """Items collected or failed."""
        return sum(one.collected + one.failed for one in self.counts)

    @property
    def collected(self) -> int:
        """Items collected."""
        return sum(one.collected for one in self.counts)

    @property
    def failed(self) -> int:
        """Items given up."""
        return sum(one.failed for one in self.counts)

    @property
    def rate(self) -> float:
        """Items done a second since the run began, or went on."""
        return (self.done - self.inherited) / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done}{of} items done{failed}, {self.rate:.0f} a second"


def read_progress(machine: Any, totals: Mapping[str, int | None], seconds: float, workers: int = 0) -> Progress:
    """What a collector's machine (None before it runs) has now; `totals` are the items that each task announces."""
    tasks = {} if machine is None else machine.snapshot().tasks
    counts = [
        TaskCounts(task, "open", sent=collected + failed, collected=collected, failed=failed)
        for task, (collected, failed) in tasks.items()
    ]
    known = [total for total in totals.values() if total is not None]
    inherited, failed = (0, 0) if machine is None else (machine.inherited, machine.inherited_failed)
    total = sum(known) if len(known) == len(totals) else None
    return Progress(counts, total, seconds, inherited, failed, totals, workers)
