"""Opening the values of a whole message at once, on the threads of user code."""

from __future__ import annotations

from typing import Any

from zmqpipeline.errors import SerializeError
from zmqpipeline.protocol.messages import Blobs
from zmqpipeline.serialization.pack import unpack, unpack_all
from zmqpipeline.serialization.packed import Packed


def open_all(payloads: Blobs) -> list[Any] | None:
    """Each of these values, opened; None if that raises for any: then each must be opened by itself, and fail alone."""
    try:
        if isinstance(payloads, Packed):
            return unpack_all(payloads.data, len(payloads))
        return list(map(unpack, payloads))
    except (SerializeError, MemoryError):
        return None
