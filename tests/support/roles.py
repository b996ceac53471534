"""Small class-API programs for the tests, and a way to run their roles as threads over inproc."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.patience import PATIENCE
from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import RunFailed
from zmqpipeline.roles.base import Role
from zmqpipeline.roles.collector import Collector
from zmqpipeline.roles.distributor import Distributor, DistributorRunner
from zmqpipeline.roles.sources import MetadataSource
from zmqpipeline.roles.task import ClassSource, Task
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.roles.worker import MultiThreadedWorker, SingleThreadedWorker

TaskType.register_type("C")
_numbers = itertools.count()


class Rig:
    """Class-API roles for one task on addresses of their own; a test overrides what it is about."""

    def __init__(self) -> None:
        """Make the classes on new inproc addresses."""
        base = f"inproc://rig-{next(_numbers)}"
        work, results, acks = (EndpointAddress(f"{base}-{hop}") for hop in ("work", "results", "acks"))
        self.results_endpoint, self.acks_endpoint = results, acks
        self.metadata_endpoint = EndpointAddress(f"{base}-metadata")
        rig = self
        self.collected: list[tuple[dict[str, Any], str, str]] = []
        self.failures: list[Any] = []

        class TheTask(Task):
            task_type = TaskType("C")
            endpoint = work
            dependencies = ()
            sent = 0
            most = 10

            def handle(self, data: dict[str, Any], address: str, msgtype: str) -> dict[str, Any] | None:
                self.sent += 1
                self.is_complete = self.sent >= self.most
                return {"n": self.sent}

        class TheWorker(SingleThreadedWorker):
            task_type = TaskType("C")
            endpoint = work
            collector_endpoint = results
            executions = 0

            def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any] | None:
                self.executions += 1
                return data

        class TheThreads(MultiThreadedWorker):
            task_type = TaskType("C")
            endpoint = work
            collector_endpoint = results
            n_threads = 4
            executions = 0

            def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any] | None:
                self.executions += 1
                return data

            def handle_thread_execution(self, data: dict[str, Any], index: int) -> dict[str, Any] | None:
                return {**data, "index": index}

        class TheCollector(Collector):
            endpoint = results
            ack_endpoint = acks

            def handle_collection(self, data: dict[str, Any], task_type: str, msgtype: str) -> dict[str, Any] | None:
                rig.collected.append((data, task_type, msgtype))
                return None

            def handle_failed(self, failure: Any) -> None:
                rig.failures.append(failure)

        self.task, self.worker, self.threads, self.collector = TheTask, TheWorker, TheThreads, TheCollector

    def distributor(self, *tasks: type[Task], metadata: MetadataSource | None = None, **keywords: Any) -> Distributor:
        """A distributor for instances of these task classes, or of the rig's own."""
        made = Distributor(self.results_endpoint, self.acks_endpoint, **keywords)
        give_tasks(made, *tasks or (self.task,), metadata=metadata)
        return made


def give_tasks(role: Distributor, *tasks: type[Task], metadata: MetadataSource | None = None) -> None:
    """Have it run instances of these classes, whatever is registered."""
    DistributorRunner(role, sources=[ClassSource(cls()) for cls in tasks], metadata=metadata)


class RoleThread(threading.Thread):
    """Runs a role; `error` is what it raised."""

    def __init__(self, role: Role) -> None:
        """`role` is run by `start()`."""
        super().__init__(daemon=True, name=f"{type(role).__name__} of a test")
        self.role = role
        self.error: BaseException | None = None

    def run(self) -> None:
        """Run the role."""
        try:
            self.role.run()
        except BaseException as error:
            self.error = error


@contextmanager
def running(*roles: Role) -> Iterator[list[RoleThread]]:
    """Run roles as threads; on the way out each is asked to end, and none may be left."""
    threads = [RoleThread(role) for role in roles]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        for thread in reversed(threads):
            thread.role.shutdown()
        for thread in threads:
            thread.join(PATIENCE)
        assert not [thread.name for thread in threads if thread.is_alive()]


def run_to_the_end(*roles: Role, seconds: float = PATIENCE) -> None:
    """Run roles as threads until each has ended by itself; raise what the first one raised."""
    with running(*roles) as threads:
        for thread in threads:
            thread.join(seconds)
            assert not thread.is_alive(), f"{thread.name} did not end: {thread.role.machine.snapshot()}"
    errors = [thread.error for thread in threads if thread.error is not None]
    # that the run failed is said by each role; the reason is raised by one of them
    for error in sorted(errors, key=lambda error: isinstance(error, RunFailed)):
        raise error
