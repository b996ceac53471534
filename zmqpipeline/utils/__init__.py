"""The import paths of the first edition of the library: messages, serializer and shutdown."""

from __future__ import annotations

from zmqpipeline.utils import messages, serializer, shutdown

__all__ = ["messages", "serializer", "shutdown"]
