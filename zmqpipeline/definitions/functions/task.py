"""A decorated source of items."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from zmqpipeline.addresses import EndpointAddress, WorkerAddress
from zmqpipeline.definitions.functions.names import name_of
from zmqpipeline.definitions.registry import TaskEntry
from zmqpipeline.definitions.signatures import BoundHandler, Handler
from zmqpipeline.errors import SerializeError
from zmqpipeline.messages import MESSAGE_TYPE_READY
from zmqpipeline.protocol.commands import Produce
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.roles.sources import ItemSource, Step
from zmqpipeline.roles.task import LastAck, keyed
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.threads.event_loop import AsyncItems, EventLoopThread
from zmqpipeline.runtime.threads.source import Begun, Exhausted, Keep, PassOver, Source
from zmqpipeline.serialization.pack import item_packer, pack_item

_log = logging.getLogger("zmqpipeline.task")


class FunctionSource(ItemSource):
    """A task whose items come from a function: yielded, returned as an iterable, or one a call."""

    def __init__(
        self,
        entry: TaskEntry,
        endpoint: EndpointAddress,
        gate: Handler | None = None,
        loop: EventLoopThread | None = None,
    ) -> None:
        """`gate` is the plan of an `available` function; an async source has an event loop of its own, or this one."""
        self._loop = loop or EventLoopThread(f"zmqpipeline-async-{entry.name}")
        self._task_type = TaskType(entry.name)
        self._endpoint, self._entry, self._plan, self._gate = endpoint, entry, entry.plan, gate
        self._metadata: dict[str, Any] = {}
        self._acks = LastAck(gated=gate is not None)

    @property
    def endpoint(self) -> EndpointAddress:
        """As the app has it."""
        return self._endpoint

    def spec(self) -> TaskSpec:
        """As it was decorated."""
        return replace(self._entry.spec, has_gate=self._gate is not None)

    def start(self, metadata: dict[str, Any], start: int = 0) -> Step:
        """The function is called with the first step."""
        _log.info("Task %r begins.", str(self._task_type))
        self._metadata = metadata
        step = self._times_step() if self._entry.keywords["times"] is not None else self._items_step(start)
        if (key := self._entry.keywords["key"]) is not None:
            step = keyed(step, key, str(self._task_type))
        if self._gate is not None:
            step = self._gated(step, self._gate)
        return Begun(step, start) if self._plan is not None and "start" in self._plan.names else step

    def close(self, timeout: float) -> None:
        """Of an async one: what it waits for is cancelled, and its `finally` is run."""
        self._loop.close(timeout)

    def _bound(self, start: int = 0) -> BoundHandler:
        # of a task without a function, results of others are the items: no step of it is ever taken
        assert self._plan is not None
        constants = {"metadata": self._metadata, "task_type": self._task_type, "msgtype": MESSAGE_TYPE_READY}
        return self._plan.bind({**constants, "start": start}, self._loop)

    def _call(self, bound: BoundHandler, command: Produce, number: int = 0) -> Any:
        if not bound.rest:
            return bound.function()
        return bound(ack_data=self._acks.of(command), address=WorkerAddress(command.address), number=number)

    def _iterate(self, bound: BoundHandler, command: Produce) -> Iterator[Any]:
        """Call the function; what it returned, item by item."""
        times = self._entry.keywords["times"]
        if times is not None:
            return (self._call(bound, command, number) for number in range(times))
        made = self._call(bound, command)
        if isinstance(made, AsyncItems):
            return made
        if hasattr(made, "__aiter__"):
            return AsyncItems(made, self._loop)
        if made is None or isinstance(made, dict):
            return iter((made,))
        if isinstance(made, (str, bytes)) or not isinstance(made, Iterable):
            raise SerializeError(
                f"The {name_of(bound)} returned a {type(made).__name__}. "
                "Yield dicts, or return an iterable of them, one dict, or None."
            )
        return iter(made)

    def _items_step(self, start: int) -> Step:
        bound = self._bound(start)
        return _Items(lambda command: self._iterate(bound, command), item_packer(name_of(bound)))

    def _times_step(self) -> Step:
        bound, times = self._bound(), self._entry.keywords["times"] or 0
        what, done = name_of(bound), 0

        def step(command: Produce) -> bytes:
            nonlocal done
            if done >= times:
                raise Exhausted
            done += 1
            packed = pack_item(self._call(bound, command, done - 1), what)
            # the last one says so, so that no gate is asked for an item that never comes
            if done == times:
                raise Exhausted(packed)
            return packed

        return step

    def _gated(self, step: Step, gate: Handler) -> Step:
        bound = gate.bind({"metadata": self._metadata, "task_type": self._task_type})

        def gated(command: Produce) -> bytes | tuple[bytes, bytes]:
            self._acks.pass_gate(command, lambda ack: bound(ack, address=WorkerAddress(command.address)))
            return step(command)

        return gated


class _Items(Source):
    """The items that a function yields or returns, one a step; it is called at the first one."""

    def __init__(self, begin: Callable[[Produce], Iterator[Any]], pack_next: Callable[[Any], bytes]) -> None:
        self._begin = begin
        self._pack = pack_next
        self._items: Iterator[Any] | None = None

    def __call__(self, command: Produce) -> bytes:
        taken: list[bytes | tuple[bytes, bytes]] = []
        self.take(command, 1, taken.append)
        (packed,) = taken
        assert isinstance(packed, bytes)
        return packed

    def take(self, command: Produce, count: int, keep: Keep) -> None:
        if self._items is None:
            self._items = self._begin(command)
        if isinstance(self._items, AsyncItems):
            self._take_async(self._items, count, keep)
            return
        if type(keep) is PassOver:
            # what is done needs no packing
            before = keep.count
            for keep.count, _ in zip(range(before + 1, before + count + 1), self._items, strict=False):
                if forks.in_child:
                    forks.end_child()
            if keep.count < before + count:
                raise Exhausted
            return
        pack, left = self._pack, count
        # the range comes first: it must not end by taking an item that nobody asked for
        for left, item in zip(range(count - 1, -1, -1), self._items, strict=False):  # noqa: B007
            if forks.in_child:
                forks.end_child()
            keep(pack(item))
        if left:
            raise Exhausted

    def _take_async(self, items: AsyncItems, count: int, keep: Keep) -> None:
        """On its event loop, without a word to this thread for each."""
        pack = self._pack
        if type(keep) is PassOver:
            before = keep.count
            taken = items.take(count, lambda item: keep(b""))
            keep.count = before + taken
        else:
            taken = items.take(count, lambda item: keep(pack(item)))
        if taken < count:
            raise Exhausted
