"""What is done, in parts: however many ranges it has, each message can be sent, and nothing of it is lost."""

from __future__ import annotations

import pytest

from tests.support.bench import Bench, Stranger
from tests.support.scenes import Scene
from zmqpipeline.errors import WireError
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collector import CollectorMachine
from zmqpipeline.protocol.delivery.parts import in_parts

MANY = tuple(end for at in range(250_000) for end in (at << 33, (at << 33) + 1))
"""More ranges than one message tells."""
ALL = m.TaskProgress("A", MANY[:300_000], MANY[300_000:])


def sent(bench: Bench) -> list[m.Message]:
    """The last messages, each of which must have been one that can be sent."""
    found = [one.envelope for one in bench.of(c.Send)]
    for envelope in found:
        codec.encode(envelope)
    return [envelope.body for envelope in found]


def collector() -> tuple[Bench, Stranger]:
    """A collector and a distributor that it has not heard."""
    bench = Bench(CollectorMachine("pipe", incarnation=b"collector"))
    return bench, Stranger(bench, "acks", b"d", who=b"distributor")


@pytest.mark.slow
def test_a_collector_tells_millions_of_ranges_and_a_distributor_takes_them_over() -> None:
    """Each part fits into a message; a distributor that has missed one asks again, and begins with all of it."""
    bench, distributor = collector()
    bench.tell(e.Restored("run", b"", [ALL]))
    distributor.says(m.Propose("pipe", "other"))
    *parts, holding = sent(bench)
    assert len(parts) == 3
    scene = Scene(running=False)
    scene.connect()
    for part in parts[1:]:
        scene.collector.says(part)
    scene.collector.says(holding)
    assert scene.machine.phase == "greeting", "one part was lost on the way"
    scene.collector.says(parts[0])
    scene.collector.says(holding)
    assert scene.machine.phase == "beginning"
    assert sent(scene.bench)
    ledger = scene.machine.tasks["A"].ledger
    assert (ledger.collected.spans(), ledger.failed.spans()) == (ALL.collected, ALL.failed)


@pytest.mark.slow
def test_a_new_collector_is_told_millions_of_ranges() -> None:
    """The distributor says how much is done; one that holds nothing of it says so, and is told all of it in parts."""
    scene = Scene(running=False)
    scene.connect()
    scene.holding("run", ALL)
    scene.holding("run", ALL)
    scene.worker()
    scene.bench.tell(e.Produced("A", "ready", [b"1"], over=1))
    scene.collector = Stranger(scene.bench, "acks", who=b"another")
    scene.bench.tell(e.Connected("acks"))
    bench, distributor = collector()
    (begin,) = sent(scene.bench)
    distributor.says(begin)
    (nothing,) = sent(bench)
    scene.collector.says(nothing)
    *parts, begin = sent(scene.bench)
    for part in (*parts[1:], begin):
        distributor.says(part)
    assert bench.machine.phase == "empty", "one part was lost on the way"
    for part in (parts[0], begin):
        distributor.says(part)
    assert bench.machine.phase == "active"
    (run,) = bench.of(c.SetRun)
    assert run.progress == [ALL], "the journal is told all of it, too"
    assert isinstance(sent(bench)[-1], m.Holding)


@pytest.mark.slow
def test_no_part_is_more_than_a_message_may_have() -> None:
    """All ranges of a run in one message were an error that ended the distributor; a part has a tenth of the bound."""
    many = tuple(end for at in range(1_700_000) for end in (at << 33, (at << 33) + 1))
    progress, parts = in_parts("run", [m.TaskProgress("A", many, ())])
    assert len(parts) == 17
    for body in (parts[-1], m.Holding("run", False, b"", 0, progress)):
        codec.encode(m.Envelope(b"c", b"d", 1, 1, body))
    with pytest.raises(WireError, match="bytes of fields"):
        codec.encode(m.Envelope(b"c", b"d", 1, 1, m.Holding("run", False, b"", 0, [m.TaskProgress("A", many, ())])))


def test_parts_that_are_told_again_are_not_gone_through_again() -> None:
    """Each answer to a repeated question says all of it: what was heard is known by its hash."""
    scene = Scene()
    part = m.Ranges("run", "A", (0, 1), ())
    assert scene.machine._parts.is_news(part)
    assert not scene.machine._parts.is_news(m.Ranges("run", "A", (0, 1), ()))
    assert scene.machine._parts.is_news(m.Ranges("run", "A", (0, 2), ()))
