"""Workers: they execute the items of one task, on one thread or on several."""

from __future__ import annotations

import math
import os
import socket
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import Any, ClassVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError, RunFailed, SerializeError
from zmqpipeline.options import Options, size_in_bytes
from zmqpipeline.protocol.commands import Ended, LookForEnd, SetMetadata
from zmqpipeline.protocol.events import Drain, EndFound
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
    is_async,
    with_accepted_args,
)
from zmqpipeline.roles.base import Role
from zmqpipeline.roles.executing import ClassHandler, ExecutingRunner, ItemHandler
from zmqpipeline.roles.runner import Actions, RunnerSettings, new_incarnation
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.runtime import child, child_report
from zmqpipeline.runtime.ended_runs import find_early_note, find_note
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.loop import Loop
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.transport.transport import Transport
from zmqpipeline.runtime.tuning import retiring
from zmqpipeline.serialization.pack import item_packer, unpack


class Worker(Role):
    """Base of the workers. Subclass `SingleThreadedWorker` or `MultiThreadedWorker`."""

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

    concurrency: int | None = 100
    """Of an async `handle_execution`: so many calls of it go on at a time. None: 100."""

    max_items: int | None = None
    """After so many items the process ends its work in good order; who supervises it starts another. None: never."""

    max_memory: int | str | None = None
    """So many bytes of memory (RSS), or a text such as "2GiB": when the process has more after an item, the same."""

    stay: bool = False
    """True, as an attribute of the class or by ``Worker(stay=True)``: serve run after run. The end of a run, good or
    bad, is not the worker's, which waits for the next; it ends by a signal, `shutdown`, or its idle time-out."""

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The run's metadata; known from `init_worker` on."""
        return {}

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

    @property
    def retired(self) -> str:
        """Why the worker has left for another one to take its place; empty if it has not, or not for that."""
        lifespan = None if self.machine is None else self.machine.lifespan
        return lifespan.reason if lifespan is not None and lifespan.has_ended and not self.signum else ""

    def _make_runner(self) -> WorkerRunner:
        return WorkerRunner(self)

    def _handler(self) -> ItemHandler:
        return _Method(self)


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

    def _handler(self) -> ItemHandler:
        return _TwoMethods(self)


class _Method(ClassHandler):
    """`handle_execution`, with the item."""

    worker: Worker
    method = "handle_execution"

    def execution(self, options: Options) -> Execution:
        """The user's method, which takes the item alone."""
        call = with_accepted_args(self.worker.handle_execution, 1)
        packer = partial(item_packer, self.what(), options.max_message_bytes)
        return Execution(call, packer, is_async=bool(self.concurrency()))


class _TwoMethods(ClassHandler):
    """`handle_execution`, one item at a time, then `handle_thread_execution` with what it returned."""

    worker: MultiThreadedWorker
    method = "handle_thread_execution"

    def check(self) -> None:
        """Both are called on threads."""
        for name in ("handle_execution", self.method):
            if is_async(getattr(self.worker, name)):
                raise ConfigurationError(
                    f"{type(self.worker).__name__}.{name} is an async method; a MultiThreadedWorker calls plain ones, "
                    "on threads. Subclass SingleThreadedWorker: `async def handle_execution`, with concurrency."
                )
        super().check()

    def slots(self) -> int:
        """As the class declares."""
        return self.worker.n_threads

    def execution(self, options: Options) -> Execution:
        """Both methods as one call."""
        name, worker = type(self.worker).__name__, self.worker
        prepare = with_accepted_args(worker.handle_execution, 1)
        execute = with_accepted_args(worker.handle_thread_execution, 2)
        prepares = named(f"{name}.handle_execution", worker.handle_execution)
        executes = named(f"{name}.handle_thread_execution", worker.handle_thread_execution)
        one_at_a_time = threading.Lock()

        def call(item: Any, index: int, number: int, attempt: int) -> Any:
            with one_at_a_time:
                data = prepare(item)
            if data is None:
                data = {}
            elif not isinstance(data, dict):
                raise SerializeError(_no_dict(prepares, data))
            return execute(data, index)

        return Execution(call, partial(item_packer, executes, options.max_message_bytes), placed=True)


def _no_dict(what: str, seen: object) -> str:
    return f"{what} returned a {type(seen).__name__}; it must return a dict or None. Return a dict for the thread."


class WorkerRunner(ExecutingRunner):
    """Runs a worker of a task."""

    role: Worker
    log_name = "zmqpipeline.worker"
    end_to_end = True

    def __init__(
        self,
        role: Worker,
        settings: RunnerSettings | None = None,
        *,
        handler: ItemHandler | None = None,
        threads: int | None = None,
    ) -> None:
        """`handler` is what it calls in place of the class's methods, `threads` on how many threads."""
        super().__init__(role, settings, handler=handler or role._handler(), threads=threads)

    def _workers(self) -> EndpointAddress:
        given, role = self.settings.addresses, self.role
        # a property may give it as a str
        return EndpointAddress(role.endpoint) if given is None else given.tasks[str(role.task_type)]

    def _results(self) -> EndpointAddress:
        given = self.settings.addresses
        return EndpointAddress(self.role.collector_endpoint) if given is None else given.results

    def places(self) -> Iterable[EndpointAddress]:
        """Those of the task and of the collector."""
        return self._workers(), self._results()

    def _attach(self, loop: Loop | None) -> None:
        super()._attach(loop)
        if child.is_child():
            child.listen(None if loop is None else lambda line: _hear(line, loop.post))

    def _open(self, transport: Transport) -> None:
        transport.connect("workers", self._workers())
        transport.connect("results", self._results())

    def _make_machine(self) -> WorkerMachine:
        return WorkerMachine(
            str(self.role.task_type),
            slots=self.slots(),
            incarnation=new_incarnation(),
            host=socket.gethostname(),
            pid=os.getpid(),
            options=self.options,
            stay=bool(self.role.stay),
            max_items=self.role.max_items,
            age=self.process.age,
            has_inits=self.handler.has_inits(),
            times=self._times.read,
        )

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        most = self.role.max_memory
        pool_post = post if most is None else retiring(post, size_in_bytes(most))
        return {
            **self._start_pool(post, pool_post, FailureLog(self._log)),
            SetMetadata: self._set_metadata,
            LookForEnd: lambda command: self._look_for_end(post),
        }

    def _look_for_end(self, post: Callable[[Any], None]) -> None:
        if found := find_note(self._workers()):
            post(EndFound(*found))
        if early := find_early_note(connected=self.places()):
            post(EndFound("", early[1], early[0]))

    def _set_metadata(self, command: SetMetadata) -> None:
        self.role.metadata = unpack(command.metadata) if command.metadata else {}
        if self._pool is not None:
            # before the first Execute of the run, so that no item of another is executed with it
            self._pool.execution = self.execution()

    def conclude(self, ended: Ended) -> None:
        """Raise what an init function raised; say that another worker is to take the place of one that retired."""
        self._raise_failed_init(f"The worker for task {self.role.task_type!r}")
        retired = self.role.retired
        if retired and not self.process.tell_parent(child_report.REPLACE):
            text = "The worker has ended: %s. Start another one; `worker --processes 1` does so by itself."
            self._log.warning(text, retired)
        super().conclude(ended)

    def _failed_run(self, ended: Ended) -> RunFailed | None:
        how = self.role.machine.ended_by
        if how is None or how.ok or ended.status or self.role.signum is not None:
            return None
        return RunFailed(how.reason, {one.task: one.trouble for one in how.troubles})


def _hear(line: str, post: Callable[[Drain], object]) -> None:
    """What whoever started the worker says of its end."""
    if line == child.LEAVE:
        post(Drain(math.inf))
