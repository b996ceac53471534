"""Failed items on their way: in messages of a bounded size, since their texts travel in the header."""

from __future__ import annotations

from collections.abc import Iterator

from zmqpipeline.protocol import batching
from zmqpipeline.protocol.messages import FailedItem

_BESIDES = 200
"""What a failure takes besides its texts, of which a character may take four bytes."""


def in_messages(items: list[FailedItem]) -> Iterator[list[FailedItem]]:
    """These items, so many at a time as go into one message, at least one."""
    while items:
        trouble = [one.trouble for one in items]
        texts = [_BESIDES + 4 * (len(one.message) + len(one.traceback)) for one in trouble]
        count = batching.cut([size + len(one.payload) for size, one in zip(texts, items, strict=True)])
        yield items[:count]
        items = items[count:]
