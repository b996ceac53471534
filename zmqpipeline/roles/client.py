"""ServiceClient: asks a service from any thread, from asyncio, or with futures."""

from __future__ import annotations

import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from types import TracebackType
from typing import Any, TypeAlias

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import (
    ConfigurationError,
    RequestFailed,
    SerializeError,
    ServiceError,
    ServiceTimeout,
    ServiceUnavailable,
    WorkerLost,
)
from zmqpipeline.options import Options
from zmqpipeline.protocol.commands import Reject, Resolve
from zmqpipeline.protocol.events import Drain, Submit, Withdraw
from zmqpipeline.protocol.services.client import ClientMachine
from zmqpipeline.roles.runner import new_incarnation, tracing_of
from zmqpipeline.roles.streams import OpenRequests
from zmqpipeline.roles.task_type import LONGEST, why_no_name
from zmqpipeline.runtime.loop import Loop
from zmqpipeline.runtime.transport import transport
from zmqpipeline.serialization.pack import opener, pack
from zmqpipeline.serialization.records import encoder_of

Data: TypeAlias = Any
"""One request, typically a dict; a list or a tuple is several, which are spread over the workers."""

AT_ONCE = 1000
"""So many requests of a stream are open at a time, if nothing else is said."""

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
    may be started anew; a request waits as long as its timeout. Callbacks of futures run on that thread: they may
    `submit`, but not wait. After a fork the client is the parent's; the child makes its own.
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
        self._tracing = tracing_of(self._options)
        self._inner = _Inner(self.endpoint, self._options, id_prefix)
        # a client that nobody holds any more gives its thread and socket back
        self._finalizer = weakref.finalize(self, self._inner.close, 0.0)

    def request(self, data: Data, task_type: str = "", timeout: float | None = 30.0) -> Any:
        """Ask, and wait for the reply: of a list of requests, the list of replies in the same order.

        Args:
            data: a request, typically a dict, or anything else that can be packed; a list or a tuple is several
                requests, which are spread over the workers.
            task_type: the service; by default the client's own.
            timeout: seconds; None waits for ever.

        Raises:
            ServiceTimeout: no reply came in time; it is a `TimeoutError`.
            ServiceUnavailable: nobody serves that name, too many requests wait, or the client is closed.
            ServiceError: the handler raised.
            WorkerLost: the worker died.
            SerializeError: `data` cannot be packed, or is too large; it is a `TypeError`.
            ConfigurationError: `timeout` is no number of seconds, or `task_type` can name nothing.
        """
        self._inner.refuse_to_wait()
        future = self.submit(data, task_type, timeout)
        try:
            return future.result()
        finally:
            # interrupted while it waited: nobody wants the reply
            future.cancel()
            del future

    def submit(self, data: Data, task_type: str = "", timeout: float | None = 30.0) -> Future[Any]:
        """Ask, and return a future of what `request` returns or raises. Cancelling it withdraws the request."""
        single = not isinstance(data, (list, tuple))
        service = _named(task_type or self.task_type)
        payloads = self._packed([data] if single else data)
        call = _Call(service, _seconds(timeout), len(payloads), self, single=single)
        return self._inner.submit(call, payloads)

    def submit_one(self, data: Any, task_type: str = "", timeout: float | None = 30.0) -> Future[Any]:
        """As `submit`; a list is one request, too."""
        call = _Call(_named(task_type or self.task_type), _seconds(timeout), 1, self, single=True)
        return self._inner.submit(call, self._packed([data]))

    def stream(
        self,
        requests: Iterable[Any],
        task_type: str = "",
        timeout: float | None = 30.0,
        *,
        at_once: int = AT_ONCE,
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """The replies to these requests, each as soon as it is there, in whatever order they come.

        Args:
            requests: any iterable; it is taken from as replies come, on the thread that reads these. While it makes
                its next request, no reply is given.
            task_type: the service; by default the client's own.
            timeout: seconds, of each request; None waits for ever.
            at_once: so many requests at most are open.
            return_exceptions: a request that failed gives its exception in the place of a reply; else it is raised, and
                the others are withdrawn.

        Raises:
            RequestFailed: as `request`.
        """
        check_at_once(at_once)
        self._inner.refuse_to_wait()
        return self._stream(iter(requests), task_type, timeout, at_once, return_exceptions)

    def _stream(
        self, source: Iterator[Any], task_type: str, timeout: float | None, at_once: int, return_exceptions: bool
    ) -> Iterator[Any]:
        asked = OpenRequests(source, lambda one: self.submit_one(one, task_type, timeout), at_once)
        try:
            while (future := asked.next()) is not None:
                error = future.exception()
                if error is not None and not return_exceptions:
                    raise error
                yield future.result() if error is None else error
        finally:
            # whoever stops reading withdraws what is still asked for
            asked.withdraw()

    async def arequest(self, data: Data, task_type: str = "", timeout: float | None = 30.0) -> Any:
        """As `request`, for asyncio. Cancelling it withdraws the request."""
        import asyncio

        return await asyncio.wrap_future(self.submit(data, task_type, timeout))

    def close(self) -> None:
        """Withdraw what is still asked for, which fails with ServiceUnavailable. Closing again does nothing."""
        self._finalizer.detach()
        self._inner.close(self._options.linger)

    def __enter__(self) -> ServiceClient:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _packed(self, data: Sequence[Any]) -> list[bytes]:
        most = self._options.max_message_bytes
        payloads = []
        for one in data:
            encode = encoder_of(type(one))
            packed = pack(one if encode is None else encode(one))
            if self._tracing is not None:
                packed = self._tracing.requesting(packed, most)
            payloads.append(packed)
            if len(packed) > most:
                raise SerializeError(
                    f"A request of {len(packed)} bytes is larger than max_message_bytes ({most}). "
                    "Send less, or a path to a file, or raise the limit with ZMQPIPELINE_MAX_MESSAGE_BYTES."
                )
        return payloads


def check_at_once(at_once: object) -> None:
    """Raise ConfigurationError for what is no number of requests."""
    if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
        raise ConfigurationError(f"at_once must be a whole number, 1 or more, not {at_once!r}.")


def _seconds(timeout: object) -> float | None:
    """A timeout as the machine takes it; None for ever."""
    if timeout is None or timeout == math.inf:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise ConfigurationError(f"timeout must be a number of seconds, 0 or more, or None, not {timeout!r}.")
    try:
        seconds = float(timeout)
    except OverflowError:
        # python does not even write down the largest of these
        raise ConfigurationError(
            "timeout must be a number of seconds, and this one has hundreds of digits. None waits for ever."
        ) from None
    if not seconds >= 0:
        raise ConfigurationError(f"timeout must be a number of seconds, 0 or more, or None, not {timeout!r}.")
    return seconds


def _named(service: str) -> str:
    """The name of a service, as text that reaches the broker."""
    name = str(service)
    if (len(name) > LONGEST or not name.isascii()) and (reason := why_no_name(name)):
        raise ConfigurationError(f"The name of a service {reason}: {name[:40]!a}.")
    return name


class _Reply(Future[Any]):
    """The future of one call, which it takes back when it is cancelled."""

    def __init__(self, call: _Call) -> None:
        super().__init__()
        self._call: _Call | None = call

    def cancel(self) -> bool:
        """As any future; the request is withdrawn, and whoever waits for several futures is told."""
        call = self._call
        if not super().cancel():
            return False
        if call is not None and call.withdraw():
            self.set_running_or_notify_cancel()
        return True

    def let_go(self) -> None:
        """It is decided: break the circle of call and future, which only the garbage collector would find."""
        self._call = None


class _Call:
    """The requests of one `submit`. It holds its client, which must not be let go before the replies are there."""

    __slots__ = ("first", "future", "inner", "is_over", "left", "owner", "replies", "service", "single", "timeout")

    def __init__(
        self, service: str, timeout: float | None, count: int, owner: ServiceClient | None, *, single: bool
    ) -> None:
        self.service = service
        self.timeout = timeout
        self.owner = owner
        self.single = single
        self.first = 0
        self.left = count
        self.replies: list[Any] = [None] * count
        self.inner: _Inner | None = None
        self.is_over = False
        """Decided, by whoever sets this under the guard: replied, refused or cancelled."""
        self.future = _Reply(self)

    @property
    def numbers(self) -> range:
        """The numbers of its requests."""
        return range(self.first, self.first + len(self.replies))

    def withdraw(self) -> bool:
        """Take back what is asked for; False if it is decided already."""
        return self.inner is not None and self.inner.withdraw(self)

    def finish(self) -> None:
        """Set the future's result; its callbacks are run, and whatever they raise ends here."""
        self._set(lambda: self.future.set_result(self.replies[0] if self.single else self.replies))

    def fail(self, error: BaseException) -> None:
        """Set the future's exception, likewise."""
        self._set(lambda: self.future.set_exception(error))

    def _set(self, set_it: Callable[[], None]) -> None:
        self.owner = None
        try:
            set_it()
        except InvalidStateError:
            # cancelled a moment ago, too late to be withdrawn
            self.future.set_running_or_notify_cancel()
        except BaseException:
            log.exception("A callback of a request's future raised; the client goes on.")
        self.future.let_go()


class _Inner:
    """The thread, the socket and the open calls; it does not hold the client, so that the client can be let go."""

    def __init__(self, endpoint: EndpointAddress, options: Options, id_prefix: str) -> None:
        self._unpack = opener(options.max_depth)
        context = transport.shared_context() if endpoint.protocol == "inproc" else None
        self._endpoint = endpoint
        self._pid = os.getpid()
        self._transport = transport.Transport(options, context=context)
        try:
            self._transport.connect("clients", endpoint)
        except BaseException:
            self._transport.close(0.0)
            raise
        machine = ClientMachine(incarnation=new_incarnation())
        self._loop = Loop(machine, self._transport, {Resolve: self._resolve, Reject: self._reject}, log=log)
        # re-entrant: the garbage collector may run a client's finalizer in the middle of anything
        self._guard = threading.RLock()
        self._next = 0
        self._calls: dict[int, _Call] = {}
        self._closed = ""
        self._thread = threading.Thread(target=self._run, name=f"{id_prefix} of {endpoint}", daemon=True)
        self._thread.start()

    def refuse_to_wait(self) -> None:
        """Raise RequestFailed on the client's own thread, which would wait for itself."""
        if threading.current_thread() is self._thread:
            raise RequestFailed(
                "A callback of this client's futures waits for another reply, on the thread that would receive it. "
                "Use `submit` there, or another client."
            )

    def submit(self, call: _Call, payloads: list[bytes]) -> Future[Any]:
        """Number and post the requests of a call."""
        if os.getpid() != self._pid:
            raise ServiceUnavailable("This client was made before a fork, by the parent process. Make a new one here.")
        with self._guard:
            if self._closed:
                raise ServiceUnavailable(self._closed)
            if not payloads:
                call.is_over = True
            else:
                call.inner, call.first = self, self._next
                numbers = list(call.numbers)
                self._next += len(numbers)
                self._calls.update(dict.fromkeys(numbers, call))
                # within the guard, since the machine wants ascending numbers
                self._loop.post(Submit(call.service, numbers, payloads, call.timeout))
        if not payloads:
            call.finish()
        return call.future

    def close(self, linger: float) -> None:
        """End the thread, and wait for it if there is anything to linger for."""
        if os.getpid() != self._pid:
            return
        with self._guard:
            first, self._closed = not self._closed, self._closed or "This client is closed. Make a new one."
        if first:
            self._loop.post(Drain(0.0))
        if threading.current_thread() is not self._thread and linger:
            self._thread.join(linger + 1.0)

    def withdraw(self, call: _Call) -> bool:
        """Take back what is asked for; False if it is decided already."""
        with self._guard:
            if call.is_over:
                return False
            self._end(call)
        self._loop.post(Withdraw(list(call.numbers)))
        return True

    def _end(self, call: _Call) -> None:
        """It is decided; under the guard."""
        call.is_over = True
        for number in call.numbers:
            self._calls.pop(number, None)

    def _run(self) -> None:
        why = "The client was closed."
        try:
            self._loop.run()
        except Exception as error:
            log.exception("The client's thread failed; its requests fail, too. Make a new client.")
            why = f"The client's thread failed ({type(error).__name__}: {error}). Make a new client."
        finally:
            with self._guard:
                self._closed = self._closed or why
                left = list(dict.fromkeys(self._calls.values()))
                for call in left:
                    self._end(call)
            for call in left:
                call.fail(ServiceUnavailable(why))
            self._transport.close(0.5)

    def _resolve(self, command: Resolve) -> None:
        done, broken = [], []
        with self._guard:
            for number, payload in zip(command.numbers, command.payloads, strict=True):
                call = self._calls.pop(number, None)
                if call is None:
                    continue
                try:
                    call.replies[number - call.first] = self._unpack(payload)
                except SerializeError as error:
                    broken.append((call, error))
                    continue
                call.left -= 1
                if not call.left:
                    call.is_over = True
                    done.append(call)
        for call in done:
            call.finish()
        for call, reason in broken:
            self._fail(call, reason)

    def _reject(self, command: Reject) -> None:
        with self._guard:
            calls = [self._calls.get(number) for number in command.numbers]
        for call in dict.fromkeys(calls):
            if call is not None:
                self._fail(call, self._error(call, command))

    def _error(self, call: _Call, command: Reject) -> RequestFailed:
        trouble = command.trouble
        kind = _ERRORS.get(command.kind, ServiceError)
        message, error = trouble.message, trouble.error if kind is ServiceError else ""
        if kind is ServiceTimeout:
            message += f" Service {call.service!r} at {self._endpoint}, timeout {call.timeout:g} s."
        return kind(message, error=error, traceback=trouble.traceback)

    def _fail(self, call: _Call, error: BaseException) -> None:
        """One request of the call failed, and with it the call: its other requests are withdrawn."""
        if self.withdraw(call):
            call.fail(error)
