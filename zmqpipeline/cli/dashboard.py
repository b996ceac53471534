"""The command `dashboard`: a page in a browser that shows a running pipeline, by a server that asks as `status` does.

Who may see it. At a loopback address whoever is on this machine; requests whose Host is another name are refused, so
that no page of the internet reads it by a name of its own that leads here. At any other address, and if there is a
token, whoever has that: it is compared in constant time, and a browser that has shown it gets a cookie that only this
process knows. There is nothing to change by it: only `login` takes a POST.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.asker import Asker, asker_of
from zmqpipeline.cli.common import interval_flag, settle, shared_flags
from zmqpipeline.cli.shown import shown
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.protocol.messages import Status

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

INSTALL = "pip install 'zmqpipeline[dashboard]'"

TOKEN_VARIABLE = "ZMQPIPELINE_DASHBOARD_TOKEN"

MIN_TOKEN_LENGTH = 16
"""So many characters a token has at least."""

MAX_LOGIN_BYTES = 4096
"""So many bytes of a login are read."""

MAX_CONNECTIONS = 200
"""So many browsers are served at once."""

MAX_AGE = 0.5
"""Seconds: several pages share an answer that is no older."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What each answer says: nothing but our own script, style and data, nowhere else shown, nowhere kept."""

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


@click.command("dashboard", epilog="Example: python -m app dashboard --port 8787 --endpoint tcp://SERVER:5550")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8787,
    show_default=True,
    metavar="P",
    help="Port to listen on. 0: any free one, which is printed.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="HOST",
    help="Address to listen on. One that other machines reach needs a token.",
)
@click.option(
    "--dashboard-token",
    envvar=TOKEN_VARIABLE,
    metavar="TOKEN",
    help=f"Show the page only to who gives this token. Better by the variable {TOKEN_VARIABLE}: others see flags.",
)
@interval_flag
@shared_flags
@click.pass_obj
def dashboard(
    app: Pipeline, /, port: int, host: str, dashboard_token: str | None, interval: float, **flags: Any
) -> int:
    """Show a running pipeline in a browser, until this process is ended. Nothing can be changed there."""
    options = settle(app, flags)
    _check_token(host, dashboard_token)
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ConfigurationError(
            f"The command `dashboard` needs the packages starlette and uvicorn, of which one cannot be imported "
            f"({error}). Install them: {INSTALL}"
        ) from error
    with asker_of(app, options, flags["endpoint"]) as asker, _listening(host, port) as listener:
        bound = listener.getsockname()
        page = Page(app.name, asker, interval)
        guard = Guard(page.site(), dashboard_token, hosts=(host, "localhost", "127.0.0.1", "::1"), port=bound[1])
        config = uvicorn.Config(
            guard,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            ws="none",
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=3,
        )
        page.server = uvicorn.Server(config)
        # the server takes the signals while it runs, and gives them on when it has ended
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            click.echo(f"The page of {app.name!r}: http://{name}:{bound[1]}/", err=True)
            page.server.run(sockets=[listener])
        finally:
            signal.signal(signal.SIGTERM, before)
    return 128 + signal.SIGTERM


def _check_token(host: str, token: str | None) -> None:
    """Raise ConfigurationError if there must be one and is none, or if it is too short."""
    if token is None and not _is_loopback(host):
        raise ConfigurationError(
            f"At {host} other machines could read the page. Give it a token: "
            f"{TOKEN_VARIABLE}={secrets.token_urlsafe(24)}, or listen at 127.0.0.1."
        )
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        raise ConfigurationError(
            f"The token of the page has {len(token)} characters; it needs {MIN_TOKEN_LENGTH} or more. "
            f"One is: {secrets.token_urlsafe(24)}"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"Nobody can listen at {host} port {port}: {error}. Name others: --host HOST --port PORT."
        ) from error


class Page:
    """What is served: three files, and the events that tell how the run stands."""

    server: uvicorn.Server | None = None
    """Whoever serves it: when that is to end, the events do."""

    def __init__(self, name: str, asker: Asker, interval: float) -> None:
        """`interval`: seconds between two events."""
        self._name = name
        self._asker = asker
        self._interval = interval

    def site(self) -> ASGIApp:
        """The application, without its guard."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        paths = [*FILES, "/favicon.ico"]
        return Starlette(routes=[*(Route(path, self._file) for path in paths), Route("/events", self._events)])

    async def _file(self, request: Request) -> Response:
        from starlette.responses import Response

        path = request.scope["path"]
        if path not in FILES:
            return Response(status_code=204)  # browsers ask for an icon by themselves
        name, kind = FILES[path]
        return Response(page_file(name), media_type=kind)

    async def _events(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        before: Sequence[Status] = ()
        while self.server is None or not self.server.should_exit:
            answers = await asyncio.to_thread(self._asker.ask, MAX_AGE)
            yield f"data: {json.dumps(shown(self._name, answers, before))}\n\n"
            before = answers or before
            await asyncio.sleep(self._interval)


def page_file(name: str) -> str:
    """A file of the page."""
    return resources.files("zmqpipeline").joinpath("cli/page").joinpath(name).read_text(encoding="utf-8")


class Guard:
    """Lets nobody in who must not be, and puts the headers on each answer."""

    def __init__(self, site: ASGIApp, token: str | None, hosts: Sequence[str], port: int) -> None:
        """Without a `token` those are let in who ask for one of `hosts`; with one, those who have it."""
        self._site = site
        self._token = token
        self._hosts = {host.strip("[]").lower() for host in hosts}
        self._session = secrets.token_urlsafe(32)
        # a browser sends the cookies of a host to all of its ports
        self._cookie = f"zmqpipeline-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        from starlette.requests import Request

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        if scope["type"] == "http":
            refused = await self._refused(Request(scope, receive))
            await (refused or self._site)(scope, receive, send_with_headers)

    async def _refused(self, request: Request) -> Response | None:
        """What is answered in the place of the page, if anything."""
        from starlette.responses import PlainTextResponse, Response

        # not that of `request.url`: whoever asks writes the host in it, with what looks like a path
        path = request.scope["path"]
        if self._token is None:
            if _host_of(request.headers.get("Host", "")) in self._hosts:
                return None
            return PlainTextResponse("This page is not known under that name; it has no token.\n", 421)
        if path == "/login" and request.method == "POST":
            return await self._login(request)
        if self._is_known(request) or path == "/page.css":
            return None
        if path == "/":
            return Response(page_file("login.html"), 401, media_type="text/html")
        return PlainTextResponse("Say the token first.\n", 401)

    def _is_known(self, request: Request) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(given):
            return True
        return _is_same(request.cookies.get(self._cookie, ""), self._session)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and _is_same(given, self._token)

    async def _login(self, request: Request) -> Response:
        from starlette.responses import RedirectResponse, Response

        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_LOGIN_BYTES:
                break
        given = parse_qs(body[:MAX_LOGIN_BYTES].decode("utf-8", "replace")).get("token", [""])[0]
        if not self._is_token(given):
            await asyncio.sleep(0.5)  # who guesses is slow
            return Response(page_file("login.html"), 401, media_type="text/html")
        answer = RedirectResponse("./", 303)
        answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict", path="/")
        return answer


def _host_of(header: str) -> str:
    """The name in a Host header, without its port; empty if that is none."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d+)?", header.lower())
    return (found[1] or found[2]) if found else ""


def _is_same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), known.encode("utf-8", "surrogatepass"))
