"""A decorated worker function as a `Worker`."""

from __future__ import annotations

from typing import Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions.functions.names import init_names, name_of
from zmqpipeline.definitions.functions.resources import Resources
from zmqpipeline.definitions.registry import WorkerEntry
from zmqpipeline.definitions.signatures import BoundHandler, Handler
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.roles.worker import Worker
from zmqpipeline.runtime.threads.execution import Execution


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
        self.concurrency = keywords["concurrency"]
        self.init_timeout = keywords["init_timeout"]
        self.max_items, self.max_memory = keywords["max_items"], keywords["max_memory"]
        self._inits = worker_init, thread_init
        self._resources = Resources()

    def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Call the function for one item, as if on the first thread."""
        result: dict[str, Any] | None = self._bound()(data, **self._values(0, 0, 1))
        return result

    def init_worker(self) -> Any:
        """Make the resource of the whole worker."""
        init = self._inits[0]
        return None if init is None else init.bind(self._constants())()

    def init_thread(self, worker_index: int) -> Any:
        """Make the thread's own resource; without one it has the worker's."""
        init = self._inits[1]
        if init is None:
            return None
        return init.bind(self._constants())(thread_index=worker_index, resource=self._resources.shared)

    def _has_worker(self, resource: Any) -> None:
        self._resources.shared = resource

    def _has_thread(self, index: int, resource: Any) -> None:
        self._resources.keep_own(index, resource)

    def _init_names(self) -> tuple[str, str]:
        return init_names(super()._init_names(), *self._inits)

    def _is_async(self) -> bool:
        return self._plan.is_async

    def _what(self) -> str:
        return f"The {name_of(self._bound())}"

    def _constants(self) -> dict[str, Any]:
        return {"metadata": self.metadata, "task_type": self.task_type}

    def _bound(self) -> BoundHandler:
        return self._plan.bind(self._constants())

    def _values(self, index: int, number: int, attempt: int) -> dict[str, Any]:
        resource = self._resources.of(index)
        return {"thread_index": index, "number": number, "attempt": attempt, "resource": resource}

    def _make_execution(self) -> Execution:
        bound = self._bound()
        function, rest, packer = bound.function, bound.rest, self._packer(self._what())
        if not rest:
            return Execution(function, packer)

        def call(item: Any, index: int, number: int, attempt: int) -> Any:
            values = self._values(index, number, attempt)
            return function(item, **{name: values[name] for name in rest})

        return Execution(call, packer, placed=True)
