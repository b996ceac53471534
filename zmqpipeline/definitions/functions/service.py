"""A decorated service as a `ServiceWorker`."""

from __future__ import annotations

from typing import Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions.functions.names import init_names
from zmqpipeline.definitions.functions.resources import Resources
from zmqpipeline.definitions.registry import ServiceEntry
from zmqpipeline.definitions.signatures import Handler
from zmqpipeline.messages import MESSAGE_TYPE_DATA
from zmqpipeline.roles.service import Call, ServiceWorker
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.runtime.error_text import named


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
        self.concurrency = entry.keywords["concurrency"]
        self.init_timeout = entry.keywords["init_timeout"]
        self._plan = entry.plan
        self._inits = worker_init, thread_init
        self._resources = Resources()

    def handle_message(self, data: dict[str, Any], task_type: str, msgtype: str) -> Any:
        """Call the function for one request."""
        return self._make_call()(0, 0, 1, data)

    def init_worker(self) -> Any:
        """Make the resource that all threads share."""
        init = self._inits[0]
        return None if init is None else init.bind({"metadata": {}, "task_type": self.task_type})()

    def init_thread(self, worker_index: int) -> Any:
        """Make the thread's own resource; without one it has the worker's."""
        init = self._inits[1]
        if init is None:
            return None
        bound = init.bind({"metadata": {}, "task_type": self.task_type})
        return bound(thread_index=worker_index, resource=self._resources.shared)

    def _has_worker(self, resource: Any) -> None:
        self._resources.shared = resource

    def _has_thread(self, index: int, resource: Any) -> None:
        self._resources.keep_own(index, resource)

    def _init_names(self) -> tuple[str, str]:
        return init_names(super()._init_names(), *self._inits)

    def _is_async(self) -> bool:
        return self._plan.is_async

    def _what(self) -> str:
        return f"The {named(self._plan.what, self._plan.function)}"

    def _make_call(self) -> Call:
        bound = self._plan.bind({"task_type": self.task_type, "msgtype": MESSAGE_TYPE_DATA})
        function, rest = bound.function, bound.rest
        if not rest:
            return lambda index, number, attempt, data: function(data)

        def call(index: int, number: int, attempt: int, data: Any) -> Any:
            resource = self._resources.of(index)
            values = {"thread_index": index, "attempt": attempt, "resource": resource}
            return function(data, **{name: values[name] for name in rest})

        return call
