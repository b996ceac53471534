"""The class API is typed: read by type checkers, never run."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

from zmqpipeline import Collector, Distributor, EndpointAddress, Pipeline, SingleThreadedWorker, Task, TaskType

TaskType.register_type("C")
app = Pipeline("classes")


@app.register
class Numbers(Task):
    """A task."""

    task_type = TaskType("C")
    endpoint = EndpointAddress("ipc://worker.ipc")
    dependencies = ()

    def handle(self, data: dict[str, Any], address: str, msgtype: str) -> dict[str, int]:
        """One item."""
        self.n_count += 1
        self.is_complete = self.n_count >= 3
        return {"n": self.n_count}


class Square(SingleThreadedWorker):
    """A worker."""

    task_type = TaskType("C")
    endpoint = EndpointAddress("ipc://worker.ipc")
    collector_endpoint = EndpointAddress("ipc://collector.ipc")

    def handle_execution(self, data: dict[str, int]) -> dict[str, int]:
        """Execute."""
        return {"square": data["n"] ** 2}


class Gather(Collector):
    """A collector."""

    endpoint = EndpointAddress("ipc://collector.ipc")
    ack_endpoint = EndpointAddress("ipc://ack.ipc")

    def handle_collection(self, data: dict[str, int], task_type: str, msgtype: str) -> None:
        """Collect."""


assert_type(Numbers().handle({}, "", ""), dict[str, int])
assert_type(app.register(Square), type[Square])
Distributor.register_task(Numbers)
distributor = Distributor(Gather.endpoint, Gather.ack_endpoint)
assert_type(distributor.finished_data, dict[str, Any])
assert_type(distributor.status, int | None)
