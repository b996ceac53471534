"""Opening msgpack that may come from anybody: what it announces is not believed.

msgpack makes room for an array as soon as its length is announced, and allows as many announced elements as the whole
input has bytes. Arrays inside of each other, each of which announces that many, would so take a thousand times eight
times the input: 64 KB take half a gigabyte, and half a second. So long arrays are opened only after a walk over the
structure, which builds nothing, has found that all of it is there.
"""

from __future__ import annotations

from typing import Any

import msgpack

UNBELIEVED = 256
"""Arrays of more elements than this are opened after the walk only, so that 2 MB are the most that is taken in vain."""

UNPACK_ERRORS = (ValueError, TypeError, RecursionError, MemoryError, msgpack.UnpackException)
"""What comes of bytes that are no msgpack, or not one value exactly."""


def open_bounded(
    data: bytes | bytearray | memoryview, *, believed: int = UNBELIEVED, most: int | None = None, **how: Any
) -> Any:
    """The value that these bytes hold, in which no array has more than `most` elements (None: there is no limit).

    `believed`: arrays of so many elements are opened at once, since that many are expected.

    `how` is as `msgpack.unpackb` takes it. Raises one of UNPACK_ERRORS, or whatever a hook raises. msgpack itself opens
    1024 levels of containers, and no more.
    """
    try:
        return msgpack.unpackb(data, max_array_len=believed, **how)
    except ValueError:
        # it is malformed, or has a long array
        _walk(data)
    return msgpack.unpackb(data, max_array_len=len(data) if most is None else most, **how)


def _walk(data: bytes | bytearray | memoryview) -> None:
    """Raise ValueError or UnpackException unless these bytes are one whole value."""
    walker = msgpack.Unpacker(max_buffer_size=len(data) or 1)
    walker.feed(data)
    walker.skip()
    if walker.tell() != len(data):
        raise ValueError(f"{len(data) - walker.tell()} bytes after the value")
