"""An item or a result that says which span it comes from: an extension around its bytes, made if traces are on.

What is inside is a dict. In a process that makes spans it arrives as a `TracedDict`, which knows more, and which the
calls of user code are not given; in any other one as it is. Nobody on the way has to know of it: neither machines nor
journal open what they carry. Only when an attempt of an item has raised, the ledger puts the span of that attempt
beside the item's own (`tried`), for the next attempt to be linked to.
"""

from __future__ import annotations

import struct
import threading
from typing import Any, NamedTuple

TRACED, TRIED = 13, 14
"""The codes of the extension: without and with the span of the attempt before."""

_HEAD = struct.Struct(">16s8sBd")
_TRIED = struct.Struct(">16s8sB")

OVERHEAD = _HEAD.size + _TRIED.size + 6
"""So many bytes it adds at most."""

_CODE_AT = {0xC7: 2, 0xC8: 3, 0xC9: 5}
"""Where the code of an extension is, by its first byte."""


class SpanId(NamedTuple):
    """What W3C's `traceparent` says of a span, and when it handed over, in seconds since the epoch."""

    trace: bytes
    """16 bytes."""
    span: bytes
    """8 bytes."""
    flags: int
    at: float


class TracedDict(dict[str, Any]):
    """A dict that knows the span it comes from."""

    __slots__ = ("before", "parent")

    parent: SpanId
    before: SpanId | None
    """That of the attempt that raised last, if it is an item that comes again."""


def traced(packed: bytes, parent: SpanId, most: int) -> bytes:
    """These packed bytes with their span; without it, if they were more than `most` then."""
    # with room for the span of an attempt, which may come later
    if len(packed) + OVERHEAD > most:
        return packed
    return _extension(TRACED, _HEAD.pack(*parent), packed)


def _extension(code: int, *content: bytes | memoryview) -> bytes:
    size = sum(map(len, content))
    if size < 1 << 8:
        head = bytes((0xC7, size, code))
    elif size < 1 << 16:
        head = b"\xc8" + size.to_bytes(2, "big") + bytes((code,))
    else:
        head = b"\xc9" + size.to_bytes(4, "big") + bytes((code,))
    return b"".join((head, *content))


def attempted(span: SpanId) -> bytes:
    """What an attempt that has raised tells of its span."""
    return _TRIED.pack(*span[:3])


def tried(packed: bytes, before: bytes) -> bytes:
    """A packed item with the span of its last attempt, as `attempted` has it; as it was, if it comes without a span."""
    at = _CODE_AT.get(packed[0] if packed else 0)
    if at is None or len(before) != _TRIED.size or packed[at] not in (TRACED, TRIED):
        return packed
    head = at + 1 + _HEAD.size
    value = head + (_TRIED.size if packed[at] == TRIED else 0)
    content = memoryview(packed)
    return _extension(TRIED, content[at + 1 : head], before, content[value:])


def parted(data: bytes, code: int) -> tuple[SpanId, SpanId | None, memoryview]:
    """The span, that of the attempt before, and the packed value. Raises ValueError for too few bytes."""
    size = _HEAD.size + (_TRIED.size if code == TRIED else 0)
    if len(data) <= size:
        raise ValueError("an extension for traces without a value")
    before = SpanId(*(*_TRIED.unpack_from(data, _HEAD.size), 0.0)) if code == TRIED else None
    return SpanId(*_HEAD.unpack_from(data)), before, memoryview(data)[size:]


_keeps_parents = threading.Event()


def keep_parents() -> None:
    """From here on dicts know their spans in this process; else they arrive as plain ones."""
    _keeps_parents.set()


def with_parent(value: Any, parent: SpanId, before: SpanId | None = None) -> Any:
    """The value, if it is a dict as one that knows its span, where somebody wants to know it."""
    if type(value) is not dict or not _keeps_parents.is_set():
        return value
    found = TracedDict(value)
    found.parent, found.before = parent, before
    return found
