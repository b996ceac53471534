"""The metadata worker's machine: it says its dict until a distributor has it."""

from __future__ import annotations

from tests.support.bench import Bench, Stranger
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.metadata import MetadataMachine


def scene() -> tuple[Bench, Stranger]:
    """A metadata worker and a distributor."""
    bench = Bench(MetadataMachine(b"meta", incarnation=b"metadata"))
    return bench, Stranger(bench, "metadata", who=b"distributor")


def test_it_speaks_when_it_is_connected_and_each_second_until_it_is_answered() -> None:
    """A lost message is followed by another."""
    bench, _ = scene()
    assert bench.wait(9.0) == []
    bench.tell(e.Connected("metadata"))
    assert bench.said_one(m.Metadata).payload == b"meta"
    bench.wait(3.5)
    assert len(bench.said(m.Metadata)) == 3


def test_it_ends_when_it_is_taken() -> None:
    """MetadataTaken is the end, with status 0; after it nothing is said or waited for."""
    bench, distributor = scene()
    bench.tell(e.Connected("metadata"))
    distributor.says(m.MetadataTaken())
    assert bench.one(c.Ended).status == 0
    assert bench.machine.snapshot() is True
    assert bench.wait(10.0) == []
    assert bench.machine.next_deadline() is None
    assert distributor.says(m.MetadataTaken()) == []


def test_a_broken_connection_is_waited_for() -> None:
    """Without a connection it says nothing to anybody; with the next one it speaks at once."""
    bench, _ = scene()
    bench.tell(e.Connected("metadata"))
    bench.tell(e.Disconnected("metadata"))
    bench.wait(10.0)
    assert bench.said(m.Metadata) == []
    bench.tell(e.Connected("metadata"))
    assert bench.said(m.Metadata)


def test_a_drain_ends_it() -> None:
    """SIGTERM before any distributor came: status 0."""
    bench, _ = scene()
    bench.tell(e.Drain(5.0))
    assert bench.one(c.Ended).status == 0


def test_another_message_is_not_an_answer() -> None:
    """Only MetadataTaken is; a probe is not."""
    bench, distributor = scene()
    bench.tell(e.Connected("metadata"))
    distributor.says(m.Refused("no"))
    bench.tell(e.Received(("metadata", b""), m.Envelope(b"distributor", b"", 0, 0, m.Probe())))
    assert bench.ended is None


def test_it_says_who_it_waits_for() -> None:
    """After ten seconds without a distributor, then each minute; not while one is there."""
    bench, _ = scene()
    bench.wait(135.0)
    told = [one.text for one in bench.of(c.Log)]
    assert len(told) == 3
    assert told[0].startswith("Waiting for a distributor to connect to")
    bench.tell(e.Connected("metadata"))
    bench.wait(135.0)
    assert bench.of(c.Log) == []


def test_it_ends_when_nobody_comes() -> None:
    """With `exit_when_idle` it ends with 75 after so many seconds without a distributor, and not beside one."""
    bench = Bench(MetadataMachine(b"meta", incarnation=b"metadata", exit_when_idle=3.0))
    bench.tell(e.Tick())
    bench.wait(2.0)
    bench.tell(e.Connected("metadata"))
    bench.wait(20.0)
    assert bench.of(c.Ended) == []
    bench.tell(e.Disconnected("metadata"))
    bench.wait(2.9)
    assert bench.of(c.Ended) == []
    bench.wait(0.2)
    ended = bench.one(c.Ended)
    assert (ended.status, ended.reason) == (75, "No distributor was there for 3 s (exit_when_idle).")
    assert bench.machine.next_deadline() is None
