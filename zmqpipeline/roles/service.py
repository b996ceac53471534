"""Services: a broker that routes requests of many clients to workers, and the workers; `client` has the third part."""

from __future__ import annotations

import logging
import os
import socket
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.messages import MESSAGE_TYPE_DATA
from zmqpipeline.options import Options
from zmqpipeline.protocol.commands import Ended, SetMetadata
from zmqpipeline.protocol.services.broker import ServiceMachine
from zmqpipeline.protocol.worker import WorkerMachine
from zmqpipeline.roles.attributes import (
    CONCURRENCY,
    ENDPOINT,
    SERVICE_TYPE,
    TIME_LIMIT,
    AttributeSpec,
    accepted_args,
)
from zmqpipeline.roles.base import Role
from zmqpipeline.roles.calls import with_last
from zmqpipeline.roles.executing import ClassHandler, ExecutingRunner, ItemHandler
from zmqpipeline.roles.runner import Actions, RoleRunner, RunnerSettings, new_incarnation
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.transport.transport import Transport
from zmqpipeline.serialization.pack import MAX_DEPTH, bounded, check_depth, pack
from zmqpipeline.serialization.records import encoder_of

REPLY_SECONDS = 0.004
"""Replies wait for so much work (seconds) at most: each has a client who waits, while results have a collector."""


class Service(Role):
    """The broker: takes requests at its frontend, gives each to the least loaded worker at its backend.

    It is not subclassed. It runs until it is asked to end (SIGINT, SIGTERM, `shutdown`); then it tells its workers,
    which end, too. If it dies, clients and workers wait for the next one.
    """

    _declares: ClassVar[dict[str, AttributeSpec]] = {}

    def __init__(self, frontend_endpoint: EndpointAddress | str, backend_endpoint: EndpointAddress | str) -> None:
        """Make a broker that clients reach at `frontend_endpoint` and workers at `backend_endpoint`; it binds both.

        Raises:
            EndpointError: an address is malformed; it is a `TypeError`.
        """
        self.frontend_endpoint = EndpointAddress(frontend_endpoint)
        self.backend_endpoint = EndpointAddress(backend_endpoint)

    def _make_runner(self) -> ServiceRunner:
        return ServiceRunner(self)


class ServiceRunner(RoleRunner):
    """Runs a broker, which calls no user code."""

    role: Service
    log_name = "zmqpipeline.service"

    def places(self) -> Iterable[EndpointAddress]:
        """Where it is asked, and where its workers come."""
        return self.role.frontend_endpoint, self.role.backend_endpoint

    def _open(self, transport: Transport) -> None:
        transport.bind("clients", self.role.frontend_endpoint)
        transport.bind("workers", self.role.backend_endpoint)

    def _make_machine(self) -> ServiceMachine:
        return ServiceMachine(incarnation=new_incarnation(), options=self.options)

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        return {}

    def _close(self) -> None:
        """There are no threads to end."""


class ServiceWorker(Role):
    """Answers the requests of one service: subclass it, declare `endpoint` and `task_type`, write `handle_message`.

    If that is an `async def`, up to `concurrency` calls of it go on at a time, on the event loop of one thread; then
    `init_worker` and `init_thread` may be async, too.
    """

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

    concurrency: int | None = 100
    """Of an async `handle_message`: so many calls of it go on at a time. None: 100."""

    id_prefix: str = "worker"
    """What its name in logs begins with."""

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

    def _make_runner(self) -> ServiceWorkerRunner:
        return ServiceWorkerRunner(self)


def reply_packer(what: str, options: Options) -> Callable[[], Callable[[Any], bytes]]:
    """What packs the replies of a function."""

    def pack_reply(reply: Any) -> bytes:
        if (encode := encoder_of(type(reply))) is not None:
            reply = encode(reply)
        return bounded(pack(reply, what, " returned what"), what, options.max_message_bytes)

    return lambda: pack_reply


class _Method(ClassHandler):
    """`handle_message`, with the request, the name of the service and the message type."""

    worker: ServiceWorker
    method = "handle_message"

    def execution(self, options: Options) -> Execution:
        """The user's method, which takes as many of these as it likes."""
        method, name = self.worker.handle_message, self.worker.task_type
        takes, is_async = accepted_args(method, 3), bool(self.concurrency())
        packer, most = reply_packer(self.what(), options), options.max_depth
        if name:
            return Execution(with_last(method, takes, name, MESSAGE_TYPE_DATA), packer, is_async=is_async)

        def of_any(pair: tuple[str, Any]) -> Any:
            # what a blank worker gets are pairs of the name asked for and the request (`services.requests.with_name`)
            asked, request = pair
            if most < MAX_DEPTH:
                check_depth(request, most)
            return method(*(request, asked, MESSAGE_TYPE_DATA)[:takes])

        return Execution(of_any, packer, is_async=is_async)


class ServiceWorkerRunner(ExecutingRunner):
    """Runs a worker of a service."""

    role: ServiceWorker
    log_name = "zmqpipeline.serviceworker"

    def __init__(
        self,
        role: ServiceWorker,
        settings: RunnerSettings | None = None,
        *,
        handler: ItemHandler | None = None,
        threads: int | None = None,
    ) -> None:
        """`handler` is what it calls in place of the class's methods, `threads` on how many threads."""
        super().__init__(role, settings, handler=handler or _Method(role), threads=threads)

    def _workers(self) -> EndpointAddress:
        given = self.settings.addresses
        return EndpointAddress(self.role.endpoint) if given is None else given.service_workers

    def places(self) -> Iterable[EndpointAddress]:
        """The broker's backend."""
        return (self._workers(),)

    def _open(self, transport: Transport) -> None:
        transport.connect("workers", self._workers())

    def _make_machine(self) -> WorkerMachine:
        return WorkerMachine(
            str(self.role.task_type),
            slots=self.slots(),
            incarnation=new_incarnation(),
            host=f"{self.role.id_prefix}@{socket.gethostname()}",
            pid=os.getpid(),
            options=self.options,
            answers=True,
            idempotent=self.role.idempotent,
            times=self._times.read,
        )

    def _make_actions(self, post: Callable[[Any], None]) -> Actions:
        # the client is told, with the traceback: as a rule the mistake is its own
        failures = FailureLog(self._log, noun="Request", level=logging.INFO)
        return {**self._start_pool(post, post, failures, REPLY_SECONDS), SetMetadata: lambda command: None}

    def _guards(self) -> Options:
        # a blank worker's pairs are one level deeper than the requests in them, which it looks at itself
        return self.options if self.role.task_type else replace(self.options, max_depth=MAX_DEPTH)

    def conclude(self, ended: Ended) -> None:
        """Raise what an init function raised."""
        self._raise_failed_init(f"The worker of service {str(self.role.task_type)!r}")
        super().conclude(ended)
