"""Where the page listens."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import socket

from zmqpipeline.errors import ConfigurationError

TOKEN_VARIABLE = "ZMQPIPELINE_DASHBOARD_TOKEN"

TOKEN_HELP = f"Show the page only to who gives this token. Better by the variable {TOKEN_VARIABLE}: others see flags."

HOST, PORT = "127.0.0.1", 8787
"""The default address."""


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_place(text: str) -> tuple[str, int | None]:
    """``HOST:PORT``, ``HOST``, ``PORT`` or ``[ADDRESS]:PORT``; without a port, any that is free, and PORT if it can be.

    Raises:
        ConfigurationError: it is none of these.
    """
    if text.isascii() and text.isdecimal():
        host, port = HOST, text
    elif found := re.fullmatch(r"\[([^\]]+)\](?::(\d+))?|([^:\[\]]*)(?::(\d+))?", text, re.ASCII):
        host, port = found[1] or found[3] or HOST, found[2] or found[4] or ""
    else:
        raise ConfigurationError(
            f"--dashboard takes HOST:PORT, HOST or PORT, with an IPv6 address in brackets; {text!r} is none of these."
        )
    if port and int(port) > 65535:
        raise ConfigurationError(f"--dashboard {text}: ports go up to 65535.")
    return host, int(port) if port else None


def listening(host: str, port: int | None, how: str) -> socket.socket:
    """A socket that listens there; `how` is how the user names another place. None: PORT, or any that is free."""
    try:
        if port is None:
            try:
                return _bound(host, PORT)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                return _bound(host, 0)
        return _bound(host, port)
    except (OSError, UnicodeError) as error:
        shown = PORT if port is None else port
        why = _why(error)
        raise ConfigurationError(f"Nobody can listen at {host} port {shown}: {why}. Name others: {how}.") from error


def _why(error: OSError | UnicodeError) -> str:
    """As the system says it: what makes the socket adds the address, which is said already."""
    if isinstance(error, UnicodeError | socket.gaierror) or error.errno is None:
        return str(error)
    return f"[Errno {error.errno}] {os.strerror(error.errno)}"


def _bound(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, port), family=family)


def url_of(listener: socket.socket) -> str:
    """The address of the page for a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
