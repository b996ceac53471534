"""AsyncServiceClient: asks a service from asyncio, with the words of ServiceClient."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.options import Options
from zmqpipeline.roles.client import AT_ONCE, Data, ServiceClient, check_at_once


class AsyncServiceClient:
    """Asks the broker at `endpoint` from asyncio programs; close it, or use it in an ``async with`` block.

    It may be made outside of an event loop and used by several, since its socket lives on a thread of its own. A task
    that is cancelled while it waits withdraws its request.
    """

    def __init__(
        self,
        endpoint: EndpointAddress | str,
        task_type: str = "",
        id_prefix: str = "client",
        *,
        options: Options | None = None,
    ) -> None:
        """Make a client; it connects in the background. Arguments and errors are those of `ServiceClient`."""
        options = options or Options.from_environ(None, os.environ)
        self._client = ServiceClient(endpoint, task_type, id_prefix, options=options)

    @property
    def endpoint(self) -> EndpointAddress:
        """The broker's frontend."""
        return self._client.endpoint

    @property
    def task_type(self) -> str:
        """The service asked where a request names none."""
        return self._client.task_type

    async def request(self, data: Data, task_type: str = "", timeout: float | None = 30.0) -> Any:
        """Ask, and return the reply: of a list of requests, the list of replies in the same order.

        Arguments and errors are those of `ServiceClient.request`.
        """
        return await self._client.arequest(data, task_type, timeout)

    def submit(self, data: Data, task_type: str = "", timeout: float | None = 30.0) -> asyncio.Future[Any]:
        """Ask, and return an asyncio future of what `request` returns or raises. Cancelling it withdraws the request.

        Within a running event loop.
        """
        return asyncio.wrap_future(self._client.submit(data, task_type, timeout))

    async def stream(
        self,
        requests: Iterable[Any] | AsyncIterable[Any],
        task_type: str = "",
        timeout: float | None = 30.0,
        *,
        at_once: int = AT_ONCE,
        return_exceptions: bool = False,
    ) -> AsyncIterator[Any]:
        """The replies to these requests, each as soon as it is there; as `ServiceClient.stream`.

        `requests` may be an asynchronous iterable, too: while its next one is waited for, replies go on to come.
        """
        check_at_once(at_once)
        source = _each(requests)
        pending: set[asyncio.Future[Any]] = set()
        asking: asyncio.Future[Any] | None = None
        is_over = False
        try:
            while True:
                if asking is None and not is_over and len(pending) < at_once:
                    asking = asyncio.ensure_future(_next(source))
                waits = pending if asking is None else {*pending, asking}
                if not waits:
                    return
                done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if asking in done:
                    assert asking is not None
                    given, asking = asking.result(), None
                    if given is _END:
                        is_over = True
                    else:
                        pending.add(asyncio.wrap_future(self._client.submit_one(given, task_type, timeout)))
                for future in done & pending:
                    pending.discard(future)
                    error = future.exception()
                    if error is not None and not return_exceptions:
                        raise error
                    yield future.result() if error is None else error
        finally:
            # whoever stops reading withdraws what is still asked for
            for future in (*pending, *(() if asking is None else (asking,))):
                future.cancel()

    async def close(self) -> None:
        """Withdraw what is still asked for, which fails with ServiceUnavailable. Closing again does nothing."""
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> AsyncServiceClient:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()


_END = object()


async def _each(requests: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(requests, AsyncIterable):
        async for one in requests:
            yield one
    else:
        for one in requests:
            yield one


async def _next(source: AsyncIterator[Any]) -> Any:
    try:
        return await source.__anext__()
    except StopAsyncIteration:
        return _END
