"""Workers: they execute the items of one task, on one thread or on several."""

from __future__ import annotations

import inspect
import os
import socket
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError, RunFailed, SerializeError
from zmqpipeline.options import size_in_bytes
from zmqpipeline.protocol.commands import Ended, Execute, LookForEnd, SetMetadata, TakeBack
from zmqpipeline.protocol.events import EndFound
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.worker import WorkerMachine
from zmqpipeline.roles.attributes import (
    CONCURRENCY,
    COUNT_LIMIT,
    ENDPOINT,
    MEMORY_LIMIT,
    TASK_TYPE,
    THREADS,
    TIME_LIMIT,
    AttributeSpec,
    with_accepted_args,
)
from zmqpipeline.roles.base import Actions, new_incarnation
from zmqpipeline.roles.calling import Calling
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.runtime import child_report
from zmqpipeline.runtime.ended_runs import find_early_note, find_note
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.preparation import Preparation
from zmqpipeline.runtime.transport.transport import Transport
from zmqpipeline.runtime.tuning import retiring
from zmqpipeline.serialization.pack import item_packer, unpack, within_depth

if TYPE_CHECKING:
    from zmqpipeline.protocol.recorder import Recorder

AnyWorker = TypeVar("AnyWorker", bound="Worker")


class Worker(Calling):
    """Base of the workers. Subclass `SingleThreadedWorker` or `MultiThreadedWorker`."""

    _log_name = "zmqpipeline.worker"
    _calls = "handle_execution"
    _end_to_end = True
    _declares: ClassVar[dict[str, AttributeSpec]] = {
        "task_type": TASK_TYPE,
        "endpoint": ENDPOINT,
        "collector_endpoint": ENDPOINT,
        "init_timeout": TIME_LIMIT,
        "concurrency": CONCURRENCY,
        "max_items": COUNT_LIMIT,
        "max_memory": MEMORY_LIMIT,
    }

    task_type: TaskType
    """The task whose items this worker executes."""

    endpoint: EndpointAddress | str
    """Where the task gives out its items: the task's own `endpoint`."""

    collector_endpoint: EndpointAddress | str
    """Where the results go: the collector's `endpoint`."""

    init_timeout: float | None = 60.0
    """Seconds that `init_worker` and `init_thread` may take together; past it the worker ends. None: any time.

    A function that holds the interpreter lock all the while cannot be timed.
    """

    max_items: int | None = None
    """After so many items the process ends its work in good order; who supervises it starts another. None: never."""

    max_memory: int | str | None = None
    """So many bytes of memory (RSS), or a text such as "2GiB": when the process has more after an item, the same."""

    metadata: dict[str, Any]
    """The run's metadata; known from `init_worker` on."""

    stay: bool = False
    """True, as an attribute of the class or by ``Worker(stay=True)``: serve run after run. The end of a run, good or
    bad, is not the worker's, which waits for the next; it ends by a signal, `shutdown`, or its idle time-out."""

    def __new__(cls: type[AnyWorker], *args: Any, **kwargs: Any) -> AnyWorker:
        """Set up the private state here, so that a subclass need not call ``super().__init__()``."""
        worker = super().__new__(cls)
        if not hasattr(cls, "metadata"):
            worker.metadata = {}
        worker._threads = worker._pool = worker._preparation = worker._beginning = None
        return worker

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Subclasses may take what they like; nothing is needed here. ``stay=`` sets the attribute of that name."""
        if "stay" in kwargs:
            self.stay = bool(kwargs["stay"])

    @abstractmethod
    def handle_execution(self, data: dict[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Execute one item and return the result for the collector; None is an empty one."""

    def init_worker(self) -> None:
        """Called once, on an executing thread, just before this worker's first item; others wait for it."""

    def init_thread(self, worker_index: int) -> None:
        """Called once in each thread, before its first item and after `init_worker`. Threads count from 0."""

    def _what(self) -> str:
        return named(f"{type(self).__name__}.handle_execution", self.handle_execution)

    def _make_execution(self) -> Execution:
        """What is called for each item, once the metadata is known."""
        return Execution(with_accepted_args(self.handle_execution, 1), self._packer(self._what()))

    def _execution(self) -> Execution:
        made = self._make_execution()
        made.call = within_depth(made.call, self.options.max_depth)
        if not self.options.log_json:
            return made
        return Execution(self._about(str(self.task_type), made.with_place()), made.packer, placed=True)

    def _packer(self, what: str) -> Callable[[], Callable[[Any], bytes]]:
        return partial(item_packer, what, self.options.max_message_bytes)

    def _make_preparation(self) -> Preparation:
        return self._prepared(self._begin, with_accepted_args(self.init_thread, 1))

    def _begin(self) -> Any:
        """An async one returns what is to be awaited."""
        self._log.debug("The first item is here: init_worker is called.")
        return self.init_worker()

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
            stay=bool(self.stay),
            max_items=self.max_items,
            age=self._age,
        )

    def _front(self, machine: WorkerMachine, recorder: Recorder) -> Machine:
        from zmqpipeline.protocol.observed import ObservedWorker

        return ObservedWorker(machine, recorder)

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        self._preparation = self._make_preparation()
        beginning = self._beginning = self._begun(self._preparation, post)
        if self.max_memory is not None:
            post = retiring(post, size_in_bytes(self.max_memory))
        pool = self._pool = self._make_pool(
            self._execution(), post, beginning, task=str(self.task_type), failures=FailureLog(self._log)
        )
        return {
            SetMetadata: self._set_metadata,
            Execute: pool.submit,
            TakeBack: lambda command: pool.take_back(command.count),
            LookForEnd: lambda command: self._look_for_end(post),
        }

    def _look_for_end(self, post: Callable[[Any], None]) -> None:
        if found := find_note(self._address("workers", self.endpoint)):
            post(EndFound(*found))
        if early := find_early_note(connected=self._places()):
            post(EndFound("", early[1], early[0]))

    def _set_metadata(self, command: SetMetadata) -> None:
        self.metadata = unpack(command.metadata) if command.metadata else {}
        if self._pool is not None:
            # before the first Execute of the run, so that no item of another is executed with it
            self._pool.execution = self._execution()

    @property
    def retired(self) -> str:
        """Why the worker has left for another one to take its place; empty if it has not, or not for that."""
        lifespan = None if self.machine is None else self.machine.lifespan
        return lifespan.reason if lifespan is not None and lifespan.has_ended and not self.signum else ""

    def _conclude(self, ended: Ended) -> None:
        if self._preparation is not None:
            self._preparation.conclude(f"The worker for task {self.task_type!r}")
        if self.retired and not self._tell_parent(child_report.REPLACE):
            text = "The worker has ended: %s. Start another one; `worker --processes 1` does so by itself."
            self._log.warning(text, self.retired)
        super()._conclude(ended)

    def _failed_run(self, ended: Ended) -> RunFailed | None:
        how = self.machine.ended_by
        if how is None or how.ok or ended.status or self.signum is not None:
            return None
        return RunFailed(how.reason, {one.task: one.trouble for one in how.troubles})


class SingleThreadedWorker(Worker):
    """A worker that executes one item at a time: write `handle_execution`.

    If that is an `async def`, up to `concurrency` calls of it go on at a time, on the event loop of one thread; then
    `init_worker` and `init_thread` may be async, too.
    """


class MultiThreadedWorker(Worker):
    """A worker with `n_threads` threads: `handle_execution` prepares an item, `handle_thread_execution` executes it."""

    _declares: ClassVar[dict[str, AttributeSpec]] = {**Worker._declares, "n_threads": THREADS}

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

    def _user_threads(self) -> int:
        return self._threads or self.n_threads

    def _prepare(self) -> None:
        for name in ("handle_execution", "handle_thread_execution"):
            if inspect.iscoroutinefunction(getattr(self, name)):
                raise ConfigurationError(
                    f"{type(self).__name__}.{name} is an async method; a MultiThreadedWorker calls plain ones, on "
                    "threads. Subclass SingleThreadedWorker, and write `async def handle_execution`, with concurrency."
                )
        super()._prepare()

    def _make_execution(self) -> Execution:
        name = type(self).__name__
        prepare, execute = (
            with_accepted_args(self.handle_execution, 1),
            with_accepted_args(self.handle_thread_execution, 2),
        )
        prepares = named(f"{name}.handle_execution", self.handle_execution)
        executes = named(f"{name}.handle_thread_execution", self.handle_thread_execution)
        one_at_a_time = threading.Lock()

        def call(item: Any, index: int, number: int, attempt: int) -> Any:
            with one_at_a_time:
                data = prepare(item)
            if data is None:
                data = {}
            elif not isinstance(data, dict):
                raise SerializeError(_no_dict(prepares, data))
            return execute(data, index)

        return Execution(call, self._packer(executes), placed=True)


def _no_dict(what: str, seen: object) -> str:
    return f"{what} returned a {type(seen).__name__}; it must return a dict or None. Return a dict for the thread."
