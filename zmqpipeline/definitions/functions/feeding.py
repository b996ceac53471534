"""Decorated functions that make items of results, as a collector calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions.functions.names import name_of
from zmqpipeline.definitions.functions.task import FunctionSource
from zmqpipeline.definitions.registry import TaskEntry
from zmqpipeline.roles.task import digest_of
from zmqpipeline.runtime.threads.feeding import Feed, Feeds
from zmqpipeline.runtime.threads.source import Take, steps
from zmqpipeline.serialization.pack import item_packer


class FunctionStages:
    """The fed tasks of an app."""

    def __init__(self, tasks: Mapping[str, TaskEntry]) -> None:
        """`tasks` are all of the app."""
        self._tasks = [entry for entry in tasks.values() if entry.spec.for_each]

    @property
    def fed(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(entry.name for entry in self._tasks)

    def feeds(self, metadata: dict[str, Any], max_bytes: int) -> Feeds:
        """The functions, for a run with this metadata."""
        by_feeder: dict[str, list[Feed]] = {}
        roots: dict[str, Callable[[int], Take]] = {}
        for entry in self._tasks:
            for feeder in entry.spec.for_each:
                by_feeder.setdefault(feeder, []).append(_feed(entry, feeder, metadata, max_bytes))
            if entry.first is not None:
                roots[entry.name] = partial(_roots, entry, metadata)
        return Feeds(self.fed, by_feeder, roots)


def _feed(entry: TaskEntry, feeder: str, metadata: dict[str, Any], max_bytes: int) -> Feed:
    key = entry.keywords["key"]
    digest = None if key is None else digest_of(key, entry.name)
    plan = entry.plan
    if plan is None:
        return Feed(entry.name, None, (), "", bytes, digest)
    bound = plan.bind({"metadata": metadata, "task_type": feeder})
    what = name_of(bound)
    return Feed(entry.name, bound.function, bound.rest, what, item_packer(f"The {what}", max_bytes), digest)


def _roots(entry: TaskEntry, metadata: dict[str, Any], start: int) -> Take:
    """The steps of a task's own first items, as those of any source; each is called again from the beginning."""
    assert entry.first is not None
    source = TaskEntry(entry.name, entry.spec, entry.first, keywords={**entry.keywords, "times": None})
    task = FunctionSource(source, EndpointAddress("inproc://nowhere"))
    inner: Take | None = None

    def take(*given: Any) -> None:
        # on the source's own thread
        nonlocal inner
        if inner is None:
            inner = steps(task.start(metadata))
        inner(*given)

    return take
