"""Messages for the tests of the codec: any, and damaged ones."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from zmqpipeline.errors import WireError
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import messages as m

CLASSES = codec._CODES


MAX_HEADER = Options().max_header_bytes


WORK = m.Envelope(
    b"d",
    b"w",
    7,
    3,
    m.Work("run", "A", 1, 0.0, (0, 2, 5, 6), (1, 2), [one * codec.INLINE for one in (b"a", b"b", b"c")]),
)
"""Its payloads have a frame, together."""


def header(*fields: Any) -> bytes:
    """A header frame that holds these."""
    return bytes([codec.VERSION]) + msgpack.packb(list(fields))


def refused(frames: list[bytes]) -> str:
    """Why these frames are no message."""
    with pytest.raises(WireError) as caught:
        codec.decode(frames)
    return str(caught.value)


def survives(frames: list[bytes]) -> None:
    """Decode these; only a sound envelope or WireError may come of it."""
    try:
        envelope = codec.decode(frames)
    except WireError:
        return
    assert isinstance(envelope.body, CLASSES)
    codec.encode(envelope)


def long_fields(body: m.Message) -> list[bytes]:
    """The frames of a message whose fields have one of their own."""
    frames = codec.encode(m.Envelope(b"a", b"b", 1, 0, body))
    assert len(frames[0]) < 100
    return frames
