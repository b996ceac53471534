"""Workers: they execute the items of one task, on one thread or on several."""

from __future__ import annotations

import os
import socket
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, ClassVar, TypeVar

from zmqpipeline.address import EndpointAddress
from zmqpipeline.declared import ENDPOINT, TASK_TYPE, THREADS, Kind
from zmqpipeline.errors import SerializeError
from zmqpipeline.execution import Preparation
from zmqpipeline.handlers import fitted
from zmqpipeline.itemlog import about_items
from zmqpipeline.metadata import MetaDataWorker
from zmqpipeline.protocol.commands import Ended, Execute, SetMetadata, TakeBack
from zmqpipeline.protocol.worker import WorkerMachine
from zmqpipeline.role import CLOSE_SECONDS, Actions, Role, new_incarnation
from zmqpipeline.runtime.execution import Execution
from zmqpipeline.runtime.pool import Pool
from zmqpipeline.runtime.sockets import Transport
from zmqpipeline.serialize import item_packer, unpack, within_depth
from zmqpipeline.tasktype import TaskType

__all__ = ["MetaDataWorker", "MultiThreadedWorker", "SingleThreadedWorker", "Worker"]


AnyWorker = TypeVar("AnyWorker", bound="Worker")


class Worker(Role):
    """Base of the workers. Subclass `SingleThreadedWorker` or `MultiThreadedWorker`."""

    _log_name = "zmqpipeline.worker"
    _end_to_end = True
    _declares: ClassVar[dict[str, Kind]] = {
        "task_type": TASK_TYPE,
        "endpoint": ENDPOINT,
        "collector_endpoint": ENDPOINT,
    }

    task_type: TaskType
    """The task whose items this worker executes."""

    endpoint: EndpointAddress | str
    """Where the task gives out its items: the task's own `endpoint`."""

    collector_endpoint: EndpointAddress | str
    """Where the results go: the collector's `endpoint`."""

    metadata: dict[str, Any]
    """The run's metadata; known from `init_worker` on."""

    _threads: int | None
    _pool: Pool | None
    _preparation: Preparation | None

    def __new__(cls: type[AnyWorker], *args: Any, **kwargs: Any) -> AnyWorker:
        """Set up the private state here, so that a subclass need not call ``super().__init__()``."""
        worker = super().__new__(cls)
        if not hasattr(cls, "metadata"):
            worker.metadata = {}
        worker._threads = worker._pool = worker._preparation = None
        return worker

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Subclasses may take what they like; nothing is needed here."""

    @abstractmethod
    def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Execute one item and return the result for the collector; None is an empty one."""

    def init_worker(self) -> None:
        """Called once, on an executing thread, just before this worker's first item; others wait for it."""

    def init_thread(self, worker_index: int) -> None:
        """Called once in each thread, before its first item and after `init_worker`. Threads count from 0."""

    def _slots(self) -> int:
        return 1

    def _make_execution(self) -> Execution:
        """What is called for each item, once the metadata is known."""
        what = f"{type(self).__name__}.handle_execution"
        return Execution(fitted(self.handle_execution, 1), self._packer(what))

    def _execution(self) -> Execution:
        made = self._make_execution()
        made.call = within_depth(made.call, self.options.max_depth)
        if not self.options.log_json:
            return made
        return Execution(about_items(str(self.task_type), made.with_place()), made.packer, placed=True)

    def _packer(self, what: str) -> Callable[[], Callable[[Any], bytes]]:
        return partial(item_packer, what, self.options.max_message_bytes)

    def _make_preparation(self) -> Preparation:
        return Preparation(self._begin, fitted(self.init_thread, 1))

    def _begin(self) -> None:
        self._log.debug("The first item is here: init_worker is called.")
        self.init_worker()

    def _places(self) -> Iterable[EndpointAddress]:
        return self._address("workers", self.endpoint), self._address("results", self.collector_endpoint)

    def _open(self, transport: Transport) -> None:
        transport.connect("workers", self._address("workers", self.endpoint))
        transport.connect("results", self._address("results", self.collector_endpoint))

    def _make_machine(self) -> WorkerMachine:
        return WorkerMachine(
            str(self.task_type),
            slots=self._slots(),
            incarnation=new_incarnation(),
            host=socket.gethostname(),
            pid=os.getpid(),
            options=self.options,
        )

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        self._preparation = self._make_preparation()
        begin, leadership = self._preparation.begin, self._leadership
        pool = Pool(self._slots(), self._execution(), post, thread_start=begin, leadership=leadership)
        self._pool = pool
        return {
            SetMetadata: self._set_metadata,
            Execute: pool.submit,
            TakeBack: lambda command: pool.take_back(command.count),
        }

    def _set_metadata(self, command: SetMetadata) -> None:
        self.metadata = unpack(command.metadata) if command.metadata else {}
        if self._pool is not None:
            # before the first Execute of the run, so that no item of another is executed with it
            self._pool.execution = self._execution()

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.close(CLOSE_SECONDS)
            self._pool = None

    def _conclude(self, ended: Ended) -> None:
        if self._preparation is not None:
            self._preparation.conclude(f"The worker for task {self.task_type!r}")
        super()._conclude(ended)


class SingleThreadedWorker(Worker):
    """A worker that executes one item at a time: write `handle_execution`."""


class MultiThreadedWorker(Worker):
    """A worker with `n_threads` threads: `handle_execution` prepares an item, `handle_thread_execution` executes it."""

    _declares: ClassVar[dict[str, Kind]] = {**Worker._declares, "n_threads": THREADS}

    n_threads: int
    """How many threads execute items at the same time."""

    @abstractmethod
    def handle_thread_execution(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Execute one item: ``handle_thread_execution(self, data, index)``; several threads call it at once.

        Args:
            data: what `handle_execution` returned.
            index: the number of the thread, from 0.

        Returns:
            The result for the collector; None is an empty one.
        """

    def _slots(self) -> int:
        return self._threads or self.n_threads

    def _make_execution(self) -> Execution:
        name = type(self).__name__
        prepare, execute = fitted(self.handle_execution, 1), fitted(self.handle_thread_execution, 2)
        one_at_a_time = threading.Lock()

        def call(item: Any, index: int, number: int, attempt: int) -> Any:
            with one_at_a_time:
                data = prepare(item)
            if data is None:
                data = {}
            elif not isinstance(data, dict):
                raise SerializeError(_no_dict(f"{name}.handle_execution", data))
            return execute(data, index)

        return Execution(call, self._packer(f"{name}.handle_thread_execution"), placed=True)


def _no_dict(what: str, seen: object) -> str:
    return f"{what} returned a {type(seen).__name__}; it must return a dict or None. Return a dict for the thread."
