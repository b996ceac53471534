"""Services: a broker that routes requests of many clients to workers, and the workers; `client` has the third part."""

from __future__ import annotations

import logging
import os
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.messages import MESSAGE_TYPE_DATA
from zmqpipeline.protocol.commands import Ended, Execute, SetMetadata, TakeBack
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.services.broker import ServiceMachine
from zmqpipeline.protocol.worker import WorkerMachine
from zmqpipeline.roles.attributes import (
    CONCURRENCY,
    ENDPOINT,
    SERVICE_TYPE,
    TIME_LIMIT,
    AttributeSpec,
    with_accepted_args,
)
from zmqpipeline.roles.base import Actions, Role, new_incarnation
from zmqpipeline.roles.calling import Calling
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.transport.transport import Transport
from zmqpipeline.serialization.pack import bounded, pack, within_depth

if TYPE_CHECKING:
    from zmqpipeline.protocol.recorder import Recorder

Call = Callable[[int, int, int, Any], Any]
"""Calls the handler for one request: thread index, number, attempt, data."""


REPLY_SECONDS = 0.004
"""Replies wait for so much work (seconds) at most: each has a client who waits, while results have a collector."""


class Service(Role):
    """The broker: takes requests at its frontend, gives each to the least loaded worker at its backend.

    It is not subclassed. It runs until it is asked to end (SIGINT, SIGTERM, `shutdown`); then it tells its workers,
    which end, too. If it dies, clients and workers wait for the next one.
    """

    _log_name = "zmqpipeline.service"
    _declares: ClassVar[dict[str, AttributeSpec]] = {}

    def __init__(self, frontend_endpoint: EndpointAddress | str, backend_endpoint: EndpointAddress | str) -> None:
        """Make a broker that clients reach at `frontend_endpoint` and workers at `backend_endpoint`; it binds both.

        Raises:
            EndpointError: an address is malformed; it is a `TypeError`.
        """
        self.frontend_endpoint = EndpointAddress(frontend_endpoint)
        self.backend_endpoint = EndpointAddress(backend_endpoint)

    def _places(self) -> Iterable[EndpointAddress]:
        return self.frontend_endpoint, self.backend_endpoint

    def _open(self, transport: Transport) -> None:
        transport.bind("clients", self.frontend_endpoint)
        transport.bind("workers", self.backend_endpoint)

    def _make_machine(self) -> ServiceMachine:
        return ServiceMachine(incarnation=new_incarnation(), options=self.options)

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        return {}

    def _close(self) -> None:
        """There are no threads to end."""


AnyServiceWorker = TypeVar("AnyServiceWorker", bound="ServiceWorker")


class ServiceWorker(Calling):
    """Answers the requests of one service: subclass it, declare `endpoint` and `task_type`, write `handle_message`.

    If that is an `async def`, up to `concurrency` calls of it go on at a time, on the event loop of one thread; then
    `init_worker` and `init_thread` may be async, too.
    """

    _log_name = "zmqpipeline.serviceworker"
    _calls = "handle_message"
    _declares: ClassVar[dict[str, AttributeSpec]] = {
        "task_type": SERVICE_TYPE,
        "endpoint": ENDPOINT,
        "init_timeout": TIME_LIMIT,
        "concurrency": CONCURRENCY,
    }

    task_type: str = ""
    """The service it answers for: a TaskType; or a blank string, for every name that nobody else serves, and none."""

    endpoint: EndpointAddress | str
    """The broker's backend."""

    idempotent: bool = False
    """True: a request that was lost with this worker may be given to another one, and so be executed twice."""

    init_timeout: float | None = 60.0
    """Seconds that `init_worker` and `init_thread` may take together; past it the worker ends. None: any time."""

    id_prefix: str
    """What its name in logs begins with."""

    def __new__(cls: type[AnyServiceWorker], *args: Any, **kwargs: Any) -> AnyServiceWorker:
        """Set up the private state here, so that a subclass need not call ``super().__init__()``."""
        worker = super().__new__(cls)
        worker.id_prefix = "worker"
        worker._threads = worker._pool = worker._preparation = worker._beginning = None
        return worker

    def __init__(self, id_prefix: str = "worker") -> None:
        """`id_prefix` is what its name in logs begins with."""
        self.id_prefix = id_prefix

    @abstractmethod
    def handle_message(self, *args: Any, **kwargs: Any) -> Any:
        """Answer one request: ``handle_message(self, data, task_type, msgtype)``.

        Args:
            data: what the client asked, typically a dict.
            task_type: the service; for a worker with a blank one, the name that the client asked for.
            msgtype: `messages.MESSAGE_TYPE_DATA`.

        Returns:
            The reply, typically a dict.
        """

    def init_worker(self) -> None:
        """Called once, on an executing thread, just before this worker's first request."""

    def init_thread(self, worker_index: int) -> None:
        """Called once in each thread, before its first request and after `init_worker`. Threads count from 0."""

    def _make_call(self) -> Call:
        handle, name = with_accepted_args(self.handle_message, 3), self.task_type
        if name:
            return lambda index, number, attempt, data: handle(data, name, MESSAGE_TYPE_DATA)
        # what a blank worker gets are pairs of the name asked for and the request (`services.requests.with_name`)
        of_any = within_depth(lambda data, asked: handle(data, asked, MESSAGE_TYPE_DATA), self.options.max_depth)
        return lambda index, number, attempt, pair: of_any(pair[1], pair[0])

    def _what(self) -> str:
        return named(f"{type(self).__name__}.handle_message", self.handle_message)

    def _places(self) -> Iterable[EndpointAddress]:
        return (self._address("workers", self.endpoint),)

    def _open(self, transport: Transport) -> None:
        transport.connect("workers", self._address("workers", self.endpoint))

    def _make_machine(self) -> WorkerMachine:
        return WorkerMachine(
            str(self.task_type),
            slots=self._slots(),
            incarnation=new_incarnation(),
            host=f"{self.id_prefix}@{socket.gethostname()}",
            pid=os.getpid(),
            options=self.options,
            answers=True,
            idempotent=self.idempotent,
        )

    def _front(self, machine: WorkerMachine, recorder: Recorder) -> Machine:
        from zmqpipeline.protocol.observed import ObservedWorker

        return ObservedWorker(machine, recorder)

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        call, what, most = self._make_call(), self._what(), self.options.max_message_bytes

        def answer(request: Any, index: int, number: int, attempt: int) -> Any:
            return call(index, number, attempt, request)

        def pack_reply(reply: Any) -> bytes:
            return bounded(pack(reply, what, " returned what"), what, most)

        telling = self._about(str(self.task_type), answer) if self.options.log_json else answer
        self._preparation = self._prepared(self.init_worker, self.init_thread)
        beginning = self._beginning = self._begun(self._preparation, post)
        if self.task_type:
            telling = within_depth(telling, self.options.max_depth)
        execution = Execution(telling, lambda: pack_reply, placed=True)
        pool = self._pool = self._make_pool(
            execution,
            post,
            beginning,
            quantum=REPLY_SECONDS,
            task=str(self.task_type),
            # the client is told, with the traceback: as a rule the mistake is its own
            failures=FailureLog(self._log, noun="Request", level=logging.INFO),
        )
        return {
            SetMetadata: lambda command: None,
            Execute: pool.submit,
            TakeBack: lambda command: pool.take_back(command.count),
        }

    def _conclude(self, ended: Ended) -> None:
        if self._preparation is not None:
            self._preparation.conclude(f"The worker of service {str(self.task_type)!r}")
        super()._conclude(ended)
