"""A worker machine with its distributor and its collector played by the test."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.bench import TROUBLE, Bench, Stranger
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import spans_of
from zmqpipeline.protocol.worker import WorkerMachine


class Scene:
    """A worker, a distributor and a collector played by hand."""

    def __init__(
        self,
        *,
        slots: int = 1,
        welcomed: bool = True,
        options: Options | None = None,
        max_items: int | None = None,
        has_inits: bool = False,
    ) -> None:
        machine = WorkerMachine(
            "A",
            slots=slots,
            incarnation=b"worker",
            host="box",
            pid=7,
            options=options,
            max_items=max_items,
            has_inits=has_inits,
        )
        self.bench = Bench(machine)
        self.machine = machine
        self.distributor = Stranger(self.bench, "workers", who=b"distributor")
        self.collector = Stranger(self.bench, "results", who=b"collector")
        if welcomed:
            self.connect()
            self.distributor.says(m.Welcome("run", b"meta"))

    def connect(self) -> None:
        """Both connections are up."""
        self.bench.tell(e.Connected("workers"))
        self.bench.tell(e.Connected("results"))

    def work(self, *numbers: int, attempt: int = 1, run: str = "run", released: m.Spans = ()) -> list[c.Command]:
        """The distributor gives these items."""
        payloads = [b"%d" % number for number in sorted(numbers)]
        return self.distributor.says(m.Work(run, "A", attempt, 0.0, spans_of(numbers), released, payloads))

    def execute(
        self, *numbers: int, failing: Sequence[int] = (), attempt: int = 1, seconds: float = 1.0
    ) -> list[c.Command]:
        """A thread is done with these."""
        failures = [(number, TROUBLE) for number in failing]
        results = [b"r%d" % number for number in numbers]
        return self.bench.tell(e.Executed(attempt, list(numbers), results, failures, seconds))

    def settle(self, *numbers: int) -> list[c.Command]:
        """The distributor releases these."""
        return self.distributor.says(m.Settled("run", "A", spans_of(numbers)))

    def report(self) -> m.WorkerReport:
        """The one report among the last messages."""
        return self.bench.said_one(m.WorkerReport)
