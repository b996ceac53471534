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
checked against the table `_FIELDS`, which is made from the annotations of the dataclasses once, at import (`fields`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Container, Sequence
from operator import attrgetter
from typing import Any, get_args

import msgpack

from zmqpipeline.errors import WireError
from zmqpipeline.options import Options
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import size
from zmqpipeline.protocol.fields import LONG_SPANS, MAX_NUMBER, SPANS, at_once, blob, count, plan, same
from zmqpipeline.serialization.packed import Packed
from zmqpipeline.serialization.untrusted import UNBELIEVED, UNPACK_ERRORS, open_bounded

VERSION = 5
"""The first byte of every message."""

LARGE = 32 * 1024
"""From this size on (bytes), a payload is a frame of its own."""

INLINE = 4 * 1024
"""Up to so many bytes in all, payloads travel in the header."""

MAX_FIELDS_BYTES = 4 * 1024 * 1024
"""The most bytes of a message's own fields, in a frame of their own."""

MAX_STATE_BYTES = 16 * 1024 * 1024
"""The same for the messages that tell all of a run. What is done of it comes in parts, if it is much (`Ranges`)."""

LEAST_LIMIT = 1024 * 1024
"""Payloads of so many bytes in all are read whatever `max_message_bytes` says: a batch of smaller ones has them."""

MAX_ITEMS = 16_384
"""The most payloads of one message; this library sends no more than 3000."""

MAX_RECORDS = 1_000_000
"""The most lists in the fields of one message that tells all of a run: each of 4000 workers may name 64 items."""

_SLACK = 64 * 1024
"""What a batch may have beside its payloads, packed."""

_DEFAULTS = Options()
_INCARNATION_MAX = 16
_CODES: tuple[type, ...] = get_args(m.Message)
_CODE_OF = {cls: code for code, cls in enumerate(_CODES)}


_FIELDS = [plan(cls, SPANS) for cls in _CODES]
_LONG_FIELDS = [plan(cls, LONG_SPANS) for cls in _CODES]
_NAMES = [[one.name for one in dataclasses.fields(cls) if one.type != "Blobs"] for cls in _CODES]
_HAS_PAYLOADS = [any(one.type == "Blobs" for one in dataclasses.fields(cls)) for cls in _CODES]
_PAYLOADS_AT = [
    [one.type for one in dataclasses.fields(cls)].index("Blobs") if has else 0
    for cls, has in zip(_CODES, _HAS_PAYLOADS, strict=True)
]
_READERS = [readers for readers, _ in _FIELDS]
_AT_ONCE: dict[int, Callable[[list[Any]], list[Any]]] = {}
"""By code: what reads all fields of a short message; made when the first one comes."""
_LONG_READERS = [readers for readers, _ in _LONG_FIELDS]
# The fields of a message at once, and those that are not written as they are.
_GETTERS = [attrgetter(*names) if len(names) > 1 else None for names in _NAMES]
_WRITERS = [[(index, write) for index, write in enumerate(writers) if write is not same] for _, writers in _FIELDS]
# The payloads of failed items, too, are no part of the header, although they are fields of its records.
_GIVE_UP = _CODE_OF[m.GiveUp]
_HAS_PAYLOADS[_GIVE_UP] = True
_END_TO_END = frozenset((_CODE_OF[m.Work], _CODE_OF[m.Results], _CODE_OF[m.Fetched]))
_VERSION_BYTE = bytes([VERSION])
_BYTES = {bytes}
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
        getter, writers = _GETTERS[code], _WRITERS[code]
        values = list(getter(body)) if getter is not None else [getattr(body, name) for name in _NAMES[code]]
        for index, write in writers:
            values[index] = write(values[index])
        fields = [code, envelope.sender, envelope.addressee, envelope.number, envelope.received, *values]
        if not _HAS_PAYLOADS[code]:
            return self._headed(fields, body)
        if type(payloads) is Packed and self._end_to_end and code in _END_TO_END:
            is_short = len(payloads.data) <= INLINE
            fields.append(payloads.data if is_short else None)
            return [*self._headed(fields, body), *(() if is_short else (payloads.data,))]
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
        values = fields[5:]
        if is_long := fields[0] < 0:
            values = [*_read_fields(code, frames), *values]
            frames = [frames[0], *frames[2:]]
        if len(frames) > 1 and (total := sum(map(len, frames)) - len(frames[0])) > self._max_payloads:
            raise WireError(
                f"a message of {total} bytes, of which {self._max_payloads} are read. If it comes from a role of this "
                "pipeline, give all of them the same max_message_bytes"
            )
        return _decoded(code, fields, values, frames, is_long=is_long)


_standard = Decoder(_DEFAULTS)


def decode(frames: Sequence[bytes]) -> m.Envelope:
    """The envelope that these frames hold, within the limits that are the default. Raises WireError, as a Decoder."""
    return _standard.decode(frames)


def _decoded(
    code: int,
    fields: list[Any],
    values: list[Any],
    frames: Sequence[bytes],
    *,
    is_long: bool,
) -> m.Envelope:
    _, sender, addressee, number, received = fields[:5]
    if not (
        type(sender) is bytes is type(addressee)
        and len(sender) <= _INCARNATION_MAX >= len(addressee)
        and type(number) is int is type(received)
        and 0 <= number <= MAX_NUMBER >= received >= 0
    ):
        raise WireError(
            "a header without the ids of two processes and two numbers, or with one that is too long or too large"
        )
    extra = _HAS_PAYLOADS[code]
    if len(values) != len(_READERS[code]) + extra:
        raise WireError(f"a {_CODES[code].__name__} with {len(values)} fields")
    how = values.pop() if extra else None
    if is_long:
        arguments = [read(value) for read, value in zip(_LONG_READERS[code], values, strict=True)]
    else:
        arguments = (_AT_ONCE.get(code) or _reads_at_once(code))(values)
    if code == _GIVE_UP:
        arguments[1] = _with_payloads(arguments[1], _read_payloads(frames, how))
    elif code in _END_TO_END and not isinstance(how, (list, int)):
        arguments.insert(_PAYLOADS_AT[code], _read_joined(frames, how))
    elif extra:
        arguments.insert(_PAYLOADS_AT[code], _read_payloads(frames, how))
    elif len(frames) != 1:
        raise WireError(f"a {_CODES[code].__name__} with {len(frames)} frames")
    body = _CODES[code](*arguments)
    if extra and code != _GIVE_UP:
        _check_payload_count(body)
    elif type(body) is m.Keys:
        _check_keys(body)
    return m.Envelope(sender, addressee, number, received, body)


def _reads_at_once(code: int) -> Callable[[list[Any]], list[Any]]:
    made = _AT_ONCE[code] = at_once(_READERS[code])
    return made


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


def _read_payloads(frames: Sequence[bytes], own_frames: Any) -> list[bytes]:
    if type(own_frames) is list:
        if len(frames) != 1:
            raise WireError(f"payloads in the header and {len(frames) - 1} frames besides")
        return _blobs(own_frames)
    if count(own_frames):
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
    return Packed(0, frames[1] if data is None else blob(data))


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
