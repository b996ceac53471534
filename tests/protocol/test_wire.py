"""Envelopes to frames and back, and every kind of damage."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.wire_values import CLASSES, MAX_HEADER, WORK, header, long_fields, refused, survives
from zmqpipeline.protocol import codec, fields
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import size, spans_of

COUNTS = st.integers(0, fields.MAX_NUMBER)
SPANS = st.sets(st.integers(0, 50)).map(lambda numbers: spans_of(list(numbers)))
LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "str": st.text(),
    "bytes": st.binary(max_size=40),
    "int": COUNTS,
    "bool": st.booleans(),
    "float": st.floats(0, 1e9),
    "Spans": SPANS,
}


def values(annotation: str) -> st.SearchStrategy[Any]:
    """What a field with this annotation may hold."""
    if annotation.endswith(" | None"):
        return st.none() | values(annotation.removesuffix(" | None"))
    if annotation.startswith("list["):
        return st.lists(values(annotation[5:-1]), max_size=3)
    return LEAVES[annotation] if annotation in LEAVES else bodies(getattr(m, annotation))


@st.composite
def bodies(draw: st.DrawFn, cls: type) -> Any:
    """A message (or a part of one) of this class, made from the annotations of its fields."""
    found = {one.name: draw(values(str(one.type))) for one in dataclasses.fields(cls) if one.type != "Blobs"}
    for one in dataclasses.fields(cls):
        if one.type == "Blobs":
            large = draw(st.booleans())
            some = [bytes([i % 256]) * (codec.LARGE if large and not i else i) for i in range(size(found["spans"]))]
            found[one.name] = some
    if "key" in found:
        found["key"] = draw(st.sampled_from([b"", bytes(m.KEY_BYTES)]))
    if "keys" in found and cls is not m.TaskProgress:
        count = size(found["spans"]) if "spans" in found else draw(st.integers(0, 3))
        found["keys"] = draw(st.sampled_from([b"", bytes(m.KEY_BYTES * count)]))
    if cls is m.Keys:
        found["failed_keys"] = bytes(m.KEY_BYTES * size(found["failed"]))
    return cls(**found)


ENVELOPES = st.builds(
    m.Envelope,
    sender=st.binary(max_size=16),
    addressee=st.binary(max_size=16),
    number=COUNTS,
    received=COUNTS,
    body=st.sampled_from(CLASSES).flatmap(bodies),
)


def fields_of(envelope: m.Envelope) -> list[Any]:
    """The fields in the header of this envelope."""
    found: list[Any] = msgpack.unpackb(codec.encode(envelope)[0][1:])
    return found


def test_every_message_has_a_code() -> None:
    """The vocabulary and the table of codes hold the same classes, each once."""
    assert len(CLASSES) == len(set(CLASSES))
    assert set(CLASSES) == set(m.Message.__args__)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_arrives_as_it_was_sent(cls: type) -> None:
    """Whatever the fields of a message hold, encode and decode give it back."""

    @settings(max_examples=25)
    @given(st.builds(m.Envelope, st.binary(max_size=16), st.binary(max_size=16), COUNTS, COUNTS, bodies(cls)))
    def arrives(envelope: m.Envelope) -> None:
        assert codec.decode(codec.encode(envelope)) == envelope

    arrives()


def test_small_payloads_share_a_frame_and_large_ones_have_their_own() -> None:
    """The smallest are in the header; thousands of others cost one frame; nothing large is copied into one."""
    few = dataclasses.replace(WORK.body, spans=(0, 2), payloads=[b"x", b"y" * (codec.INLINE - 1)])
    assert len(codec.encode(dataclasses.replace(WORK, body=few))) == 1
    small = dataclasses.replace(WORK.body, spans=(0, 3), payloads=[b"x", b"y" * (codec.INLINE - 1), b"z"])
    assert len(codec.encode(dataclasses.replace(WORK, body=small))) == 2
    large = dataclasses.replace(small, payloads=[b"x", b"y" * codec.LARGE, b"z"])
    frames = codec.encode(dataclasses.replace(WORK, body=large))
    assert frames[1:] == large.payloads


@settings(max_examples=150)
@given(ENVELOPES, st.data())
def test_flipped_bytes_are_a_wire_error_or_another_message(envelope: m.Envelope, data: st.DataObject) -> None:
    """Whatever bytes are changed, decode gives an envelope or WireError, never anything else."""
    frames = codec.encode(envelope)
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(frames) - 1))
        if frames[i]:
            at = data.draw(st.integers(0, len(frames[i]) - 1))
            frames[i] = frames[i][:at] + bytes([data.draw(st.integers(0, 255))]) + frames[i][at + 1 :]
    survives(frames)


@given(ENVELOPES, st.data())
def test_a_truncated_message_is_a_wire_error(envelope: m.Envelope, data: st.DataObject) -> None:
    """A header that ends early is refused, wherever it ends; so is a message without its last frame."""
    frames = codec.encode(envelope)
    cut = data.draw(st.integers(0, len(frames[0]) - 1))
    refused([frames[0][:cut], *frames[1:]])
    if len(frames) > 1:
        refused(frames[:-1])


@given(ENVELOPES, st.binary(max_size=5))
def test_more_than_a_message_is_a_wire_error(envelope: m.Envelope, more: bytes) -> None:
    """A frame too many, or bytes after the header's end, are refused."""
    frames = codec.encode(envelope)
    refused([*frames, more])
    refused([frames[0] + (more or b"\x00"), *frames[1:]])


@given(st.lists(st.binary(max_size=60), max_size=4))
@example([])
@example([b""])
@example([b"", b""])
def test_garbage_is_a_wire_error(frames: list[bytes]) -> None:
    """Frames of a foreign protocol are refused by a WireError and nothing else."""
    survives(frames)


def test_another_version_is_refused_by_name() -> None:
    """The first byte tells; the error says both versions."""
    frames = codec.encode(WORK)
    assert refused([b"\x01" + frames[0][1:], *frames[1:]]) == "protocol version 1, this is version 5"


def test_nested_bombs_are_refused() -> None:
    """Deeply nested arrays and a frame that announces four thousand million entries build nothing."""
    refused([bytes([codec.VERSION]) + b"\x91" * 100_000 + b"\x00"])
    refused([bytes([codec.VERSION]) + b"\xdd\xff\xff\xff\xff"])
    frames = codec.encode(WORK)
    refused([frames[0], b"\x91" * 100_000 + b"\x00"])
    refused([frames[0], b"\xdd\xff\xff\xff\xff"])
    refused([frames[0], b"\xc6\xff\xff\xff\xffx"])


def test_a_header_that_is_too_long_is_refused_before_it_is_read() -> None:
    """Nobody needs a header of more than 64 KiB."""
    assert "at most" in refused([bytes([codec.VERSION]) + bytes(MAX_HEADER)])


@pytest.mark.parametrize("value", [-1, True, 1.0, "1", None, [], b"1"], ids=repr)
def test_a_number_field_holds_a_number(value: Any) -> None:
    """Message numbers and attempts are whole and not negative."""
    fields = fields_of(WORK)
    for index in (3, 4, 7):
        refused([header(*fields[:index], value, *fields[index + 1 :]), codec.encode(WORK)[1]])


@pytest.mark.parametrize(
    "spans",
    [[1], [3, 1], [1, 1], [-1, 2], [0, 2, 1, 3], [0, "2"], [0, True], [0.0, 1], {}, b"", None, [0, 2, 2, 2]],
    ids=repr,
)
def test_spans_are_ascending_ranges(spans: Any) -> None:
    """Ranges that are empty, overlap, descend or are no numbers are refused."""
    fields = fields_of(WORK)
    refused([header(*fields[:9], spans, *fields[10:]), codec.encode(WORK)[1]])
    refused([header(*fields[:10], spans, *fields[11:]), codec.encode(WORK)[1]])


@pytest.mark.parametrize("value", [-0.5, math.inf, math.nan, "1", None, True], ids=repr)
def test_seconds_are_finite_and_not_negative(value: Any) -> None:
    """A time-out that is no time is refused."""
    fields = fields_of(WORK)
    refused([header(*fields[:8], value, *fields[9:]), codec.encode(WORK)[1]])


def test_whole_seconds_may_be_an_integer() -> None:
    """A peer that packs 5.0 as 5 is understood."""
    fields = fields_of(WORK)
    envelope = codec.decode([header(*fields[:8], 5, *fields[9:]), codec.encode(WORK)[1]])
    assert envelope.body == dataclasses.replace(WORK.body, timeout=5.0)


@pytest.mark.parametrize("payloads", [["a", b"b", b"c"], [b"a", b"b"], [b"a", b"b", b"c", b"d"], [1, 2, 3]], ids=repr)
def test_payloads_in_the_header_must_fit_their_spans(payloads: list[Any]) -> None:
    """They are bytes, and as many as the spans say; no frame follows them."""
    fields = fields_of(WORK)
    refused([header(*fields[:-1], payloads)])
    refused([header(*fields[:-1], [b"a", b"b", b"c"]), b""])
    assert codec.decode([header(*fields[:-1], [b"a", b"b", b"c"])]).body.payloads == [b"a", b"b", b"c"]


@pytest.mark.parametrize("payloads", [[], [b"a"], [b"a"] * 4, [b"a", b"b", "c"], {}, b"abc", None, 3], ids=repr)
def test_payloads_are_as_many_as_the_spans_say(payloads: Any) -> None:
    """Too few, too many, or something else than bytes are refused."""
    refused([codec.encode(WORK)[0], msgpack.packb(payloads)])


@pytest.mark.parametrize("length", [1, m.KEY_BYTES, 3 * m.KEY_BYTES - 1, 4 * m.KEY_BYTES])
def test_keys_are_as_many_as_the_payloads(length: int) -> None:
    """Each item has a digest of the one size, or none of them has one."""
    said = refused(codec.encode(dataclasses.replace(WORK, body=dataclasses.replace(WORK.body, keys=bytes(length)))))
    assert f"{length} bytes of keys for 3 items" in said


@pytest.mark.parametrize("body", [
    m.Keys("r", "A", b"x", (), b""),
    m.Keys("r", "A", b"", (), bytes(m.KEY_BYTES)),
    m.Keys("r", "A", b"", (3, 5), bytes(m.KEY_BYTES)),
], ids=repr)  # fmt: skip
def test_keys_of_done_items_are_whole_digests(body: m.Keys) -> None:
    """Every failed number has its digest, and none is cut short."""
    assert "bytes of keys" in refused(codec.encode(m.Envelope(b"d", b"c", 1, 0, body)))


@pytest.mark.parametrize("announced", [1, 2, 4, 10**12, -1, True, None], ids=repr)
def test_payload_frames_are_as_many_as_announced(announced: Any) -> None:
    """The header says how many frames follow."""
    fields = fields_of(WORK)
    refused([header(*fields[:-1], announced), b"a", b"b", b"c"])


def test_a_huge_span_without_payloads_is_refused_without_being_built() -> None:
    """A range of 10**18 numbers costs nothing before it is refused."""
    fields = fields_of(WORK)
    refused([header(*fields[:9], [0, 10**18], *fields[10:]), codec.encode(WORK)[1]])


@pytest.mark.parametrize("code", [-1, len(CLASSES), 2**63, "1", None, 1.0, True, []], ids=repr)
def test_an_unknown_code_is_refused(code: Any) -> None:
    """Only codes of the table are read, and only whole numbers are codes."""
    survives([header(code, b"", b"", 0, 0)])
    if code is not True:
        refused([header(code, b"", b"", 0, 0)])


def test_fields_too_few_or_too_many_are_refused() -> None:
    """Each message has exactly its fields, each nested record likewise."""
    fields = fields_of(WORK)
    payloads = codec.encode(WORK)[1]
    refused([header(*fields[:-1]), payloads])
    refused([header(*fields, 0), payloads])
    refused([header(*fields[:4])])
    goodbye = fields_of(m.Envelope(b"", b"", 1, 0, m.Goodbye("r", "A", m.ErrorInfo("E", "m"))))
    refused([header(*goodbye[:-1], ["E", "m"])])
    refused([header(*goodbye[:-1], ["E", "m", "t", "p", "more"])])
    refused([header(*goodbye[:-1], {"error": "E"})])


@pytest.mark.parametrize("who", [b"x" * 17, "text", None, 5], ids=repr)
def test_an_incarnation_is_short_and_bytes(who: Any) -> None:
    """An id of a process has at most sixteen bytes."""
    refused([header(0, who, b"", 0, 0)])
    refused([header(0, b"", who, 0, 0)])


FAR_APART = tuple(range(0, 100_000, 2))
LONG = [
    m.Begin("pipe", "run", bytes(MAX_HEADER), [m.TaskProgress("A", FAR_APART, (1, 2)), m.TaskProgress("B", (), ())]),
    m.WorkerReport("run", "A", 1, 1, 1, False, FAR_APART, None, "box", 1),
    m.ItemsFailed("run", [m.FailedItem("A", 3, 1, "worker", m.ErrorInfo("E", "\uffff" * MAX_HEADER), b"")]),
    m.GiveUp("run", [m.FailedItem("A", n, 1, "worker", m.ErrorInfo("E", "x" * 40_000), b"y" * 3000) for n in range(2)]),
    m.Work("run", "A", 1, 0.0, (0, 3), FAR_APART, [msgpack.packb(b"a" * 3000)] * 3),
    m.Work("run", "A", 1, 0.0, (0, 3), FAR_APART, [b"a"] * 3),
    m.Results("run", "A", 1, (0, 5000), [b"a"] * 5000, bytes(5000 * m.KEY_BYTES)),
    m.Results("run", "A", 1, (0, 4200), [b"a" * codec.LARGE, *[b"a"] * 4199], bytes(4200 * m.KEY_BYTES)),
    m.Metadata(bytes(2 * 1024 * 1024)),
]


@pytest.mark.parametrize("body", LONG, ids=lambda body: type(body).__name__)
@pytest.mark.parametrize("end_to_end", [False, True])
def test_long_fields_have_a_frame_of_their_own(body: m.Message, end_to_end: bool) -> None:
    """Whatever payloads there are beside them; a header has no more than 64 KiB, and ranges take a byte a number."""
    envelope = m.Envelope(b"a", b"b", 1, 0, body)
    frames = codec.Encoder(end_to_end=end_to_end).encode(envelope)
    assert len(frames) > 1
    assert len(frames[0]) < MAX_HEADER
    assert codec.decode(frames) == envelope
    if isinstance(body, m.WorkerReport):
        assert len(frames[1]) < 1.1 * len(FAR_APART)


@settings(max_examples=150)
@given(st.integers(0, len(LONG) - 1), st.data())
def test_flipped_bytes_of_long_fields_are_a_wire_error_or_another_message(which: int, data: st.DataObject) -> None:
    """As of any other frame."""
    frames = long_fields(LONG[which])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 200) | st.integers(0, len(frames[1]) - 1))
        frames[1] = frames[1][:at] + bytes([data.draw(st.integers(0, 255))]) + frames[1][at + 1 :]
    survives(frames)


@pytest.mark.parametrize("body", LONG, ids=lambda body: type(body).__name__)
def test_a_frame_of_fields_too_few_or_too_many_is_refused(body: m.Message) -> None:
    """Without it, with one more, cut short, or with bytes behind its end nothing is read."""
    frames = long_fields(body)
    refused(frames[:1])
    refused([*frames, frames[1]])
    refused([frames[0], frames[1][:-1], *frames[2:]])
    refused([frames[0], frames[1] + b"\x00", *frames[2:]])
    refused([frames[0], b"\xdd\xff\xff\xff\xff", *frames[2:]])


@pytest.mark.parametrize(
    "differences",
    [
        [1],
        [3, 0],
        [0, 1, -1, 1],
        [0, 1, 1, 0],
        [fields.MAX_NUMBER, 2],
        [2**63] * 4,
        [0, 1.0],
        [0, True],
        {},
        None,
        b"",
        "ab",
    ],
    ids=repr,
)
def test_differences_that_are_no_ranges_are_refused(differences: Any) -> None:
    """Ranges that are empty, descend, go beyond 64 bits or are no numbers."""
    refused([header(-1 - CLASSES.index(m.Kept), b"a", b"b", 1, 0), msgpack.packb(["run", "A", differences, 0, 0])])


def test_ranges_that_touch_are_let_in_in_both_forms() -> None:
    """A peer may leave it to others to merge them."""
    want = m.Kept("run", "A", (0, 2, 2, 4))
    assert (
        codec.decode(
            [header(-1 - CLASSES.index(m.Kept), b"a", b"b", 1, 0), msgpack.packb(["run", "A", [0, 2, 0, 2], 0, 0])]
        ).body
        == want
    )
    assert codec.decode(codec.encode(m.Envelope(b"a", b"b", 1, 0, want))).body == want
