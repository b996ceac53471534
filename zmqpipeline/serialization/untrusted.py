"""Opening msgpack that may come from anybody: what it announces is not believed.

msgpack makes room for an array as soon as its length is announced, and allows as many announced elements as the whole
input has bytes. Arrays inside of each other, each of which announces that many, would so take a thousand times eight
times the input: 64 KB take half a gigabyte, and half a second. So long arrays are opened only after a walk over the
structure, which builds nothing, has found that all of it is there.

What is there may be a bomb all the same: an empty container is one byte, and takes 64. Where it is known how many may
come, `containers` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

UNBELIEVED = 256
"""Arrays of more elements than this are opened after the walk only, so that 2 MB are the most that is taken in vain."""

UNPACK_ERRORS = (ValueError, TypeError, RecursionError, MemoryError, msgpack.UnpackException)
"""What comes of bytes that are no msgpack, or not one value exactly."""


def _counting(most: int) -> dict[str, Callable[..., Any]]:
    """Hooks for one call: at most `most` arrays, no maps, and no extensions; else ValueError."""
    left = most

    def counted(items: list[Any]) -> list[Any]:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {most} arrays")
        return items

    def refused(*_: Any) -> Any:
        raise ValueError("a map or an extension")

    return {"list_hook": counted, "object_hook": refused, "ext_hook": refused}


def open_bounded(
    data: bytes | bytearray | memoryview,
    *,
    believed: int = UNBELIEVED,
    most: int | None = None,
    containers: int | None = None,
    **how: Any,
) -> Any:
    """The value that these bytes hold, in which no array has more than `most` elements (None: there is no limit).

    `believed`: arrays of so many elements are opened at once, since that many are expected.
    `containers`: there are at most so many, all of them arrays, and no extensions. None: there may be any.

    `how` is as `msgpack.unpackb` takes it. Raises one of UNPACK_ERRORS, or whatever a hook raises. msgpack itself opens
    1024 levels of containers, and no more.
    """
    try:
        return msgpack.unpackb(data, max_array_len=believed, **how, **_hooks(containers))
    except ValueError:
        # it is malformed, or has a long array
        _walk(data)
    return msgpack.unpackb(data, max_array_len=len(data) if most is None else most, **how, **_hooks(containers))


def _hooks(containers: int | None) -> dict[str, Callable[..., Any]]:
    return {} if containers is None else _counting(containers)


def _walk(data: bytes | bytearray | memoryview) -> None:
    """Raise ValueError or UnpackException unless these bytes are one whole value."""
    walker = msgpack.Unpacker(max_buffer_size=len(data) or 1)
    walker.feed(data)
    walker.skip()
    if walker.tell() != len(data):
        raise ValueError(f"{len(data) - walker.tell()} bytes after the value")
