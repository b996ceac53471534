"""The class API, filled in by functions: what the decorators compile to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from zmqpipeline.addresses import EndpointAddress, WorkerAddress
from zmqpipeline.definitions.registry import ServiceEntry, TaskEntry, WorkerEntry
from zmqpipeline.definitions.signatures import BoundHandler, Handler
from zmqpipeline.errors import SerializeError
from zmqpipeline.messages import MESSAGE_TYPE_DATA, MESSAGE_TYPE_END, MESSAGE_TYPE_READY
from zmqpipeline.protocol.commands import Produce
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.roles.collector import Collection, Collector, with_number
from zmqpipeline.roles.results import Failure
from zmqpipeline.roles.service import Call, ServiceWorker
from zmqpipeline.roles.task import LastAck, Step, Task, keyed
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.roles.worker import Worker
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.source import Begun, Exhausted, Keep, PassOver, Source
from zmqpipeline.serialization.pack import item_packer, pack_item

_log = logging.getLogger("zmqpipeline.task")
_OVER = object()


class FunctionTask(Task):
    """A task whose items come from a function: yielded, returned as an iterable, or one a call."""

    def __init__(self, entry: TaskEntry, endpoint: EndpointAddress, gate: Handler | None = None) -> None:
        """`gate` is the plan of an `available` function."""
        self.task_type = TaskType(entry.name)
        self.endpoint = endpoint
        self.dependencies = [TaskType(name) for name in entry.spec.depends_on]
        self._entry = entry
        self._gate = gate
        self._items: Iterator[Any] | None = None
        self._acks = LastAck(gated=gate is not None)

    def handle(
        self, data: dict[str, Any], address: str, msgtype: str, ack_data: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The next item, as for any other Task; the distributor itself takes a shorter way."""
        if self._items is None:
            ack_id, ack_task = ack_data.get("_id", 0), ack_data.get("_task_type", "")
            self._items = self._iterate(self._bound(), Produce(self.task_type, 1, address, ack_task, ack_id, b""))
        item: Any = next(self._items, _OVER)
        if item is _OVER:
            self.is_complete = True
            return None
        checked: dict[str, Any] = {} if item is None else item
        return checked

    def _spec(self) -> TaskSpec:
        return replace(self._entry.spec, has_gate=self._gate is not None)

    def _start(self, metadata: dict[str, Any], start: int = 0) -> Step:
        _log.info("Task %r begins.", str(self.task_type))
        self.initialize(metadata)
        step = self._times_step() if self._entry.keywords["times"] is not None else self._items_step(start)
        if (key := self._entry.keywords["key"]) is not None:
            step = self._keyed(step, key)
        if self._gate is not None:
            step = self._gated(step, self._gate)
        return Begun(step, start) if self._entry.plan is not None and "start" in self._entry.plan.names else step

    def _bound(self, start: int = 0) -> BoundHandler:
        assert self._entry.plan is not None
        constants = {"metadata": self.metadata, "task_type": self.task_type, "msgtype": MESSAGE_TYPE_READY}
        return self._entry.plan.bind({**constants, "start": start})

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
        if made is None or isinstance(made, dict):
            return iter((made,))
        if isinstance(made, (str, bytes)) or not isinstance(made, Iterable):
            raise SerializeError(
                f"The {_named(bound)} returned a {type(made).__name__}. "
                "Yield dicts, or return an iterable of them, one dict, or None."
            )
        return iter(made)

    def _items_step(self, start: int) -> Step:
        bound = self._bound(start)
        return _Items(lambda command: self._iterate(bound, command), item_packer(_named(bound)))

    def _times_step(self) -> Step:
        bound, times = self._bound(), self._entry.keywords["times"] or 0
        what, done = _named(bound), 0

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

    def _keyed(self, step: Step, key: str | Callable[[dict[str, Any]], Any]) -> Step:
        return keyed(step, key, str(self.task_type))

    def _gated(self, step: Step, gate: Handler) -> Step:
        bound = gate.bind({"metadata": self.metadata, "task_type": self.task_type})

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
        if type(keep) is PassOver:
            # what is done needs no packing
            before = keep.count
            for keep.count, _ in zip(range(before + 1, before + count + 1), self._items, strict=False):
                pass
            if keep.count < before + count:
                raise Exhausted
            return
        pack, left = self._pack, count
        # the range comes first: it must not end by taking an item that nobody asked for
        for left, item in zip(range(count - 1, -1, -1), self._items, strict=False):  # noqa: B007
            keep(pack(item))
        if left:
            raise Exhausted


def _named(bound: BoundHandler) -> str:
    return named(bound.what, bound.function)


def _names(unnamed: tuple[str, str], worker_init: Handler | None, thread_init: Handler | None) -> tuple[str, str]:
    worker, thread = unnamed
    return worker if worker_init is None else worker_init.what, thread if thread_init is None else thread_init.what


class FunctionWorker(Worker):
    """A worker whose items are executed by a function, on as many threads as it was told."""

    def __init__(
        self,
        entry: WorkerEntry,
        endpoint: EndpointAddress,
        collector_endpoint: EndpointAddress,
        worker_init: Handler | None = None,
        thread_init: Handler | None = None,
    ) -> None:
        """`worker_init` and `thread_init` are plans of the functions that make the resource."""
        super().__init__()
        assert entry.plan is not None
        self.task_type = TaskType(entry.name)
        self.endpoint = endpoint
        self.collector_endpoint = collector_endpoint
        self._plan = entry.plan
        keywords = entry.keywords
        self._threads = keywords["threads"]
        self.init_timeout = keywords["init_timeout"]
        self.max_items, self.max_memory = keywords["max_items"], keywords["max_memory"]
        self._worker_init = worker_init
        self._thread_init = thread_init
        self._resource: Any = None
        self._resources: dict[int, Any] = {}

    def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Call the function for one item, as if on the first thread."""
        result: dict[str, Any] | None = self._bound()(data, **self._values(0, 0, 1))
        return result

    def init_worker(self) -> None:
        """Make the resource of the whole worker."""
        if self._worker_init is not None:
            self._resource = self._worker_init.bind(self._constants())()

    def init_thread(self, worker_index: int) -> None:
        """Make the thread's own resource; without one it has the worker's."""
        resource = None
        if self._thread_init is not None:
            bound = self._thread_init.bind(self._constants())
            resource = bound(thread_index=worker_index, resource=self._resource)
        self._resources[worker_index] = self._resource if resource is None else resource

    def _init_names(self) -> tuple[str, str]:
        return _names(super()._init_names(), self._worker_init, self._thread_init)

    def _slots(self) -> int:
        return self._threads or 1

    def _constants(self) -> dict[str, Any]:
        return {"metadata": self.metadata, "task_type": self.task_type}

    def _bound(self) -> BoundHandler:
        return self._plan.bind(self._constants())

    def _values(self, index: int, number: int, attempt: int) -> dict[str, Any]:
        resource = self._resources.get(index)
        return {"thread_index": index, "number": number, "attempt": attempt, "resource": resource}

    def _make_execution(self) -> Execution:
        bound = self._bound()
        function, rest, packer = bound.function, bound.rest, self._packer(f"The {_named(bound)}")
        if not rest:
            return Execution(function, packer)

        def call(item: Any, index: int, number: int, attempt: int) -> Any:
            values = self._values(index, number, attempt)
            return function(item, **{name: values[name] for name in rest})

        return Execution(call, packer, placed=True)


class FunctionCollector(Collector):
    """A collector made of functions: one for each task or for all of them, and those for the end and for failures."""

    def __init__(
        self,
        endpoint: EndpointAddress,
        ack_endpoint: EndpointAddress,
        collectors: Mapping[str, Handler],
        single: Mapping[str, Handler],
    ) -> None:
        """`collectors` by task type ("" for all others); `single` holds finished, failed and ack_data, if given."""
        self.endpoint = endpoint
        self.ack_endpoint = ack_endpoint
        self._collectors = dict(collectors)
        self._single = dict(single)

    def handle_collection(self, data: dict[str, Any], task_type: str, msgtype: str) -> dict[str, Any] | None:
        """Call the function of this task for one result."""
        call, takes_number = self._make_collection()(task_type, 1)
        answer = with_number(call, takes_number=takes_number)(0, data)
        return answer if isinstance(answer, dict) else None

    def handle_finished(self, data: dict[str, Any], task_type: str, msgtype: str) -> dict[str, Any] | None:
        """Call the `finished` function; a dict that it returns goes to the distributor."""
        answer: dict[str, Any] | None = self._call_single("finished", msgtype=msgtype)
        return answer

    def handle_failed(self, failure: Failure) -> None:
        """Call the `failed` function."""
        plan = self._single.get("failed")
        if plan is not None:
            self._call(plan.bind({"metadata": self.metadata}), failure, task_type=failure.task_type)

    def get_ack_data(self) -> dict[str, Any] | None:
        """Call the `ack_data` function."""
        answer: dict[str, Any] | None = self._call_single("ack_data", task_type=self._last_task)
        return answer

    def _has_ack_data(self) -> bool:
        return "ack_data" in self._single

    def _finish(self) -> Any:
        return self.handle_finished({}, "", MESSAGE_TYPE_END)

    def _call_single(self, name: str, **values: Any) -> Any:
        plan = self._single.get(name)
        return None if plan is None else self._call(plan.bind({"metadata": self.metadata}), **values)

    def _make_collection(self) -> Collection:
        constants = {"metadata": self.metadata, "msgtype": MESSAGE_TYPE_DATA}
        bound = {name: plan.bind(constants) for name, plan in self._collectors.items()}
        for_all = bound.get("")

        def collection(task: str, attempt: int) -> tuple[Callable[..., Any], bool]:
            one = bound.get(task, for_all)
            if one is None:
                return (lambda data: None), False
            if not one.rest:
                return one.function, False
            call = partial(self._call, one, task_type=task, attempt=attempt)
            return (lambda number, data: call(data, number=number)), True

        return collection

    def _call(self, bound: BoundHandler, *first: Any, **values: Any) -> Any:
        """Call a function; if it takes the journal, within a savepoint of its own."""
        if "journal" not in bound.rest:
            return bound(*first, **values)
        if self._journal is None:
            # the parameter has a default: a collector whose functions need a journal does not begin without one
            return bound.function(*first, **{name: values[name] for name in bound.rest if name in values})
        with self._journal.item() as transaction:
            return bound(*first, journal=transaction, **values)

    def _whose(self, handler: str) -> str:
        plan = self._single["ack_data" if handler == "get_ack_data" else "finished"]
        return f"The {named(plan.what, plan.function)}"

    def _journal_user(self) -> str:
        plans = (*self._collectors.values(), *self._single.values())
        return next((plan.what for plan in plans if plan.needs("journal")), "")


class FunctionServiceWorker(ServiceWorker):
    """A service worker made of a function, and of those that make its resources."""

    def __init__(
        self,
        entry: ServiceEntry,
        endpoint: EndpointAddress,
        worker_init: Handler | None = None,
        thread_init: Handler | None = None,
    ) -> None:
        """What the two `init` functions return is the function's `resource`, the thread's own one first."""
        super().__init__("service-worker")
        self.task_type = TaskType(entry.name)
        self.endpoint = endpoint
        self.idempotent = entry.keywords["idempotent"]
        self._threads = entry.keywords["threads"]
        self.init_timeout = entry.keywords["init_timeout"]
        self._plan = entry.plan
        self._worker_init, self._thread_init = worker_init, thread_init
        self._resource: Any = None
        self._resources: dict[int, Any] = {}

    def handle_message(self, data: dict[str, Any], task_type: str, msgtype: str) -> Any:
        """Call the function for one request."""
        return self._make_call()(0, 0, 1, data)

    def init_worker(self) -> None:
        """Make the resource that all threads share."""
        if self._worker_init is not None:
            self._resource = self._worker_init.bind({"metadata": {}, "task_type": self.task_type})()

    def init_thread(self, worker_index: int) -> None:
        """Make the thread's own resource; without one it has the worker's."""
        resource = None
        if self._thread_init is not None:
            bound = self._thread_init.bind({"metadata": {}, "task_type": self.task_type})
            resource = bound(thread_index=worker_index, resource=self._resource)
        self._resources[worker_index] = self._resource if resource is None else resource

    def _init_names(self) -> tuple[str, str]:
        return _names(super()._init_names(), self._worker_init, self._thread_init)

    def _what(self) -> str:
        return f"The {named(self._plan.what, self._plan.function)}"

    def _make_call(self) -> Call:
        bound = self._plan.bind({"task_type": self.task_type, "msgtype": MESSAGE_TYPE_DATA})
        function, rest = bound.function, bound.rest
        if not rest:
            return lambda index, number, attempt, data: function(data)

        def call(index: int, number: int, attempt: int, data: Any) -> Any:
            resource = self._resources.get(index)
            values = {"thread_index": index, "attempt": attempt, "resource": resource}
            return function(data, **{name: values[name] for name in rest})

        return call
