"""A collector machine with a distributor and a worker that are played by hand."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.bench import TROUBLE, Bench, Stranger
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import (
    CollectorMachine,
)
from zmqpipeline.protocol.data.ranges import spans_of


class Scene:
    """A collector, with a distributor and a worker played by hand."""

    def __init__(self, *, begun: bool = True) -> None:
        self.machine = CollectorMachine("pipe", incarnation=b"collector")
        self.bench = Bench(self.machine)
        self.distributor = Stranger(self.bench, "acks", b"d1", who=b"distributor")
        self.worker = Stranger(self.bench, "results", b"w1", who=b"worker")
        if begun:
            self.begin()
            # its credit is told once, and is no part of what follows
            self.worker.says(m.Kept("run", "A", ()))

    def begin(self, *progress: m.TaskProgress, run: str = "run") -> list[c.Command]:
        """The distributor tells its run."""
        return self.distributor.says(m.Begin("pipe", run, b"meta", list(progress)))

    def results(self, *numbers: int, run: str = "run", task: str = "A", attempt: int = 1) -> list[c.Command]:
        """The worker sends these results."""
        return self.worker.says(m.Results(run, task, attempt, spans_of(numbers), [b"r%d" % n for n in sorted(numbers)]))

    def collected(
        self, *numbers: int, failing: Sequence[int] = (), data: bytes = b"", task: str = "A", attempt: int = 1
    ) -> list[c.Command]:
        """The collector's thread is done with these."""
        failures = [(number, TROUBLE, b"r%d" % number) for number in failing]
        return self.bench.tell(e.Collected(task, spans_of(numbers), failures, data, attempt))

    def finish(self, *, ok: bool = True) -> list[c.Command]:
        """The distributor says that every item is acknowledged."""
        return self.distributor.says(m.Finish("run", ok, [m.TaskCounts("A", "complete", sent=2)]))


def given_up(*numbers: int, task: str = "A") -> list[m.FailedItem]:
    """Items that the distributor has given up."""
    return [m.FailedItem(task, number, 3, "worker", TROUBLE, b"%d" % number) for number in numbers]
