"""ServiceClient: asks a service from any thread, from asyncio, or with futures."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeAlias

from zmqpipeline.address import EndpointAddress
from zmqpipeline.errors import (
    RequestFailed,
    SerializeError,
    ServiceError,
    ServiceTimeout,
    ServiceUnavailable,
    WorkerLost,
)
from zmqpipeline.options import Options
from zmqpipeline.protocol.client import ClientMachine
from zmqpipeline.protocol.commands import Reject, Resolve
from zmqpipeline.protocol.events import Drain, Submit, Withdraw
from zmqpipeline.role import new_incarnation
from zmqpipeline.runtime import sockets
from zmqpipeline.runtime.loop import Loop
from zmqpipeline.serialize import pack, unpack

Data: TypeAlias = "dict[str, Any] | Sequence[dict[str, Any]]"
"""One request, or several, which are spread over the workers."""

log = logging.getLogger("zmqpipeline.serviceclient")

_ERRORS: dict[str, type[RequestFailed]] = {
    "timeout": ServiceTimeout,
    "unavailable": ServiceUnavailable,
    "error": ServiceError,
    "lost": WorkerLost,
}


class ServiceClient:
    """Asks the broker at `endpoint`. Safe to use from several threads; close it, or use it in a `with` block.

    Its socket lives on a daemon thread, so an unclosed client keeps no program alive. The broker may start later and
    may be started anew; a request waits as long as its timeout.
    """

    def __init__(
        self,
        endpoint: EndpointAddress | str,
        task_type: str = "",
        id_prefix: str = "client",
        *,
        options: Options | None = None,
    ) -> None:
        """Make a client; it connects in the background.

        Args:
            endpoint: the broker's frontend.
            task_type: the service asked where a request names none.
            id_prefix: what its thread's name begins with.
            options: settings; by default those of the environment.

        Raises:
            EndpointError: the address is malformed; it is a `TypeError`.
        """
        self.endpoint = EndpointAddress(endpoint)
        self.task_type = str(task_type)
        self.id_prefix = id_prefix
        self._options = options or Options.from_environ(None, os.environ)
        self._inner = _Inner(self.endpoint, self._options, id_prefix)
        # a client that nobody holds any more gives its thread and socket back
        self._finalizer = weakref.finalize(self, self._inner.close, 0.0)

    def request(self, data: Data, task_type: str = "", timeout: float | None = 30.0) -> Any:
        """Ask, and wait for the reply: of a list of dicts, the list of replies in the same order.

        Args:
            data: a dict, or a list of dicts, which are spread over the workers.
            task_type: the service; by default the client's own.
            timeout: seconds; None waits for ever.

        Raises:
            ServiceTimeout: no reply came in time; it is a `TimeoutError`.
            ServiceUnavailable: nobody serves that name, or too many requests wait.
            ServiceError: the handler raised.
            WorkerLost: the worker died.
            SerializeError: `data` is no dict or list of dicts, or cannot be packed; it is a `TypeError`.
        """
        return self.submit(data, task_type, timeout).result()

    def submit(self, data: Data, task_type: str = "", timeout: float | None = 30.0) -> Future[Any]:
        """Ask, and return a future of what `request` returns or raises. Cancelling it withdraws the request."""
        single = isinstance(data, dict)
        payloads = self._packed([data] if single else data)
        return self._inner.submit(task_type or self.task_type, payloads, timeout, single=single)

    async def arequest(self, data: Data, task_type: str = "", timeout: float | None = 30.0) -> Any:
        """As `request`, for asyncio."""
        return await asyncio.wrap_future(self.submit(data, task_type, timeout))

    def close(self) -> None:
        """Withdraw what is still asked for, and end the thread. Closing again does nothing."""
        self._finalizer.detach()
        self._inner.close(self._options.linger)

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _packed(self, data: Any) -> list[bytes]:
        if not isinstance(data, (list, tuple)) or not all(isinstance(one, dict) for one in data):
            seen = type(data).__name__
            raise SerializeError(f"A request is a dict or a list of dicts, not a {seen}. Wrap it: {{'value': ...}}.")
        most = self._options.max_message_bytes
        payloads = [pack(one) for one in data]
        largest = max(map(len, payloads), default=0)
        if largest > most:
            raise SerializeError(
                f"A request of {largest} bytes is larger than max_message_bytes ({most}). "
                "Send less, or a path to a file, or raise the limit with ZMQPIPELINE_MAX_MESSAGE_BYTES."
            )
        return payloads


class _Call:
    """The requests of one `submit`, and the future of their replies."""

    __slots__ = ("future", "left", "numbers", "replies", "single")

    def __init__(self, numbers: range, *, single: bool) -> None:
        self.future: Future[Any] = Future()
        self.numbers = numbers
        self.single = single
        self.replies: list[Any] = [None] * len(numbers)
        self.left = len(numbers)


class _Inner:
    """The thread, the socket and the open calls; it does not hold the client, so that the client can be let go."""

    def __init__(self, endpoint: EndpointAddress, options: Options, id_prefix: str) -> None:
        context = sockets.shared_context() if endpoint.protocol == "inproc" else None
        self._transport = sockets.Transport(options, context=context)
        try:
            self._transport.connect("clients", endpoint)
        except BaseException:
            self._transport.close(0.0)
            raise
        machine = ClientMachine(incarnation=new_incarnation())
        self._loop = Loop(machine, self._transport, {Resolve: self._resolve, Reject: self._reject}, log=log)
        self._guard = threading.Lock()
        self._next = 0
        self._calls: dict[int, _Call] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"{id_prefix} of {endpoint}", daemon=True)
        self._thread.start()

    def submit(self, service: str, payloads: list[bytes], timeout: float | None, *, single: bool) -> Future[Any]:
        with self._guard:
            if self._closed:
                raise ServiceUnavailable("This client is closed. Make a new one.")
            numbers = range(self._next, self._next + len(payloads))
            self._next += len(payloads)
            call = _Call(numbers, single=single)
            self._calls.update(dict.fromkeys(numbers, call))
        if not payloads:
            call.future.set_result([])
            return call.future
        call.future.add_done_callback(lambda future: self._withdraw(call) if future.cancelled() else None)
        self._loop.post(Submit(service, list(numbers), payloads, timeout))
        return call.future

    def close(self, linger: float) -> None:
        with self._guard:
            if self._closed:
                return
            self._closed = True
        self._loop.post(Drain(0.0))
        if threading.current_thread() is not self._thread and linger:
            self._thread.join(linger + 1.0)

    def _run(self) -> None:
        try:
            self._loop.run()
        except Exception:
            log.exception("The client's thread failed; its requests fail, too. Make a new client.")
        finally:
            with self._guard:
                self._closed = True
                left, self._calls = list(dict.fromkeys(self._calls.values())), {}
            for call in left:
                _set_error(call, ServiceUnavailable("The client was closed."))
            self._transport.close(0.5)

    def _withdraw(self, call: _Call) -> None:
        with self._guard:
            for number in call.numbers:
                self._calls.pop(number, None)
        self._loop.post(Withdraw(list(call.numbers)))

    def _resolve(self, command: Resolve) -> None:
        for number, payload in zip(command.numbers, command.payloads, strict=True):
            with self._guard:
                call = self._calls.pop(number, None)
            if call is None:
                continue
            try:
                call.replies[number - call.numbers.start] = unpack(payload)
            except SerializeError as error:
                _set_error(call, error)
                continue
            call.left -= 1
            if not call.left and not call.future.done():
                _finish(call)

    def _reject(self, command: Reject) -> None:
        trouble = command.trouble
        kind = _ERRORS.get(command.kind, ServiceError)
        failed: dict[_Call, None] = {}
        with self._guard:
            for number in command.numbers:
                call = self._calls.pop(number, None)
                if call is not None:
                    failed[call] = None
        for call in failed:
            error = trouble.error if kind is ServiceError else ""
            _set_error(call, kind(trouble.message, error=error, traceback=trouble.traceback))
            rest = [number for number in call.numbers if number in self._calls]
            if rest:
                self._withdraw(call)


def _finish(call: _Call) -> None:
    if call.future.set_running_or_notify_cancel():
        call.future.set_result(call.replies[0] if call.single else call.replies)


def _set_error(call: _Call, error: BaseException) -> None:
    if not call.future.done() and call.future.set_running_or_notify_cancel():
        call.future.set_exception(error)
