"""User values to bytes and back, under the names of the first edition of the library."""

from __future__ import annotations

from typing import Any

from zmqpipeline.serialization.pack import pack, unpack


def serialize(data: Any) -> bytes:
    """Return `data` as bytes. Raises SerializeError, which names the key path, for what cannot be packed."""
    return pack(data)


def deserialize(frame: bytes) -> Any:
    """Undo `serialize`. Raises SerializeError if the bytes are no packed value."""
    return unpack(frame)
