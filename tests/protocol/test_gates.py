"""A gate is asked with each ACK, in order, with its own data: what is remembered, told again, and dropped."""

from __future__ import annotations

import pytest

from tests.support.bench import Bench, Stranger
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.delivery import gates
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.gates import AckLog, Hearing, in_messages
from zmqpipeline.protocol.distributor import DistributorMachine


def note(first: int, last: int | None = None, data: bytes = b"", task: str = "A") -> m.AckNote:
    """What one ACK carried, or several."""
    return m.AckNote(task, first, first if last is None else last, data)


def collector(*, gated: bool = True) -> tuple[Bench, Stranger, Stranger]:
    """A collector of the run ``run``, its distributor and a worker."""
    bench = Bench(CollectorMachine("", incarnation=b"c"))
    distributor, worker = Stranger(bench, "acks", b"1", b"d"), Stranger(bench, "results", b"2", b"w")
    distributor.says(m.Begin("", "run", b"", [m.TaskProgress("A", (), ())], gated=gated))
    return bench, distributor, worker


class Scene:
    """A distributor of task A, which has a gate, with a worker of ten; its collector is played by hand."""

    def __init__(self) -> None:
        self.bench = Bench(DistributorMachine("", [TaskSpec("A", has_gate=True)], incarnation=b"d", run="run"))
        self.bench.tell(e.Connected("acks"))
        self.collector = Stranger(self.bench, "acks", who=b"c")
        self.collector.says(m.Holding("", False, b"", 0, []))
        self.begin = self.bench.said_one(m.Begin)
        self.collector.says(m.Holding("run", False, b"", 0, []))
        worker = Stranger(self.bench, "workers", b"1")
        worker.says(m.WorkerReport("run", "A", 10, 10, 0, False, (), (), "box", 1))
        self.produce(5, "gated")

    def produce(self, count: int, state: str) -> None:
        """The source gives so many items."""
        self.bench.tell(e.Produced("A", state, [b"x"] * count))

    def acks(self, spans: m.Spans, *notes: m.AckNote, kept_from: int = 1) -> None:
        """These items are collected."""
        newest = notes[-1].last if notes else 0
        self.collector.says(m.Ack("run", "A", spans, (), 0, newest, b"", notes=list(notes), kept_from=kept_from))

    def asked(self) -> list[m.AckNote]:
        """What the source was asked with last."""
        return self.bench.one(c.Produce).acks


def test_neighbours_with_the_same_data_are_one() -> None:
    """A million ACKs that carry nothing cost one note; each comes out by itself."""
    log = AckLog()
    for number in range(1, 1001):
        log.add(note(number))
    log.add(note(1001, data=b"x"))
    log.add(note(1002, data=b"x", task="B"))
    assert log.after(0) == [note(1, 1000), note(1001, data=b"x"), note(1002, data=b"x", task="B")]
    assert log.after(999) == [note(1000), note(1001, data=b"x"), note(1002, data=b"x", task="B")]
    assert [log.next() for _ in range(2)] == [note(1), note(2)]
    assert log.oldest == 3


@pytest.mark.parametrize(("size", "kept"), [(1, gates.MAX_NOTES), (256 * 1024, gates.MAX_BYTES // (256 * 1024))])
def test_what_is_remembered_is_bounded(size: int, kept: int) -> None:
    """In number and in bytes: the oldest are dropped, and counted."""
    log = AckLog()
    for number in range(1, 6001 if size == 1 else 101):
        log.add(note(number, data=bytes([number % 256]) * size))
    assert len(log.after(0)) == kept
    assert log.oldest - 1 == log.dropped == number - kept
    taken = log.take()
    assert (len(taken), bool(log)) == (kept, False)


def test_many_notes_travel_in_several_messages() -> None:
    """Bounded in number and bytes; nothing is one part, too."""
    assert list(in_messages([])) == [[]]
    assert [len(part) for part in in_messages(note(n, data=b"%d" % n) for n in range(2500))] == [1000, 1000, 500]
    large = [note(n, data=b"%d" % n * 200_000) for n in range(1, 7)]
    assert [len(part) for part in in_messages(large)] == [5, 1]


def test_the_collector_tells_of_each_ack_if_there_is_a_gate() -> None:
    """It asks its thread for the data of each; those of a part and of what failed go along, with their numbers."""
    bench, distributor, worker = collector()
    worker.says(m.Results("run", "A", 1, (0, 4), [b"r"] * 4))
    assert bench.one(c.Collect).each
    trouble = m.ErrorInfo("KeyError", "no")
    bench.tell(e.Collected("A", (0, 3), [(3, trouble, b"r")], b"c", 1, None, [(2, b"ab"), (1, b"c")]))
    (ack,) = distributor.was_told(m.Ack)
    assert (ack.notes, ack.count, ack.kept_from) == ([note(1, 2, b"ab"), note(3, data=b"c")], 3, 1)
    bench.tell(e.FailedCalled("A", (3, 4)))
    (ack,) = distributor.was_told(m.Ack)
    assert (ack.notes, ack.failed) == ([note(4)], (3, 4))


def test_without_a_gate_nothing_is_told_or_asked_for() -> None:
    """An ACK is as short as it was."""
    bench, distributor, worker = collector(gated=False)
    worker.says(m.Results("run", "A", 1, (0, 2), [b"r"] * 2))
    assert not bench.one(c.Collect).each
    bench.tell(e.Collected("A", (0, 2), [], b"x"))
    (ack,) = distributor.was_told(m.Ack)
    assert (ack.notes, ack.kept_from, ack.data) == ([], 0, b"x")


def test_the_collector_tells_again_what_was_not_heard() -> None:
    """Before the Holding: whoever takes that for the newest word has heard all."""
    bench, distributor, worker = collector()
    worker.says(m.Results("run", "A", 1, (0, 3), [b"r"] * 3))
    bench.tell(e.Collected("A", (0, 3), [], b"3", 1, None, [(1, b"1"), (1, b"2"), (1, b"3")]))
    begin = m.Begin("", "run", b"", [m.TaskProgress("A", (), ())], gated=True, ack_id=1)
    distributor.says(begin)
    ack, holding = (one.envelope.body for one in bench.of(c.Send))
    assert isinstance(ack, m.Ack)
    assert (ack.notes, ack.collected) == ([note(2, data=b"2"), note(3, data=b"3")], ())
    assert isinstance(holding, m.Holding)
    assert (holding.count, holding.kept_from) == (3, 1)


def test_a_collector_that_is_started_anew_tells_of_the_last_one() -> None:
    """The distributor, or its journal, has told it; of the others nobody knows."""
    bench = Bench(CollectorMachine("", incarnation=b"c"))
    distributor = Stranger(bench, "acks", b"1", b"d")
    distributor.says(m.Begin("", "run", b"", [m.TaskProgress("A", (0, 7), ())], "A", b"seven", True, 3))
    (ack,) = distributor.was_told(m.Ack)
    assert (ack.notes, ack.kept_from) == ([note(7, data=b"seven")], 7)


def test_a_closed_gate_gets_each_ack() -> None:
    """Those that come together, in one message; and those that come while it is being asked."""
    scene = Scene()
    assert scene.begin.gated
    scene.acks((0, 3), note(1, data=b"1"), note(2, data=b"2"), note(3, data=b"3"))
    assert scene.asked() == [note(1, data=b"1"), note(2, data=b"2"), note(3, data=b"3")]
    scene.acks((3, 4), note(4))
    assert scene.bench.of(c.Produce) == []
    scene.produce(0, "gated")
    assert scene.asked() == [note(4)]


def test_a_gap_is_asked_for_and_no_gate_is_closed_for_good_meanwhile() -> None:
    """The ACKs of numbers 1 and 2 were lost, and their items are known to be done by another message."""
    scene = Scene()
    scene.collector.loses(m.Probe())
    scene.acks((0, 5), note(3, 5))
    begin = scene.bench.said(m.Begin)[0]
    assert (begin.ack_id, scene.bench.of(c.Produce)) == (0, [])
    assert scene.bench.machine.tasks["A"].state == "open"
    scene.collector.says(m.Ack("run", "", (), (), 0, 5, b"", notes=[note(1, 5)], kept_from=1))
    assert scene.asked() == [note(1, 5)]
    scene.produce(0, "gated")
    assert scene.bench.machine.tasks["A"].state == "failed"


def test_it_is_asked_for_again_until_it_is_told() -> None:
    """The answer may be lost, too."""
    scene = Scene()
    scene.acks((0, 5), note(3, 5))
    scene.bench.wait(1.1)
    assert scene.bench.said(m.Begin) != []


def test_what_nobody_remembers_is_not_waited_for() -> None:
    """The collector remembers those from 3 on only."""
    scene = Scene()
    scene.acks((0, 5), note(3, 5), kept_from=3)
    assert scene.asked() == [note(3, 5)]


def test_a_holding_alone_does_not_leap_over_what_is_remembered() -> None:
    """It may come although the ACKs before it were lost."""
    scene = Scene()
    told = m.Holding("run", False, b"", 2, [m.TaskProgress("A", (0, 2), ())], "A", b"2", kept_from=1)
    scene.collector.says(told)
    assert scene.bench.of(c.Produce) == []
    scene.bench.wait(1.1)
    assert scene.bench.said(m.Begin)[0].ack_id == 0


def test_an_ack_that_comes_twice_is_told_once() -> None:
    """It brings nothing that is new."""
    scene = Scene()
    scene.acks((0, 1), note(1, data=b"1"))
    scene.produce(0, "gated")
    scene.acks((0, 1), note(1, data=b"1"))
    assert scene.bench.of(c.Produce) == []


def test_a_collector_that_counts_less_is_heard() -> None:
    """What is done by its ACK is new, whatever the number says."""
    hearing = Hearing()
    assert hearing.hear([note(1, 8)], kept_from=1, newest=8, most=10, news=True) == [note(1, 8)]
    assert hearing.hear([note(1, data=b"n")], kept_from=1, newest=1, most=10, news=True) == [note(9, data=b"n")]
    assert hearing.hear([note(1, data=b"n")], kept_from=1, newest=1, most=10, news=False) == []
    assert not hearing.lacks_any


@pytest.mark.parametrize("lie", [note(1, 1 << 60), note(0, 3), note(5, 4)])
def test_lies_keep_no_gate_busy(lie: m.AckNote) -> None:
    """A note stands for no more ACKs than items are done, and its numbers are in order."""
    assert Hearing().hear([lie], kept_from=1, newest=1, most=5, news=True) == []
