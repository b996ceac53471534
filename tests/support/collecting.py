"""A collector's thread, and the commands it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmqpipeline.protocol.commands import Collect
from zmqpipeline.runtime.threads.collecting import CollectorThread
from zmqpipeline.serialization.pack import pack

Make = Callable[..., CollectorThread]


def command(task: str, attempt: int, spans: Any, values: list[bytes], keys: bytes = b"") -> Collect:
    """A Collect of these values."""
    return Collect(task, attempt, spans, [pack(one) for one in values], keys)


def total(events: list[Any]) -> int:
    """How many items these Collected speak of."""
    return sum(sum(one.spans[1::2]) - sum(one.spans[0::2]) for one in events)
