"""The bounds of what is on the wire: what is too large, too many or too deep is refused before it takes room."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest

from tests.support.wire_values import CLASSES, MAX_HEADER, WORK, header, long_fields, refused, survives
from zmqpipeline.errors import WireError
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec, fields
from zmqpipeline.protocol import messages as m


def test_fields_that_nobody_would_read_are_not_sent() -> None:
    """They would be dropped, and said again, for ever; more is read of what tells all of a run."""
    with pytest.raises(WireError, match=r"a Metadata with .* bytes of fields"):
        codec.encode(m.Envelope(b"a", b"b", 1, 0, m.Metadata(bytes(codec.MAX_FIELDS_BYTES))))
    assert len(long_fields(m.Begin("pipe", "run", bytes(codec.MAX_FIELDS_BYTES), []))) == 2


def test_what_is_larger_than_any_role_sends_is_refused_unread() -> None:
    """A frame of fields by what kind of message it is, the payloads by `max_message_bytes`."""
    frame = bytes(codec.MAX_FIELDS_BYTES + 1)
    assert "bytes of fields" in refused([header(-1 - CLASSES.index(m.Kept), b"a", b"b", 1, 0), frame])
    small = codec.Decoder(Options(max_message_bytes=1))
    most = codec.payload_limit(Options(max_message_bytes=1))
    work = m.Envelope(b"a", b"b", 1, 0, m.Work("run", "A", 1, 0.0, (0, 1), (), [bytes(most)]))
    assert small.decode(codec.encode(work)) == work
    with pytest.raises(WireError, match="same max_message_bytes"):
        small.decode([*codec.encode(work)[:1], bytes(most + 1)])


def test_a_smaller_limit_of_headers_is_kept_by_both_sides() -> None:
    """What one role with that limit sends, another one reads, and nothing longer."""
    options = Options(max_header_bytes=8192)
    envelope = m.Envelope(b"a", b"b", 1, 0, m.Metadata(bytes(10_000)))
    assert codec.Decoder(options).decode(codec.Encoder(max_header_bytes=8192).encode(envelope)) == envelope
    with pytest.raises(WireError, match="a header of"):
        codec.Decoder(options).decode(codec.encode(envelope))


@pytest.mark.parametrize("payloads", [[b""] * (codec.MAX_ITEMS + 1), [b"x" * 10] * (codec.MAX_ITEMS + 1)])
def test_more_items_than_any_role_sends_are_refused(payloads: list[bytes]) -> None:
    """In each form, however small they are."""
    work = m.Envelope(b"a", b"b", 1, 0, m.Work("run", "A", 1, 0.0, (0, len(payloads)), (), payloads))
    for end_to_end in (False, True):
        assert refused(codec.Encoder(end_to_end=end_to_end).encode(work))


def test_numbers_leave_room_for_their_sums() -> None:
    """The largest ones are refused, in fields as in ranges."""
    assert "too large" in refused(codec.encode(m.Envelope(b"a", b"b", fields.MAX_NUMBER + 1, 0, m.Probe())))
    assert "beyond" in refused(codec.encode(m.Envelope(b"a", b"b", 1, 0, m.Kept("r", "A", (0, fields.MAX_NUMBER + 2)))))


def test_names_are_short_and_texts_for_people_are_not() -> None:
    """A task's name of megabytes is not read; a traceback may be long."""
    assert "4096 characters" in refused(
        codec.encode(m.Envelope(b"a", b"b", 1, 0, m.RunEnded("x" * (fields.MAX_NAME + 1))))
    )
    survives(codec.encode(m.Envelope(b"a", b"b", 1, 0, m.Refused("x" * (fields.MAX_NAME + 1)))))


def test_texts_have_a_bound_too() -> None:
    """What a failure says goes on to the collector in a message that has room for the texts of this library."""
    for text in ("x" * (fields.MAX_TEXT + 1), "\U0001f600" * (fields.MAX_TEXT + 1)):
        assert "characters" in refused(codec.encode(m.Envelope(b"a", b"b", 1, 0, m.Refused(text))))


def test_lone_surrogates_arrive_as_their_escapes() -> None:
    """In names as in texts: a journal that is given one cannot be written."""
    body = m.ItemsFailed("r\udcff", [m.FailedItem("\ud800", 0, 1, "worker", m.ErrorInfo("E", "\udcff"), b"")])
    assert codec.decode(codec.encode(m.Envelope(b"a", b"b", 1, 0, body))).body == m.ItemsFailed(
        "r\\udcff", [m.FailedItem("\\ud800", 0, 1, "worker", m.ErrorInfo("E", "\\udcff"), b"")]
    )


@pytest.mark.parametrize("length", [1, m.KEY_BYTES - 1, 2 * m.KEY_BYTES])
def test_the_key_of_a_failed_item_is_a_digest(length: int) -> None:
    """One of another length would be taken for several, or for none."""
    failed = m.FailedItem("A", 0, 1, "worker", m.ErrorInfo("E", "no"), b"", bytes(length))
    assert "digest" in refused(codec.encode(m.Envelope(b"a", b"b", 1, 0, m.GiveUp("run", [failed]))))


@pytest.mark.parametrize("size", [5000, MAX_HEADER - 1])
def test_announced_lengths_take_no_room(size: int) -> None:
    """Arrays inside of each other, each of which announces as many elements as there are bytes, build little."""
    bomb = (b"\xdd" + size.to_bytes(4, "big")) * (size // 5)
    tracemalloc.start()
    try:
        refused([bytes([codec.VERSION]) + bomb])
        refused([header(-1 - CLASSES.index(m.Kept), b"a", b"b", 1, 0), bomb])
        refused([codec.encode(WORK)[0], bomb])
        assert tracemalloc.get_traced_memory()[1] < 20 * 1024 * 1024
    finally:
        tracemalloc.stop()


def nest(inner: bytes, count: int, times: int) -> bytes:
    """An array of `times` arrays of `count` times `inner`."""
    array = b"\xdc" + count.to_bytes(2, "big") + inner * count
    return b"\xdc" + times.to_bytes(2, "big") + array * times


@pytest.mark.parametrize("inner", [b"\x90", b"\x80", b"\xc7\x00\x05"], ids=["lists", "maps", "extensions"])
def test_what_is_small_on_the_wire_is_small_in_memory(inner: bytes) -> None:
    """A megabyte of containers of one byte each, which take 64 when they are opened, builds little, in each frame."""
    bomb = nest(inner, 4000, 1_000_000 // 4000 // len(inner))
    tracemalloc.start()
    try:
        refused([codec.encode(WORK)[0], bomb])
        refused([header(CLASSES.index(m.Requests), b"a", b"b", 1, 0, "s", False, [0, 80], 0), bomb])
        refused([header(-1 - CLASSES.index(m.WorkerReport), b"a", b"b", 1, 0), bomb])
        assert tracemalloc.get_traced_memory()[1] < 12 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_what_an_honest_role_tells_is_within_the_bounds() -> None:
    """A batch of failed items, 10,000 tasks, and 1200 workers that name 64 items each, are read."""
    trouble = m.ErrorInfo("ValueError", "no", "Traceback\n" * 20)
    items = [m.FailedItem("A", n, 1, "worker", trouble, b"") for n in range(2000)]
    tasks = [m.TaskProgress(f"task {n}", (0, n + 1), (), 0, 0, 0) for n in range(10_000)]
    running = [m.RunningItem(1 << 32, 1, 0.5)] * m.MAX_NAMED
    workers = [m.WorkerStatus("h/1", "A", "h", 1, 64, "busy", 64, 1 << 32, running)] * 1200
    for body in (
        m.ItemsFailed("run", items),
        m.Begin("p", "run", b"x" * (1 << 20), tasks),
        m.Status("p", "run", "running", 1.0, "", [], workers),
    ):
        envelope = m.Envelope(b"a", b"b", 1, 0, body)
        assert codec.decode(codec.encode(envelope)) == envelope


@pytest.mark.parametrize("sizes", [[], [0], [3, 0, 5], [5000, 1], [codec.LARGE, 1], [MAX_HEADER + 1, 7]])
def test_the_data_of_failed_items_is_no_part_of_the_header(sizes: list[int]) -> None:
    """It may be as large as an item; so large a header would not be read."""
    trouble = m.ErrorInfo("ValueError", "no")
    failures = [m.FailedItem("A", n, 1, "worker", trouble, b"%d" % n * size) for n, size in enumerate(sizes)]
    envelope = m.Envelope(b"a", b"b", 1, 0, m.GiveUp("run", failures))
    frames = codec.encode(envelope)
    assert len(frames[0]) < MAX_HEADER
    assert codec.decode(frames) == envelope


def test_failed_items_without_their_data_are_refused() -> None:
    """As many payloads as items, whichever way they travel."""
    trouble = m.ErrorInfo("ValueError", "no")
    failures = [m.FailedItem("A", n, 1, "worker", trouble, b"x" * codec.LARGE) for n in range(2)]
    frames = codec.encode(m.Envelope(b"a", b"b", 1, 0, m.GiveUp("run", failures)))
    refused(frames[:2])
    refused([*frames, b"x"])
    small = codec.encode(m.Envelope(b"a", b"b", 1, 0, m.GiveUp("run", [m.FailedItem("A", 0, 1, "x", trouble, b"x")])))
    header = msgpack.unpackb(small[0][1:])
    assert "1 failed items" in refused([small[0][:1] + msgpack.packb([*header[:-1], [b"x", b"y"]])])
