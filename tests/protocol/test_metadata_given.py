"""The distributor's side of metadata that come from another process."""

from __future__ import annotations

from tests.support.bench import Stranger
from tests.support.scenes import Scene
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m


def test_a_metadata_worker_that_is_gone_is_not_answered() -> None:
    """Nobody is told that metadata are taken on a connection that is lost."""
    scene = Scene(running=False, metadata="remote")
    sender = Stranger(scene.bench, "metadata", b"m")
    sender.says(m.Metadata(b"meta"))
    scene.bench.tell(e.PeerLost(sender.peer))
    scene.connect()
    scene.holding()
    scene.holding("run")
    assert scene.bench.said(m.MetadataTaken) == []


def test_metadata_that_are_said_each_second_are_opened_once() -> None:
    """While no collector has the run, the same comes again and again."""
    scene = Scene(running=False, metadata="remote")
    opened = []
    scene.machine._giving._is_dict = lambda packed: bool(opened.append(packed)) or True
    sender = Stranger(scene.bench, "metadata", b"m")
    for _ in range(5):
        sender.says(m.Metadata(b"meta"))
    assert opened == [b"meta"]
