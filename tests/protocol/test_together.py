"""The machines joined to one another: what each says is what the others understand, message by message."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from tests.support.bench import TROUBLE, Bench, Joint, Wires
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.data.ranges import numbers_of, size
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.distributor import DistributorMachine
from zmqpipeline.protocol.metadata import MetadataMachine
from zmqpipeline.protocol.worker import WorkerMachine


class Pipeline:
    """Four roles on wires; sources, functions and the collector's calls are played by `go_on`."""

    def __init__(self, items: int, failing: Sequence[int] = ()) -> None:
        self.items, self.failing = items, set(failing)
        machine = DistributorMachine(
            "pipe", [TaskSpec("A")], incarnation=b"d", run="run", rng=random.Random(1), metadata="remote"
        )
        self.distributor = Bench(machine)
        self.collector = Bench(CollectorMachine("pipe", incarnation=b"c"))
        self.worker = Bench(WorkerMachine("A", slots=2, incarnation=b"w"))
        self.metadata = Bench(MetadataMachine(b"meta", incarnation=b"m"))
        self.joints = {
            "acks": Joint(self.distributor, "acks", self.collector, "acks", b"d"),
            "metadata": Joint(self.metadata, "metadata", self.distributor, "metadata", b"m"),
            "results": Joint(self.worker, "results", self.collector, "results", b"w"),
            "workers": Joint(self.worker, "workers", self.distributor, "workers", b"w"),
        }
        self.wires = Wires(list(self.joints.values()))
        self.collected: list[bytes] = []
        self.told: list[m.FailedItem] = []
        self.yielded = 0

    def connect(self, *hops: str) -> None:
        """These connections are made, in this order."""
        for hop in hops:
            self.wires.tell(self.joints[hop].client, e.Connected(hop))
            self.go_on()

    def go_on(self) -> None:
        """Carry out commands until there are no more."""
        while self.wires.rest:
            bench, command = self.wires.rest.pop(0)
            event = self.answer(command)
            if event is not None:
                self.wires.tell(bench, event)

    def answer(self, command: c.Command) -> e.Event | None:
        """What the outside of a machine says to a command."""
        match command:
            case c.Produce(task, count):
                numbers = range(self.yielded, min(self.items, self.yielded + count))
                self.yielded = numbers.stop
                state = "ready" if len(numbers) == count else "exhausted"
                return e.Produced(task, state, [b"%d" % number for number in numbers])
            case c.Execute(_, attempt, _, numbers, payloads):
                good = [(n, b"r" + one) for n, one in zip(numbers, payloads, strict=True) if n not in self.failing]
                bad = [(number, TROUBLE) for number in numbers if number in self.failing]
                return e.Executed(attempt, [n for n, _ in good], [one for _, one in good], bad, 1e-5)
            case c.Collect(task, attempt, spans, payloads):
                self.collected += payloads
                assert len(payloads) == size(spans)
                return e.Collected(task, spans, [], b"", attempt)
            case c.CallFailed(failures):
                self.told += failures
                return e.FailedCalled("A", tuple(n for item in failures for n in (item.number, item.number + 1)))
            case c.CallFinished():
                return e.FinishedCalled()
        return None

    def ended(self) -> list[int | None]:
        """The exit status of each role, None where it goes on."""
        benches = (self.distributor, self.collector, self.worker, self.metadata)
        return [bench.ended.status if bench.ended else None for bench in benches]


@pytest.mark.parametrize("seed", range(12))
def test_a_run_goes_through_in_any_start_order(seed: int) -> None:
    """Whoever comes first waits for the others; every item is collected once, in order; all four end with status 0."""
    pipeline = Pipeline(items=500)
    hops = list(pipeline.joints)
    random.Random(seed).shuffle(hops)
    pipeline.connect(*hops)
    for _ in range(5):
        for bench in (pipeline.worker, pipeline.distributor):
            bench.now += 1.0
            pipeline.wires.tell(bench, e.Tick())
            pipeline.go_on()
    assert pipeline.collected == [b"r%d" % number for number in range(500)]
    assert pipeline.ended() == [0, 0, 0, 0]
    assert pipeline.collector.machine.metadata == b"meta"


def test_failed_items_are_told_once_and_make_the_status_1() -> None:
    """The others are collected; distributor and collector end with status 1, the worker with 0."""
    pipeline = Pipeline(items=20, failing=[3, 7])
    pipeline.connect("acks", "metadata", "results", "workers")
    assert sorted(item.number for item in pipeline.told) == [3, 7]
    assert len(pipeline.collected) == 18
    assert pipeline.ended() == [1, 1, 0, 0]
    (counts,) = pipeline.collector.machine.counts
    assert (counts.sent, counts.collected, counts.failed) == (20, 18, 2)
    assert numbers_of(pipeline.distributor.machine.tasks["A"].ledger.failed.spans()) == [3, 7]
