"""Who may see the page, and what each answer forbids a browser.

At a loopback address whoever is on this machine; requests whose Host is another name are refused, so that no page of
the internet reads it by a name of its own that leads here. At any other address, and if there is a token, whoever has
that: it is compared in constant time, and a browser that has shown it gets a cookie that only this process knows.

Whoever wants to change something says the word that only the page can know (`CSRF_HEADER`), and asks from this very
page: a page elsewhere can send a form here, but can neither read that word nor name this origin as its own.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from zmqpipeline.cli.page.place import TOKEN_VARIABLE, is_loopback
from zmqpipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIN_TOKEN_LENGTH = 16
"""So many characters a token has at least."""

MAX_LOGIN_BYTES = 4096
"""So many bytes of a login are read."""

CSRF_HEADER = "X-Csrf-Token"
"""Where a request that changes something says the word that the page was told."""

CONNECTION = "connection"
"""Where the state of a request has its connection, which is asked whether one more of them may be let in."""

OPEN_FILES = ("/page.css",)
"""What is given to who has not shown the token: nothing in it is of a run."""

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


def check_token(host: str, token: str | None, *, control: bool = False) -> None:
    """Raise ConfigurationError if there must be one and is none, or if it is too short."""
    new = secrets.token_urlsafe(24)
    if token is None and not is_loopback(host):
        raise ConfigurationError(
            f"At {host} other machines could read the page. Give it a token: {TOKEN_VARIABLE}={new}, or listen at "
            "127.0.0.1."
        )
    if token is None and control:
        raise ConfigurationError(
            "With --dashboard-control each user of this machine could end the run by the page, or have it start "
            f"processes. Give it a token: {TOKEN_VARIABLE}={new}"
        )
    if token is not None and len(token) < MIN_TOKEN_LENGTH:
        raise ConfigurationError(
            f"The token of the page has {len(token)} characters; it needs {MIN_TOKEN_LENGTH} or more. One is: {new}"
        )


def page_file(name: str) -> str:
    """A file of the page."""
    return resources.files("zmqpipeline").joinpath("cli/page/files").joinpath(name).read_text(encoding="utf-8")


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
                return _let_in(request)
            return PlainTextResponse("This page is not known under that name; it has no token.\n", 421)
        if path == "/login" and request.method == "POST":
            return await self._login(request)
        if self._is_known(request):
            return _let_in(request)
        if path in OPEN_FILES:
            return None
        if path == "/":
            return Response(page_file("login.html"), 401, media_type="text/html")
        return PlainTextResponse("Say the token first: load the page again.\n", 401)

    def _is_known(self, request: Request) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(given):
            return True
        return is_same(request.cookies.get(self._cookie, ""), self._session)

    def _is_token(self, given: str) -> bool:
        return self._token is not None and is_same(given, self._token)

    async def _login(self, request: Request) -> Response:
        from starlette.responses import RedirectResponse, Response

        body = await body_of(request, MAX_LOGIN_BYTES)
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        if not self._is_token(given):
            await asyncio.sleep(0.5)  # who guesses is slow
            return Response(page_file("login.html"), 401, media_type="text/html")
        answer = RedirectResponse("./", 303)
        answer.set_cookie(self._cookie, self._session, httponly=True, samesite="strict", path="/")
        return answer


def _let_in(request: Request) -> Response | None:
    """What is answered in the place of the page if too many have been let in already."""
    from starlette.responses import PlainTextResponse

    connection = request.scope.get("state", {}).get(CONNECTION)
    if connection is None or connection.let_in():
        return None
    return PlainTextResponse("So many browsers are served at once. Close one of them.\n", 503)


async def body_of(request: Request, most: int) -> bytes:
    """The first `most` bytes of what a request sends; nothing if whoever sends it is gone, and hears no answer."""
    from starlette.requests import ClientDisconnect

    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > most:
                break
    except ClientDisconnect:
        return b""
    return body[:most]


def may_change(request: Request, word: str) -> bool:
    """Whether a request that changes something comes from our own page: it knows `word`, and is of the same origin."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin", "")
    host = request.headers.get("Host", "")
    if site not in (None, "same-origin") or origin.partition("://")[2] != host or not host:
        return False
    return is_same(request.headers.get(CSRF_HEADER, ""), word)


def _host_of(header: str) -> str:
    """The name in a Host header, without its port; empty if that is none."""
    found = re.fullmatch(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d+)?", header.lower())
    return (found[1] or found[2]) if found else ""


def is_same(given: str, known: str) -> bool:
    """Whether two words are the same, in a time that tells nothing of them."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), known.encode("utf-8", "surrogatepass"))
