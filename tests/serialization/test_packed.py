"""Packed: values end to end, in one piece of bytes."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqpipeline.errors import WireError
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import messages as m
from zmqpipeline.serialization.packed import Packed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def envelope(body: m.Message) -> m.Envelope:
    """A message of somebody to somebody."""
    return m.Envelope(b"sender", b"addressee", 7, 3, body)


def work(payloads: m.Blobs) -> m.Work:
    """A Work of these items."""
    return m.Work("run", "C", 1, 0.0, (5, 5 + len(payloads)) if payloads else (), (), payloads)


@pytest.mark.slow
@given(values=st.lists(VALUES, max_size=8))
def test_each_value_is_found_again(values: list[object]) -> None:
    """As a sequence it is the bytes of each value, by index and slice, too."""
    parts = [msgpack.packb(one) for one in values]
    packed = Packed(len(parts), b"".join(parts))
    assert packed == parts
    assert list(packed) == parts
    assert len(packed) == len(parts)
    assert packed[1:] == parts[1:]


@pytest.mark.parametrize("data", [b"", b"\x81", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\x01"])
def test_what_is_malformed_is_empty_bytes(data: bytes) -> None:
    """It does not raise where nobody could tell whose fault it is; there are as many values as were announced."""
    packed = Packed(3, data)
    assert len(list(packed)) == 3
    assert packed[2] == b""


@pytest.mark.parametrize("size", [1, 3000, 40_000])
def test_items_travel_end_to_end(size: int) -> None:
    """Of one item, of small ones, of many and of large ones: the payloads arrive, in as few frames as can be."""
    payloads = [msgpack.packb(b"x" * size), msgpack.packb(1), msgpack.packb({"a": 2})]
    frames = codec.Encoder(end_to_end=True).encode(envelope(work(payloads)))
    assert len(frames) == {1: 1, 3000: 1, 40_000: 4}[size]
    got = codec.decode(frames).body
    assert isinstance(got, m.Work)
    assert list(got.payloads) == payloads
    assert isinstance(got.payloads, Packed) == (size < codec.LARGE)


def test_many_small_items_share_a_frame_as_they_are() -> None:
    """Two frames: a header, and the items with nothing between them."""
    payloads = [msgpack.packb({"n": n}) for n in range(2000)]
    header, joined = codec.Encoder(end_to_end=True).encode(envelope(work(payloads)))
    assert joined == b"".join(payloads)
    assert len(header) < 100
    assert codec.decode([header, joined]) == envelope(work(payloads))


def test_those_of_a_service_stay_apart() -> None:
    """Without the word of who packed them, payloads are not joined: a client's bytes would shift the next one's."""
    payloads = [b"\x01\x02", b""] * 5
    got = codec.decode(codec.encode(envelope(work(payloads)))).body
    assert isinstance(got, m.Work)
    assert got.payloads == payloads
    assert isinstance(got.payloads, list)


def test_spans_that_the_bytes_cannot_hold_are_refused() -> None:
    """Ten bytes are no ten thousand values: nothing is built for them."""
    code = codec._CODE_OF[m.Work]
    fields = [code, b"s", b"a", 1, 0, "run", "C", 1, 0.0, [0, 10_000], [], b"", False, b"\x01" * 10]
    with pytest.raises(WireError, match="10 bytes of values"):
        codec.decode([bytes([codec.VERSION]) + msgpack.packb(fields)])


@pytest.mark.parametrize("frames", [1, 3])
def test_a_frame_too_few_or_too_many_is_refused(frames: int) -> None:
    """The header says that the values are in one further frame."""
    header, joined = codec.Encoder(end_to_end=True).encode(envelope(work([msgpack.packb(b"x" * 3000)] * 2)))
    with pytest.raises(WireError, match="end to end"):
        codec.decode([header, joined, joined][:frames])
