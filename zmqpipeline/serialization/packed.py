"""Packed values end to end in one piece of bytes, as they travel: whoever wants all of them opens them in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import msgpack


class Packed(Sequence[bytes]):
    """`size` packed values, one after the other in `data`. As a sequence it is the bytes of each of them.

    Where one value ends and the next begins is looked up only when somebody asks for a single one. What is malformed
    does not raise here: the values from there on are empty bytes, which no value is, and fail when they are opened.
    """

    __slots__ = ("_parts", "data", "size")

    def __init__(self, size: int, data: bytes) -> None:
        self.size = size
        self.data = data
        self._parts: list[bytes] | None = None

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, at: int) -> bytes: ...

    @overload
    def __getitem__(self, at: slice) -> list[bytes]: ...

    def __getitem__(self, at: int | slice) -> bytes | list[bytes]:
        return self.parts()[at]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Packed, list)) and self.parts() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Packed({self.size}, {len(self.data)} bytes)"

    def parts(self) -> list[bytes]:
        """The bytes of each value."""
        if self._parts is None:
            data = bytes(self.data)
            ends = _ends(data, self.size)
            parts = [data[low:high] for low, high in zip([0, *ends], ends, strict=False)]
            self._parts = parts + [b""] * (self.size - len(parts))
        return self._parts


def _ends(data: bytes, count: int) -> list[int]:
    """Where the first `count` values end; fewer, if there are not so many."""
    walker = msgpack.Unpacker(max_buffer_size=len(data) or 1)
    walker.feed(data)
    ends: list[int] = []
    try:
        for _ in range(count):
            walker.skip()
            ends.append(walker.tell())
    except (ValueError, msgpack.UnpackException):
        # what cannot be read is told by the count
        return ends
    return ends
