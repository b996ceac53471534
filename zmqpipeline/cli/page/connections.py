"""The connections of browsers: so long a request may be on its way, and so many are open at once.

Whoever reaches the port can open connections. So they are of two kinds, counted by themselves:

* **Strangers** have shown nothing that lets them in. If there are too many, the oldest one is closed: whoever has the
  token can always connect, and say it.
* **Guests** were let in by the guard. If there are too many, the next one is refused, and told so.

A request that is not all there after some seconds never comes: its connection is closed, whoever it is.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from zmqpipeline.cli.page.guard import CONNECTION

MAX_STRANGERS = 200
"""So many connections are open of those that were not let in."""

MAX_GUESTS = 200
"""So many connections of browsers are served at once."""

REQUEST_SECONDS = 5.0
"""So long a request may take from its first byte to its last, and a connection until the first byte of the next."""


class Connections:
    """All that are open, the oldest first."""

    def __init__(self, max_strangers: int = MAX_STRANGERS, max_guests: int = MAX_GUESTS) -> None:
        """None so far."""
        self._max_strangers, self._max_guests = max_strangers, max_guests
        self._strangers: dict[Connection, None] = {}
        self._guests: set[Connection] = set()

    def opened(self, one: Connection) -> None:
        """Somebody has connected."""
        self._strangers[one] = None
        if len(self._strangers) > self._max_strangers:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.transport.abort()

    def let_in(self, one: Connection) -> bool:
        """Its request may be answered; False if there are too many of those."""
        if one in self._guests:
            return True
        if len(self._guests) >= self._max_guests:
            return False
        # one that is closed meanwhile is no stranger any more, and no guest
        if one in self._strangers:
            del self._strangers[one]
            self._guests.add(one)
        return True

    def closed(self, one: Connection) -> None:
        """It is gone."""
        self._strangers.pop(one, None)
        self._guests.discard(one)


class Connection(H11Protocol):
    """One of them; uvicorn makes it, by `made_by`."""

    all: Connections

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn's own; the guard finds the connection in the state of each request."""
        super().__init__(config, server_state, {**app_state, CONNECTION: self}, _loop)
        self._deadline: asyncio.TimerHandle | None = None
        self._has_begun = False
        """The first byte of a request is here."""

    def let_in(self) -> bool:
        """See `Connections.let_in`."""
        return self.all.let_in(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for its first request."""
        super().connection_made(transport)
        self.all.opened(self)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._wait_no_more()
        self.all.closed(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; the time runs from the first byte of a request, whatever comes after it."""
        if not self._has_begun:
            self._has_begun = True
            self._wait()
        super().data_received(data)
        if not self._is_awaited():
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """Wait for the next request, or for the rest of this one."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._has_begun = bool(self.conn.trailing_data[0])
            self._wait()

    def _is_awaited(self) -> bool:
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _wait(self) -> None:
        self._wait_no_more()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._too_late)

    def _wait_no_more(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        # not `close`: that waits for whoever does not read
        self.transport.abort()


def made_by(connections: Connections) -> type[Connection]:
    """The class of the connections of one server, for uvicorn."""

    class Ours(Connection):
        all = connections

    return Ours
