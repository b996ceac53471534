"""What functions are called in messages."""

from __future__ import annotations

from zmqpipeline.definitions.signatures import BoundHandler, Handler
from zmqpipeline.runtime.error_text import named


def name_of(handler: Handler | BoundHandler) -> str:
    """The function, with its file and line."""
    return named(handler.what, handler.function)
