"""A decorated service as a `ServiceWorker`."""

from __future__ import annotations

from typing import Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions.functions.handler import FunctionHandler
from zmqpipeline.definitions.registry import ServiceEntry
from zmqpipeline.definitions.signatures import Handler
from zmqpipeline.messages import MESSAGE_TYPE_DATA
from zmqpipeline.options import Options
from zmqpipeline.roles.service import ServiceWorker, reply_packer
from zmqpipeline.roles.task_type import TaskType


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
        keywords = entry.keywords
        self.idempotent, self.init_timeout = keywords["idempotent"], keywords["init_timeout"]
        constants = {"metadata": {}, "task_type": self.task_type, "msgtype": MESSAGE_TYPE_DATA}
        self.handler = FunctionHandler(
            entry.plan, keywords, (worker_init, thread_init), lambda: constants, reply_packer
        )
        """What its runner calls."""

    def handle_message(self, data: dict[str, Any], task_type: str, msgtype: str) -> Any:
        """Call the function for one request, as if on the first thread."""
        return self.handler.execution(Options()).with_place()(data, 0, 0, 1)
