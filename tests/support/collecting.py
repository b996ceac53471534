"""A collector's thread, and the commands it is given."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.patience import PATIENCE, await_threads
from tests.support.transports import Posts
from zmqpipeline.protocol.commands import Collect
from zmqpipeline.runtime.threads.collecting import CollectorThread
from zmqpipeline.serialization.pack import pack

Make = Callable[..., CollectorThread]


def made_for(posts: Posts) -> Iterator[Make]:
    """Make threads that answer there; close them afterwards, and see to it that none of them is left."""
    before = set(threading.enumerate())
    made: list[CollectorThread] = []

    def make(
        collect: Any, failed: Any = lambda item: None, finished: Any = lambda command: None, **more: Any
    ) -> CollectorThread:
        def collecting(task: str, attempt: int) -> Any:
            return (lambda number, value: collect(task, attempt, number, value)), True

        made.append(CollectorThread(collecting, failed, finished, posts, **more))
        return made[-1]

    yield make
    for one in made:
        one.close(PATIENCE)
    await_threads(before)


def command(task: str, attempt: int, spans: Any, values: list[bytes], keys: bytes = b"") -> Collect:
    """A Collect of these values."""
    return Collect(task, attempt, spans, [pack(one) for one in values], keys)


def total(events: list[Any]) -> int:
    """How many items these Collected speak of."""
    return sum(sum(one.spans[1::2]) - sum(one.spans[0::2]) for one in events)
