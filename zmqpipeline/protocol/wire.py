"""Envelopes to frames and back.

A message is a header frame and, for messages that carry user values, what follows it:

* frame 0: one version byte, then a msgpack array ``[code, sender, addressee, number, received, *fields]``;
* the payloads. Up to `INLINE` bytes of them are in the header, as its last field, since a frame costs as much as a
  small message. More share frame 1 (a msgpack array of byte strings, read in one call); as soon as one of them is
  `LARGE` bytes or more, each has a frame of its own, so that nothing large is copied to be packed. The last field of
  the header says which: it is the list of them, 0, or the number of frames.
* Items and results of a pipeline, which this library itself has packed, stand end to end in their place (the last field
  is the bytes, or nil for frame 1): the executing side opens all of them in one call. Those of a service come from
  clients, and the bytes of one must not be able to shift the next one's.
* Of a message whose own fields are too long for a header (many ranges, long texts, metadata) these are frame 1, as a
  msgpack array, in which spans are written as their differences; the payloads follow. The header says so by its code,
  ``-1 - code``, and has no fields then. A message that needs no such frame pays nothing for it.

Whatever does not fit is refused with `WireError` before anything is built from it. The fields of each message are
checked against the table `_FIELDS`, which is made from the annotations of the dataclasses once, at import.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Container, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import Any, TypeAlias

import msgpack

from zmqpipeline.errors import WireError
from zmqpipeline.options import Options
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.packed import Packed
from zmqpipeline.protocol.seqset import size
from zmqpipeline.unpacking import UNBELIEVED, UNPACK_ERRORS, open_bounded

VERSION = 3
"""The first byte of every message."""

LARGE = 32 * 1024
"""From this size on (bytes), a payload is a frame of its own."""

INLINE = 4 * 1024
"""Up to so many bytes in all, payloads travel in the header."""

MAX_FIELDS_BYTES = 4 * 1024 * 1024
"""The most bytes of a message's own fields, in a frame of their own."""

MAX_STATE_BYTES = 16 * 1024 * 1024
"""The same for the messages that tell all of a run. A run in which every second item fails has three million ranges
after six million items, which are 6 MB; nothing else comes near it."""

LEAST_LIMIT = 1024 * 1024
"""Payloads of so many bytes in all are read whatever `max_message_bytes` says: a batch of smaller ones has them."""

MAX_NUMBER = 1 << 62
"""The largest number that is read: what is counted together from several of them still fits into a message."""

MAX_ITEMS = 16_384
"""The most payloads of one message; this library sends no more than 3000."""

MAX_RECORDS = 1_000_000
"""The most lists in the fields of one message that tells all of a run: each of 4000 workers may name 64 items."""

MAX_NAME = 4096
"""The most characters of a name: of a task, a run, a host. Texts for people may be longer."""

MAX_TEXT = 128 * 1024
"""The most characters of those texts; this library cuts a traceback at half of it."""

_FOR_PEOPLE = frozenset(("error", "message", "traceback", "reason", "why"))

_SLACK = 64 * 1024
"""What a batch may have beside its payloads, packed."""

_DEFAULTS = Options()
_INCARNATION_MAX = 16
_CODES: tuple[type, ...] = (
    m.Probe, m.Refused, m.WorkerReport, m.ItemsFailed, m.ItemsReturned, m.Goodbye, m.Welcome, m.Work, m.Settled,
    m.RunEnded, m.Results, m.Kept, m.Missing, m.Propose, m.Begin, m.GiveUp, m.Finish, m.Bye, m.Holding, m.Ack,
    m.Finished, m.Metadata, m.MetadataTaken, m.Requests, m.Asking, m.Withdrawn, m.Replies, m.Declined, m.Unknown,
    m.Recall, m.Keys, m.AskStatus, m.Status,
)  # fmt: skip
_CODE_OF = {cls: code for code, cls in enumerate(_CODES)}


_Codec: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""The reader and the writer of a field."""


def _same(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise WireError(f"a text field holds something else, or more than {MAX_TEXT} characters")
    return value if value.isascii() else _encodable(value)


def _name(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_NAME:
        raise WireError(f"a name that is no text, or longer than {MAX_NAME} characters")
    return value if value.isascii() else _encodable(value)


def _encodable(text: str) -> str:
    """With each lone surrogate as its escape: no journal, terminal or file of UTF-8 takes one."""
    return text.encode("utf-8", "backslashreplace").decode()


def _digest(value: Any) -> bytes:
    if type(value) is not bytes or len(value) not in (0, m.KEY_BYTES):
        raise WireError(f"a key that is no digest of {m.KEY_BYTES} bytes")
    return value


def _blob(value: Any) -> bytes:
    if type(value) is not bytes:
        raise WireError("a bytes field holds something else")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        raise WireError("a number field holds something else, is negative, or too large")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise WireError("a yes-or-no field holds something else")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise WireError("a field of seconds holds something else")
    return float(value)


def _spans(value: Any) -> m.Spans:
    if type(value) is not list or len(value) % 2:
        raise WireError("spans are not a list of pairs")
    last = -1
    for i in range(0, len(value), 2):
        start, stop = value[i], value[i + 1]
        if type(start) is not int or type(stop) is not int or not last < start < stop:
            raise WireError("spans are not ascending ranges of numbers")
        last = stop - 1
    if last > MAX_NUMBER:
        raise WireError(f"spans beyond {MAX_NUMBER}")
    return tuple(value)


def _differences(spans: m.Spans) -> list[int]:
    return [second - first for first, second in zip((0, *spans), spans, strict=False)]


def _spans_of_differences(value: Any) -> m.Spans:
    """What `_differences` made. Nothing is built before it is known to be spans."""
    if type(value) is not list or len(value) % 2 or not set(map(type, value)) <= _INTS:
        raise WireError("spans are not a list of pairs")
    if value and (min(value) < 0 or min(value[1::2]) < 1 or sum(value) > MAX_NUMBER):
        raise WireError("spans are not ascending ranges of numbers")
    return tuple(accumulate(value))


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _many(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def read_list(value: Any) -> list[Any]:
        if type(value) is not list:
            raise WireError("a list field holds something else")
        return [read(one) for one in value]

    return read_list


def _record(cls: type, spans: _Codec) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The reader and the writer of a nested dataclass, which travels as the list of its fields."""
    readers, writers = _plan(cls, spans)
    names = [one.name for one in dataclasses.fields(cls)]

    def read(value: Any) -> Any:
        if type(value) is not list or len(value) != len(readers):
            raise WireError(f"a {cls.__name__} has the wrong number of fields")
        return cls(*[reader(one) for reader, one in zip(readers, value, strict=True)])

    def write(value: Any) -> list[Any]:
        return [writer(getattr(value, name)) for writer, name in zip(writers, names, strict=True)]

    return read, write


def _codec(annotation: str, spans: _Codec) -> _Codec:
    """Reader and writer of one annotated field."""
    if annotation.endswith(" | None"):
        read, write = _codec(annotation.removesuffix(" | None"), spans)
        return _optional(read), write if write is _same else _optional(write)
    if annotation.startswith("list["):
        read, write = _codec(annotation[5:-1], spans)
        return _many(read), lambda values: [write(one) for one in values]
    if annotation == "Spans":
        return spans
    simple: dict[str, Callable[[Any], Any]] = {
        "str": _text, "name": _name, "bytes": _blob, "int": _count, "bool": _flag, "float": _seconds,
        "key": _digest,
    }  # fmt: skip
    if annotation in simple:
        return simple[annotation], _same
    return _record(getattr(m, annotation), spans)


def _plan(cls: type, spans: _Codec) -> tuple[list[Callable[[Any], Any]], list[Callable[[Any], Any]]]:
    pairs = [_codec(_kind(one), spans) for one in dataclasses.fields(cls) if one.type != "Blobs"]
    return [read for read, _ in pairs], [write for _, write in pairs]


def _kind(one: dataclasses.Field[Any]) -> str:
    """The annotation of a field; of those that are text, names are told from what people are told."""
    if one.type == "bytes" and one.name == "key":
        return "key"
    return "name" if one.type == "str" and one.name not in _FOR_PEOPLE else str(one.type)


_FIELDS = [_plan(cls, (_spans, _same)) for cls in _CODES]
_LONG_FIELDS = [_plan(cls, (_spans_of_differences, _differences)) for cls in _CODES]
_NAMES = [[one.name for one in dataclasses.fields(cls) if one.type != "Blobs"] for cls in _CODES]
_HAS_PAYLOADS = [any(one.type == "Blobs" for one in dataclasses.fields(cls)) for cls in _CODES]
_PAYLOADS_AT = [
    [one.type for one in dataclasses.fields(cls)].index("Blobs") if has else 0
    for cls, has in zip(_CODES, _HAS_PAYLOADS, strict=True)
]
_READERS = [readers for readers, _ in _FIELDS]
_LONG_READERS = [readers for readers, _ in _LONG_FIELDS]
# The fields of a message at once, and those that are not written as they are.
_GETTERS = [attrgetter(*names) if len(names) > 1 else None for names in _NAMES]
_WRITERS = [[(index, write) for index, write in enumerate(writers) if write is not _same] for _, writers in _FIELDS]
# The payloads of failed items, too, are no part of the header, although they are fields of its records.
_GIVE_UP = _CODE_OF[m.GiveUp]
_HAS_PAYLOADS[_GIVE_UP] = True
_END_TO_END = frozenset((_CODE_OF[m.Work], _CODE_OF[m.Results]))
_VERSION_BYTE = bytes([VERSION])
_BYTES = {bytes}
_INTS = {int}
_OF_A_RUN = frozenset((_CODE_OF[m.Begin], _CODE_OF[m.Holding], _CODE_OF[m.Status]))


class Encoder:
    """Envelopes to frames, for one thread: to make a packer costs more than to pack a message."""

    def __init__(self, *, end_to_end: bool = False, max_header_bytes: int = _DEFAULTS.max_header_bytes) -> None:
        """`end_to_end`: what is sent was packed by this library, value for value, and may be joined.

        Fields of more than `max_header_bytes` have a frame of their own.
        """
        self._end_to_end = end_to_end
        self._max_header = max_header_bytes
        # Lone surrogates are kept here, since texts may quote file names that hold them; who reads them escapes them.
        self._pack_header: Callable[[Any], bytes] = msgpack.Packer(unicode_errors="surrogatepass").pack
        self._pack: Callable[[Any], bytes] = msgpack.Packer().pack

    def encode(self, envelope: m.Envelope) -> list[bytes]:
        """The frames of this envelope. Raises WireError for what the other side would drop: it would come again."""
        body = envelope.body
        code = _CODE_OF[type(body)]
        payloads: m.Blobs = []
        if isinstance(body, m.GiveUp):
            payloads = [one.payload for one in body.failures]
            body = m.GiveUp(body.run, [dataclasses.replace(one, payload=b"") for one in body.failures])
        elif _HAS_PAYLOADS[code]:
            payloads = body.payloads  # type: ignore[union-attr]
        fields = [code, envelope.sender, envelope.addressee, envelope.number, envelope.received, *_values(code, body)]
        if not _HAS_PAYLOADS[code]:
            return self._headed(fields, body)
        total = sum(map(len, payloads))
        if total >= LARGE and max(map(len, payloads)) >= LARGE:
            fields.append(len(payloads))
            return [*self._headed(fields, body), *payloads]
        joins = self._end_to_end and len(payloads) > 1 and code in _END_TO_END
        if total <= INLINE:
            fields.append(b"".join(payloads) if joins else list(payloads))
            return self._headed(fields, body)
        fields.append(None if joins else 0)
        return [*self._headed(fields, body), b"".join(payloads) if joins else self._pack(list(payloads))]

    def _headed(self, fields: list[Any], body: m.Message) -> list[bytes]:
        """The header, and the frame of the fields if they need one."""
        header = _VERSION_BYTE + self._pack_header(fields)
        if len(header) <= self._max_header:
            return [header]
        code = fields[0]
        names, writers = _NAMES[code], _LONG_FIELDS[code][1]
        frame = self._pack_header([write(getattr(body, name)) for name, write in zip(names, writers, strict=True)])
        if len(frame) > (most := _most_of_fields(code)):
            name = _CODES[code].__name__
            raise WireError(f"a {name} with {len(frame)} bytes of fields, of which {most} would be read")
        return [_VERSION_BYTE + self._pack_header([-1 - code, *fields[1:5], *fields[5 + len(names) :]]), frame]


def _most_of_fields(code: int) -> int:
    return MAX_STATE_BYTES if code in _OF_A_RUN else MAX_FIELDS_BYTES


def encode(envelope: m.Envelope) -> list[bytes]:
    """The frames of this envelope, from any thread."""
    return Encoder().encode(envelope)


def _values(code: int, body: m.Message) -> list[Any]:
    getter = _GETTERS[code]
    values = list(getter(body)) if getter is not None else [getattr(body, name) for name in _NAMES[code]]
    for index, write in _WRITERS[code]:
        values[index] = write(values[index])
    return values


def payload_limit(options: Options) -> int:
    """How many bytes the frames of payloads may have in one message."""
    return max(options.max_message_bytes, LEAST_LIMIT) + _SLACK


class Decoder:
    """Frames to envelopes, within the limits of these options."""

    def __init__(self, options: Options) -> None:
        self._max_header = options.max_header_bytes
        self._max_payloads = payload_limit(options)

    def decode(self, frames: Sequence[bytes], said: Container[type] | None = None) -> m.Envelope:
        """The envelope that these frames hold. `said` are the messages that may come; None: any.

        Raises:
            WireError: it is none of these; or the frames are not a message of this protocol and version, or larger than
                is read; the text says what is wrong.
        """
        code, fields = _read_header(frames, self._max_header)
        if said is not None and _CODES[code] not in said:
            # before its fields are opened, of which there may be many
            raise WireError(f"{_CODES[code].__name__} is not said here; such a peer has no right to it")
        readers, values = _READERS[code], fields[5:]
        if fields[0] < 0:
            readers, values = _LONG_READERS[code], [*_read_fields(code, frames), *values]
            frames = [frames[0], *frames[2:]]
        if len(frames) > 1 and (total := sum(map(len, frames)) - len(frames[0])) > self._max_payloads:
            raise WireError(
                f"a message of {total} bytes, of which {self._max_payloads} are read. If it comes from a role of this "
                "pipeline, give all of them the same max_message_bytes"
            )
        return _decoded(code, fields, readers, values, frames)


_standard = Decoder(_DEFAULTS)


def decode(frames: Sequence[bytes]) -> m.Envelope:
    """The envelope that these frames hold, within the limits that are the default. Raises WireError, as a Decoder."""
    return _standard.decode(frames)


def _decoded(
    code: int,
    fields: list[Any],
    readers: list[Callable[[Any], Any]],
    values: list[Any],
    frames: Sequence[bytes],
) -> m.Envelope:
    sender, addressee, number, received = _read_place(fields)
    extra = 1 if _HAS_PAYLOADS[code] else 0
    if len(values) != len(readers) + extra:
        raise WireError(f"a {_CODES[code].__name__} with {len(values)} fields")
    arguments = [read(value) for read, value in zip(readers, values, strict=False)]
    if code == _GIVE_UP:
        arguments[1] = _with_payloads(arguments[1], _read_payloads(frames, values[-1]))
    elif code in _END_TO_END and not isinstance(values[-1], (list, int)):
        arguments.insert(_PAYLOADS_AT[code], _read_joined(frames, values[-1]))
    elif extra:
        arguments.insert(_PAYLOADS_AT[code], _read_payloads(frames, values[-1]))
    elif len(frames) != 1:
        raise WireError(f"a {_CODES[code].__name__} with {len(frames)} frames")
    body = _CODES[code](*arguments)
    if extra and code != _GIVE_UP:
        _check_payload_count(body)
    elif type(body) is m.Keys:
        _check_keys(body)
    return m.Envelope(sender, addressee, number, received, body)


def _read_header(frames: Sequence[bytes], most: int) -> tuple[int, list[Any]]:
    """The code of the message, and the fields of its header."""
    if not frames or not frames[0]:
        raise WireError("an empty message")
    head = frames[0]
    if head[0] != VERSION:
        raise WireError(f"protocol version {head[0]}, this is version {VERSION}")
    if len(head) > most:
        raise WireError(f"a header of {len(head)} bytes; at most {most} are read")
    try:
        fields = msgpack.unpackb(memoryview(head)[1:], max_array_len=UNBELIEVED, unicode_errors="surrogatepass")
    except ValueError:
        # it is malformed, or has long lists
        fields = _opened(memoryview(head)[1:], "header", most, MAX_ITEMS)
    except UNPACK_ERRORS as error:
        raise _unopened("header", error) from error
    if type(fields) is not list or len(fields) < 5 or type(fields[0]) is not int:
        raise WireError("a header that is no list of fields")
    code = fields[0] if fields[0] >= 0 else -1 - fields[0]
    if code >= len(_CODES):
        raise WireError(f"unknown message code {fields[0]}")
    return code, fields


def _read_fields(code: int, frames: Sequence[bytes]) -> list[Any]:
    """The fields of a message that have a frame of their own."""
    if len(frames) < 2:
        raise WireError("no frame of fields")
    if len(frames[1]) > (most := _most_of_fields(code)):
        raise WireError(f"{len(frames[1])} bytes of fields; at most {most} of a {_CODES[code].__name__} are read")
    records = MAX_RECORDS if code in _OF_A_RUN else 4 * MAX_ITEMS
    fields = _opened(frames[1], "frame of fields", most, records)
    if type(fields) is not list:
        raise WireError("a frame of fields that is no list")
    return fields


def _opened(data: bytes | memoryview, what: str, most: int, lists: int) -> Any:
    """The value of this frame, which has at most so many lists, none of them with more than `most` elements."""
    try:
        return open_bounded(data, most=most, containers=lists, unicode_errors="surrogatepass")
    except UNPACK_ERRORS as error:
        raise _unopened(what, error) from error


def _unopened(what: str, error: Exception) -> WireError:
    return WireError(f"a {what} that is no msgpack ({type(error).__name__})")


def _read_place(fields: list[Any]) -> tuple[bytes, bytes, int, int]:
    sender, addressee = _blob(fields[1]), _blob(fields[2])
    if len(sender) > _INCARNATION_MAX or len(addressee) > _INCARNATION_MAX:
        raise WireError("an incarnation id that is too long")
    return sender, addressee, _count(fields[3]), _count(fields[4])


def _read_payloads(frames: Sequence[bytes], own_frames: Any) -> list[bytes]:
    if type(own_frames) is list:
        if len(frames) != 1:
            raise WireError(f"payloads in the header and {len(frames) - 1} frames besides")
        return _blobs(own_frames)
    if _count(own_frames):
        if len(frames) != 1 + own_frames:
            raise WireError(f"{own_frames} payload frames announced, {len(frames) - 1} arrived")
        return list(frames[1:])
    if len(frames) != 2:
        raise WireError(f"one frame of payloads expected, {len(frames) - 1} arrived")
    return _blobs(_opened(frames[1], "payload frame", MAX_ITEMS, 1))


def _read_joined(frames: Sequence[bytes], data: Any) -> Packed:
    """Values end to end; how many they are is told by the spans (`_check_payload_count`)."""
    expected = 1 if data is not None else 2
    if len(frames) != expected:
        raise WireError(f"values end to end in {len(frames)} frames, {expected} expected")
    return Packed(0, frames[1] if data is None else _blob(data))


def _blobs(payloads: Any) -> list[bytes]:
    if type(payloads) is not list or not set(map(type, payloads)) <= _BYTES:
        raise WireError("payloads that are no list of bytes")
    return payloads


def _with_payloads(failures: list[m.FailedItem], payloads: list[bytes]) -> list[m.FailedItem]:
    if len(failures) != len(payloads):
        raise WireError(f"{len(payloads)} payloads for {len(failures)} failed items")
    return [dataclasses.replace(one, payload=payload) for one, payload in zip(failures, payloads, strict=True)]


def _check_payload_count(body: Any) -> None:
    payloads, spans = body.payloads, body.spans
    count = size(spans)
    if count > MAX_ITEMS:
        raise WireError(f"spans of {count} items; at most {MAX_ITEMS} come in one message")
    if type(payloads) is Packed:
        payloads.size = count
        if count > len(payloads.data):
            raise WireError(f"{len(payloads.data)} bytes of values for spans {spans[:6]}")
    elif count != len(payloads):
        raise WireError(f"{len(payloads)} payloads for spans {spans[:6]}")
    keys = getattr(body, "keys", b"")
    if keys and len(keys) != m.KEY_BYTES * len(payloads):
        raise WireError(f"{len(keys)} bytes of keys for {len(payloads)} items")


def _check_keys(body: m.Keys) -> None:
    failed = size(body.failed)
    if len(body.keys) % m.KEY_BYTES or len(body.failed_keys) != m.KEY_BYTES * failed:
        raise WireError(f"{len(body.keys)} and {len(body.failed_keys)} bytes of keys, with {failed} failed items")
