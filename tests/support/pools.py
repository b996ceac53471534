"""What the tests of pools have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmqpipeline.protocol.commands import Execute
from zmqpipeline.protocol.events import Executed
from zmqpipeline.runtime.threads.pool import Pool
from zmqpipeline.serialization.pack import pack

Make = Callable[..., Pool]


def items(*numbers: int, attempt: int = 1, timeout: float = 0.0) -> Execute:
    """An Execute whose items are their numbers as text."""
    return Execute("C", attempt, timeout, list(numbers), [pack(b"%d" % number) for number in numbers])


def results(events: list[Any]) -> dict[int, bytes]:
    """What was returned, by number."""
    done = [one for one in events if isinstance(one, Executed)]
    return {n: p for one in done for n, p in zip(one.numbers, one.payloads, strict=True)}


def executed(count: int) -> Callable[[list[Any]], bool]:
    """Whether so many items have come back, returned or failed."""
    return lambda events: (
        sum(len(one.numbers) + len(one.failures) for one in events if isinstance(one, Executed)) >= count
    )
