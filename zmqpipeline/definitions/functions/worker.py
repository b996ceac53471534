"""A decorated worker function as a `Worker`."""

from __future__ import annotations

from functools import partial
from typing import Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions.functions.handler import FunctionHandler, Packer
from zmqpipeline.definitions.registry import WorkerEntry
from zmqpipeline.definitions.signatures import Handler
from zmqpipeline.options import Options
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.roles.worker import Worker
from zmqpipeline.serialization.pack import item_packer


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
        keywords = entry.keywords
        self.init_timeout = keywords["init_timeout"]
        self.max_items, self.max_memory = keywords["max_items"], keywords["max_memory"]
        self.handler = FunctionHandler(entry.plan, keywords, (worker_init, thread_init), self._constants, _packer)
        """What its runner calls."""

    def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Call the function for one item, as if on the first thread."""
        result: dict[str, Any] | None = self.handler.execution(Options()).with_place()(data, 0, 0, 1)
        return result

    def _constants(self) -> dict[str, Any]:
        return {"metadata": self.metadata, "task_type": self.task_type}


def _packer(what: str, options: Options) -> Packer:
    return partial(item_packer, what, options.max_message_bytes)
