"""Runs the server of the page, in this process, until it is ended."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zmqpipeline.cli.page.guard import Guard
from zmqpipeline.cli.page.site import Site
from zmqpipeline.cli.page.watch import Watch
from zmqpipeline.errors import ConfigurationError

if TYPE_CHECKING:
    import uvicorn

INSTALL = "pip install 'zmqpipeline[dashboard]'"

GRACEFUL_SECONDS = 1
"""So long a connection may take to end when the server does."""

LAST_WORD_SECONDS = 1.0
"""So long a browser may take to hear that the run is over: `run` waits for that."""


def check_packages() -> None:
    """Raise ConfigurationError if what serves the page cannot be imported."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise missing(str(error)) from error


def missing(error: str) -> ConfigurationError:
    """What is said without the packages."""
    return ConfigurationError(
        f"The page needs the packages starlette and uvicorn, of which one cannot be imported ({error}). "
        f"Install them: {INSTALL}"
    )


async def serve(site: Site, watch: Watch, listener: socket.socket, host: str, token: str | None, *, own: bool) -> None:
    """Serve the site on this socket until SIGINT or SIGTERM, or until the run is over, says `run`.

    Not `own`: another process looks after this one, and its signals are none of ours.
    """
    import uvicorn

    from zmqpipeline.cli.page.connections import Connections, made_by

    hosts = (host, "localhost", "127.0.0.1", "::1")
    config = uvicorn.Config(
        Guard(site.routes(), token, hosts=hosts, port=listener.getsockname()[1]),
        log_config=None,
        # whoever reaches the port, also without the token, could fill the log of the run with warnings
        log_level="error",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        http=made_by(Connections()),
        timeout_graceful_shutdown=GRACEFUL_SECONDS,
    )
    server = site.server = uvicorn.Server(config) if own else _deaf(config)
    watching = asyncio.create_task(_watch(watch, server))
    try:
        await server.serve(sockets=[listener])
    finally:
        watching.cancel()
    if watching.done() and not watching.cancelled():
        watching.result()


async def _watch(watch: Watch, server: uvicorn.Server) -> None:
    """Ask; and when the run is over, end the server as soon as each browser has heard it."""
    try:
        await watch.run()
        until = time.monotonic() + LAST_WORD_SECONDS
        while watch.listeners and time.monotonic() < until:
            await asyncio.sleep(0.02)
    finally:
        # also if it broke down: a page that stands still would tell of a run that does
        server.should_exit = True


def _deaf(config: uvicorn.Config) -> uvicorn.Server:
    """A server that hears no signal: Ctrl-C is for `run`."""
    import uvicorn

    class Deaf(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    return Deaf(config)
