"""A network of its own for one run: tcp connections that are forwarded, and can be held up, cut, or made to swallow.

Each `Link` listens at one port of the loopback and forwards to another. What happens on real networks is done to it:

========= ==========================================================================================================
reset     every connection is broken at once, with a RST; what was on the way is lost
drop      for a while what is sent arrives nowhere, although it was taken; then the connections are reset. That is how
          ZeroMQ loses messages: it believes that they were sent
delay     whatever is sent arrives so much later
blackhole nothing arrives, nothing is refused, and no connection ends; afterwards it goes on, as TCP does when the
          network is back
========= ==========================================================================================================

All of it happens on one thread, that of an event loop. The methods of a `Network` may be called from any other one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any

HOST = "127.0.0.1"

CHUNK = 1 << 16
"""So many bytes are read at once."""

RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: a close sends RST."""

CALL_SECONDS = 10.0
"""How long a call into the network's thread may take before that is an error of its own."""


class Network:
    """The links of a run, and the thread that they live on. Use it in a `with` block."""

    def __init__(self) -> None:
        """No link yet; `add` makes one."""
        self.links: dict[str, Link] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._thread.start()

    def __enter__(self) -> Network:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()

    def add(self, name: str, listen: int, target: int) -> None:
        """Forward what connects to the port `listen` to the port `target`. OSError if the first is in use."""
        link = Link(target)
        self._run(link.open(listen))
        self.links[name] = link

    def lead(self, name: str, target: int) -> None:
        """Forward to another port from now on; what is connected is reset."""
        self._call(lambda: self.links[name].lead(target))

    def reset(self, name: str) -> int:
        """Break every connection of a link; how many there were."""
        return self._call(self.links[name].reset)

    def swallow(self, name: str, on: bool) -> int:
        """Take what is sent and bring it nowhere; switched off, the connections are reset, since they have a gap.

        Returns how many bytes were lost since it was switched on.
        """
        return self._call(lambda: self.links[name].swallow(on))

    def delay(self, name: str, seconds: float) -> None:
        """Bring everything so much later."""
        self._call(lambda: self.links[name].delay(seconds))

    def blackhole(self, name: str, on: bool) -> None:
        """Let nothing through, or all of it again."""
        self._call(lambda: self.links[name].blackhole(on))

    def close(self) -> None:
        """End all links, their connections and the thread."""
        for link in self.links.values():
            self._run(link.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def _call(self, function: Callable[[], Any]) -> Any:
        async def work() -> Any:
            return function()

        return self._run(work())


class Link:
    """Forwards from one port to another. Everything here runs on the network's thread."""

    def __init__(self, target: int) -> None:
        """Forward to the port `target`; `open` begins."""
        self._target = target
        self._delay = 0.0
        self._swallows = False
        self._lost = 0
        self._passes = asyncio.Event()
        self._passes.set()
        self._server: asyncio.Server | None = None
        self._forwarding: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, port: int) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._taken, HOST, port)

    def lead(self, target: int) -> None:
        """See `Network.lead`."""
        self._target = target
        self.reset()

    def reset(self) -> int:
        """Break every connection, with a RST to both sides."""
        writers, self._writers = self._writers, set()
        for writer in writers:
            _break(writer)
        return len(writers)

    def swallow(self, on: bool) -> int:
        """See `Network.swallow`."""
        self._swallows = on
        if not on:
            self.reset()
        lost, self._lost = self._lost, 0
        return lost

    def delay(self, seconds: float) -> None:
        """See `Network.delay`."""
        self._delay = seconds

    def blackhole(self, on: bool) -> None:
        """See `Network.blackhole`."""
        if on:
            self._passes.clear()
        else:
            self._passes.set()

    async def close(self) -> None:
        """Listen no more, break what there is, and wait until the last forwarding has ended."""
        if self._server is not None:
            self._server.close()
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)
        self.reset()
        # the sockets of broken connections are closed in the loop's next turn
        await asyncio.sleep(0)

    def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._forward(reader, writer))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    async def _forward(self, near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        """One connection: while there is a hole it waits, and when nobody is at the far side it is refused."""
        writers = {to_near}
        self._writers |= writers
        try:
            await self._passes.wait()
            far, to_far = await asyncio.open_connection(HOST, self._target)
            writers.add(to_far)
            self._writers |= writers
            await _first_of(self._pump(near, to_far), self._pump(far, to_near))
            for writer in writers:
                # what was taken from the side that ended still goes out
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for writer in writers))
        except OSError:
            # nobody listens there, or a side broke the connection: the other one shall see a reset as well
            pass
        finally:
            for writer in writers:
                _break(writer)
            self._writers -= writers

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Bring what one side sends to the other, until it ends."""
        while data := await source.read(CHUNK):
            if self._swallows:
                self._lost += len(data)
                continue
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._passes.wait()
            sink.write(data)
            await sink.drain()
        await self._passes.wait()


async def _first_of(*pumps: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends; its error, if it had one."""
    tasks = [asyncio.ensure_future(one) for one in pumps]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _break(writer: asyncio.StreamWriter) -> None:
    """Close with a RST; what is not yet sent is lost."""
    found = writer.get_extra_info("socket")
    # the other side may have been first
    with contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
