"""Decorated functions that make items of results, as a collector calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions.functions.names import name_of
from zmqpipeline.definitions.functions.task import FunctionSource
from zmqpipeline.definitions.registry import TaskEntry
from zmqpipeline.protocol.delivery.gathers import Gather, gathers
from zmqpipeline.protocol.messages import FailedItem
from zmqpipeline.roles.results import Failure
from zmqpipeline.roles.task import digest_of
from zmqpipeline.runtime.threads.event_loop import EventLoopThread
from zmqpipeline.runtime.threads.feeding import Feed, Feeds, GatherFeed
from zmqpipeline.runtime.threads.source import Take, steps
from zmqpipeline.serialization.pack import item_packer


class FunctionStages:
    """The fed tasks of an app."""

    def __init__(self, tasks: Mapping[str, TaskEntry], loop: EventLoopThread | None = None) -> None:
        """`tasks` are all of the app; async functions run on this event loop."""
        self._loop = loop or EventLoopThread("zmqpipeline-async-stages")
        self._tasks = [entry for entry in tasks.values() if entry.spec.for_each]
        self._gathers = {one.task: one for one in gathers({name: entry.spec for name, entry in tasks.items()})}

    @property
    def fed(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(entry.name for entry in self._tasks)

    def close(self, timeout: float) -> None:
        """What async functions have left behind is ended."""
        self._loop.close(timeout)

    def feeds(self, metadata: dict[str, Any], max_bytes: int) -> Feeds:
        """The functions, for a run with this metadata."""
        by_feeder: dict[str, list[Feed]] = {}
        roots: dict[str, Callable[[int], Take]] = {}
        gathered: dict[str, GatherFeed] = {}
        values: dict[str, Callable[[dict[str, Any]], bytes]] = {}
        for entry in self._tasks:
            if gather := self._gathers.get(entry.name):
                gathered[entry.name] = _gather_feed(entry, gather, metadata, max_bytes, self._loop)
            for feeder in () if gather else entry.spec.for_each:
                by_feeder.setdefault(feeder, []).append(_feed(entry, feeder, metadata, max_bytes, self._loop))
            if entry.spec.rate_by is not None:
                values[entry.name] = digest_of(entry.spec.rate_by, entry.name, "which its rate goes by (rate_by)")
            if entry.first is not None:
                roots[entry.name] = partial(_roots, entry, metadata, self._loop)
        return Feeds(self.fed, by_feeder, gathered, roots, values)


def _digest_of_key(entry: TaskEntry) -> Callable[[dict[str, Any]], bytes] | None:
    key = entry.keywords["key"]
    return None if key is None else digest_of(key, entry.name)


def _feed(entry: TaskEntry, feeder: str, metadata: dict[str, Any], max_bytes: int, loop: EventLoopThread) -> Feed:
    digest, plan = _digest_of_key(entry), entry.plan
    if plan is None:
        return Feed(entry.name, None, (), "", bytes, digest)
    bound = plan.bind({"metadata": metadata, "task_type": feeder}, loop)
    what = name_of(bound)
    return Feed(entry.name, bound.function, bound.rest, what, item_packer(f"The {what}", max_bytes), digest)


def _gather_feed(
    entry: TaskEntry, gather: Gather, metadata: dict[str, Any], max_bytes: int, loop: EventLoopThread
) -> GatherFeed:
    digest = _digest_of_key(entry)
    assert entry.plan is not None
    bound = entry.plan.bind({"metadata": metadata, "task_type": gather.of}, loop)
    what, function = name_of(bound), bound.function
    if "failures" in bound.rest:
        function = partial(_with_failures, function)
    return GatherFeed(gather, function, bound.rest, what, item_packer(f"The {what}", max_bytes), digest)


def _with_failures(
    function: Callable[..., Any], parent: Any, results: list[Any], *, failures: list[FailedItem], **names: Any
) -> Any:
    return function(parent, results, failures=[Failure.from_item(one) for one in failures], **names)


def _roots(entry: TaskEntry, metadata: dict[str, Any], loop: EventLoopThread, start: int) -> Take:
    """The steps of a task's own first items, as those of any source; each is called again from the beginning."""
    assert entry.first is not None
    source = TaskEntry(entry.name, entry.spec, entry.first, keywords={**entry.keywords, "times": None})
    task = FunctionSource(source, EndpointAddress("inproc://nowhere"), loop=loop)
    inner: Take | None = None

    def take(*given: Any) -> None:
        # on the source's own thread
        nonlocal inner
        if inner is None:
            inner = steps(task.start(metadata))
        inner(*given)

    return take
