"""Who may say what: each hop carries its own messages, each way, and nothing else."""

from __future__ import annotations

from typing import get_args

import pytest

from zmqpipeline.errors import WireError
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.allowed import TO_BOUND, TO_CONNECTED, allowed_on
from zmqpipeline.protocol.events import Peer


def arrives(peer: Peer, body: m.Message) -> None:
    """Take this in from that peer, as a loop does. Raises WireError if it has no place there."""
    codec.Decoder(Options()).decode(codec.encode(m.Envelope(b"a", b"b", 1, 0, body)), allowed_on(peer))


@pytest.mark.parametrize("kind", get_args(m.Message), ids=lambda kind: kind.__name__)
def test_every_message_has_a_place(kind: type) -> None:
    """None was forgotten, so none is dropped wherever it comes."""
    assert any(kind in told for table in (TO_BOUND, TO_CONNECTED) for told in table.values())


@pytest.mark.parametrize(
    ("hop", "body"),
    [
        ("workers", m.Ack("run", "C", (), (), 0, 1, b"")),
        ("workers/1", m.Metadata(b"")),
        ("workers", m.Requests("upper", False, (0, 1), [b""])),
        ("results", m.Finish("run", True, [])),
        ("results", m.Bye("run")),
        ("clients", m.Goodbye("run", "C")),
        ("clients", m.Results("run", "C", 1, (0, 1), [b""])),
        ("metadata", m.Goodbye("run", "C")),
    ],
)
def test_what_another_role_says_is_not_listened_to(hop: str, body: m.Message) -> None:
    """A worker does not acknowledge or end a run, a client is no worker, nobody else gives metadata."""
    with pytest.raises(WireError, match=f"{type(body).__name__} is not said here"):
        arrives((hop, b"\x00abcd"), body)


def test_each_direction_has_its_own() -> None:
    """What a worker hears is nothing that it may say."""
    arrives(("workers", b""), m.RunEnded("run"))
    with pytest.raises(WireError):
        arrives(("workers", b"\x00abcd"), m.RunEnded("run"))


def test_a_hop_of_no_table_carries_what_it_likes() -> None:
    """Tests have hops of their own."""
    assert allowed_on(("hop", b"")) is None
    arrives(("hop", b""), m.RunEnded("run"))


def test_what_has_no_place_is_refused_before_its_fields_are_opened() -> None:
    """However many they are, and whatever is in them."""
    frames = codec.encode(m.Envelope(b"a", b"b", 1, 0, m.Begin("pipe", "run", bytes(100_000), [])))
    assert len(frames) == 2
    with pytest.raises(WireError, match="Begin is not said here"):
        codec.Decoder(Options()).decode([frames[0], b"\xc1"], allowed_on(("workers", b"x")))
