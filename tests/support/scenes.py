"""A distributor with a collector and workers played by hand: the scenes of test_distributor and test_dispatch."""

from __future__ import annotations

import random

from tests.support.bench import TROUBLE, Bench, Stranger
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import numbers_of, spans_of
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.distributor import DistributorMachine

Task = TaskSpec


class Hand(Stranger):
    """A worker played by hand: it takes what it is given and holds it until it is told to drop it."""

    def __init__(self, scene: Scene, task: str = "A", *, slots: int = 1, who: bytes | None = None) -> None:
        super().__init__(scene.bench, "workers", b"route-%d" % len(scene.hands), who)
        scene.hands.append(self)
        self.task, self.slots = task, slots

    def report(
        self,
        window: int = 1,
        backlog: int = 0,
        *,
        run: str = "run",
        held: m.Spans | None = None,
        done: m.Spans | None = None,
        draining: bool = False,
        service_time: float = 0.0,
    ) -> list[c.Command]:
        """Say how this worker stands."""
        host = f"host{self.peer[1]!r}"
        return self.says(
            m.WorkerReport(
                run, self.task, self.slots, window, backlog, draining, held, done, host, 0, service_time=service_time
            )
        )

    def fails(self, *numbers: int, attempt: int = 1) -> list[c.Command]:
        """Say that user code raised for these."""
        items = [m.FailedItem(self.task, number, attempt, "worker", TROUBLE, b"") for number in numbers]
        return self.says(m.ItemsFailed("run", items))

    def is_lost(self) -> list[c.Command]:
        """Its connection is found to be gone."""
        return self.bench.tell(e.PeerLost(self.peer))

    def given(self) -> list[int]:
        """The numbers in the last Work for it."""
        return [number for work in self.was_told(m.Work) for number in numbers_of(work.spans)]

    def released(self) -> list[int]:
        """What it was told to drop by the last messages."""
        found = [numbers_of(one.released) for one in (*self.was_told(m.Work), *self.was_told(m.Settled))]
        return sorted(number for numbers in found for number in numbers)


class Scene:
    """A distributor of these tasks; `running` brings it to where it hands out items."""

    def __init__(
        self,
        *tasks: Task,
        metadata: str = "none",
        running: bool = True,
        options: Options | None = None,
        supervised: str = "",
    ) -> None:
        self.machine = DistributorMachine(
            "pipe",
            tasks or [Task("A")],
            incarnation=b"distributor",
            run="run",
            options=options,
            rng=random.Random(1),
            metadata=metadata,
            supervised=supervised,
            command="python -m app",
        )
        self.bench = Bench(self.machine)
        self.collector = Stranger(self.bench, "acks", who=b"collector")
        self.hands: list[Hand] = []
        self.count = 0
        if running:
            self.connect()
            self.holding()
            self.holding("run")

    def connect(self) -> list[c.Command]:
        """The collector is there."""
        return self.bench.tell(e.Connected("acks"))

    def holding(
        self, run: str = "", *progress: m.TaskProgress, finished: bool = False, count: int = 0
    ) -> list[c.Command]:
        """The collector says what it holds."""
        return self.collector.says(m.Holding(run, finished, b"meta" if run else b"", count, list(progress)))

    def worker(self, task: str = "A", *, slots: int = 1, window: int | None = None) -> Hand:
        """A worker that has just joined the run."""
        hand = Hand(self, task, slots=slots)
        hand.report(slots if window is None else window, held=(), done=())
        return hand

    def produce(self, *numbers: int, state: str = "ready", task: str = "A", keys: list[bytes] | None = None) -> None:
        """The source answers with these items."""
        trouble = TROUBLE if state == "failed" else None
        self.bench.tell(e.Produced(task, state, [b"%d" % number for number in numbers], keys, trouble))

    def exhaust(self, *tasks: str) -> None:
        """These sources have no more."""
        for task in tasks:
            self.bench.tell(e.Produced(task, "exhausted"))

    def ack(self, *numbers: int, task: str = "A", failed: m.Spans = (), data: bytes = b"") -> list[c.Command]:
        """The collector acknowledges these."""
        self.count += len(numbers) + len(numbers_of(failed))
        return self.collector.says(m.Ack("run", task, spans_of(numbers), failed, 0, self.count, data))

    def state(self, task: str = "A") -> str:
        """The state of a task."""
        return self.machine.tasks[task].state
