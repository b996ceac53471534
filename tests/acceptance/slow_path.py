"""``python -m tests.acceptance.slow_path DELAY LOSS TARGET PORT...``: a path that delays, and loses some segments.

It listens at these ports of the loopback, and connects each connection to the same port of TARGET. What is said arrives
DELAY seconds later, in either direction. Of a segment that is lost, tcp's other side has the next ones wait until it
has been sent again: after RESENT seconds, which is what Linux waits at least. So a kernel without netem will do.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress

SEGMENT = 1448
"""Bytes that one packet of an Ethernet carries."""

RESENT = 0.2
"""Seconds until a lost segment is sent again."""

MAX_UNDERWAY = 256
"""Reads that may be on their way in one direction of a connection."""


class SlowPath:
    """Its delay in seconds, and which share of the segments is lost."""

    def __init__(self, delay: float, loss: float, target: str) -> None:
        self._delay, self._loss, self._target = delay, loss, target

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        port = writer.get_extra_info("sockname")[1]
        try:
            far_reader, far_writer = await asyncio.wait_for(asyncio.open_connection(self._target, port), 5.0)
        except (OSError, asyncio.TimeoutError):
            writer.close()
            return
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_UNDERWAY)
        delivery = asyncio.ensure_future(self._deliver(queue, writer))
        loop, due, data = asyncio.get_running_loop(), 0.0, b"?"
        while data:
            data = b""
            with suppress(OSError):
                data = await reader.read(64 * 1024)
            segments = -(-len(data) // SEGMENT)
            is_lost = random.random() > (1 - self._loss) ** segments
            # nothing overtakes anything
            due = max(due, loop.time() + self._delay + (RESENT if is_lost else 0.0))
            await queue.put((due, data))
        await delivery

    async def _deliver(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop, is_open = asyncio.get_running_loop(), True
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                break
            try:
                if is_open:
                    writer.write(data)
                    await writer.drain()
            except OSError:
                is_open = False
        writer.close()


async def main(delay: float, loss: float, target: str, ports: list[int]) -> None:
    """Carry until killed."""
    path = SlowPath(delay, loss, target)
    for port in ports:
        await asyncio.start_server(path.carry, "127.0.0.1", port)
    print("open", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3], [int(port) for port in sys.argv[4:]]))
