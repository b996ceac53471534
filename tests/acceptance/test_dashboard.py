"""`dashboard` by real processes: what its page is sent, who is let in, and what each answer forbids a browser."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.acceptance.conftest import ROOT
from tests.acceptance.test_metrics import APP
from zmqpipeline.cli.page.connections import REQUEST_SECONDS
from zmqpipeline.cli.page.site import FILES

if TYPE_CHECKING:
    from tests.acceptance.conftest import Program, Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]

TOKEN = "a token of some length"

ONE_REQUEST = 12
"""Seconds that a request may take in a test of slow ones."""


@pytest.fixture
def serve(workshop: Workshop, eventually: Callable[..., None]) -> Callable[..., tuple[Program, httpx.Client]]:
    """Start `dashboard` on any free port: the process, and a client of the page."""
    workshop.write("app.py", APP)

    def start(*arguments: str, **environ: str) -> tuple[Program, httpx.Client]:
        program = workshop.start("-m", "app", "dashboard", "--port", "0", "--interval", "0.1", *arguments, **environ)
        eventually(lambda: program.ended() or "\n" in program.err, "the address")
        said = re.fullmatch(r"The page of '\w+': http://\S+:(\d+)/\n", program.err)
        assert said, program.err
        return program, httpx.Client(base_url=f"http://127.0.0.1:{said[1]}", timeout=60)

    return start


def events(client: httpx.Client, **view: str | int) -> Iterator[dict[str, Any]]:
    """What the page is sent."""
    with client.stream("GET", "/events", params=view) as stream:
        assert stream.status_code == 200
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        told: dict[str, Any] = {}
        for line in stream.iter_lines():
            if line:
                # each says what has changed
                told = {**told, **json.loads(line.removeprefix("data: "))}
                yield told


def test_the_numbers_are_those_of_the_summary(
    workshop: Workshop, serve: Callable[..., tuple[Program, httpx.Client]], eventually: Callable[..., None]
) -> None:
    """With failures, retries and a killed worker; the page is there before the run and after it."""
    program, client = serve()
    with client:
        assert next(events(client))["well"].startswith("Nobody answers")
        run = workshop.start("-m", "app", "run", "--workers", "2", "--json")
        eventually(lambda: run.ended() or (workshop.folder / "finishing").exists(), "the end of the items")
        stream = events(client)
        wanted = (90, 10)
        told = next(one for one in stream if _done(one) == wanted and one["is_bad"])
        workshop.write("go", "")
        assert run.wait() == 1, run.err
        shown = {one["name"]: one for one in told["tasks"]}
        for task, counts in run.json["tasks"].items():
            assert {key: shown[task][key] for key in ("sent", "collected", "failed", "redelivered")} == {
                key: counts[key] for key in ("sent", "collected", "failed", "redelivered")
            }
        assert "'A' is " in told["well"]
        assert next(one for one in events(client) if not one["tasks"])["well"].startswith("Nobody answers")
    program.signal(signal.SIGTERM)
    assert program.wait() == 143
    assert program.err.count("\n") == 1, program.err


def _done(told: dict[str, Any]) -> tuple[int, int]:
    """How many items are collected and failed, as the page shows it."""
    tasks = told["tasks"]
    return sum(one["collected"] for one in tasks), sum(one["failed"] for one in tasks)


def test_it_ends_while_a_browser_listens(serve: Callable[..., tuple[Program, httpx.Client]]) -> None:
    """At Ctrl-C with 130 and nothing said."""
    program, client = serve()
    with client:
        stream = events(client)
        next(stream)
        program.signal(signal.SIGINT)
        for _ in stream:
            pass
    assert program.wait() == 130
    assert program.err.strip().count("\n") == 0, program.err


class Scripts(HTMLParser):
    """What of a page a strict policy would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A script or style of its own, a handler, a style, or an address elsewhere."""
        given = dict(attrs)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        self.inline += [str(given[name]) for name in ("src", "href", "action") if "//" in str(given.get(name, ""))]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def test_each_answer_forbids_what_the_page_does_not_need(serve: Callable[..., tuple[Program, httpx.Client]]) -> None:
    """A policy without exceptions on the page, its files and what is not there; nothing inline, nothing elsewhere."""
    _, client = serve()
    with client:
        files = [(path, 200) for path in FILES]
        for path, status in (*files, ("/metrics", 200), ("/favicon.ico", 204), ("/x", 404)):
            answer = client.get(path)
            assert answer.status_code == status
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
            assert "unsafe" not in policy
            assert "*" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert client.post("/").status_code == 405
        assert client.get("/../../app.py").status_code == 404
    for name in ("index.html", "login.html"):
        parser = Scripts()
        parser.feed((ROOT / "zmqpipeline/cli/page/files" / name).read_text())
        assert parser.inline == []


def test_what_comes_from_a_run_is_never_html() -> None:
    """The scripts have no way to make HTML of a text."""
    script = "".join((ROOT / "zmqpipeline/cli/page/files" / name).read_text() for name in ("page.js", "draw.js"))
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"):
        assert word not in script


def test_without_a_token_only_names_of_this_machine_are_answered(
    serve: Callable[..., tuple[Program, httpx.Client]],
) -> None:
    """So a page of the internet cannot read it by a name that it lets lead to 127.0.0.1."""
    program, client = serve()
    with client:
        port = client.base_url.port
        for host, status in ((f"localhost:{port}", 200), (f"127.0.0.1:{port}", 200), (f"evil.example:{port}", 421)):
            for path in ("/", "/page.js"):
                assert client.get(path, headers={"Host": host}).status_code == status
        for host in (
            "evil.example",
            f"localhost:{port}/",
            "localhost/x?",
            "x@localhost",
            "[",
            "",
            "localhost.evil.example",
        ):
            assert client.get("/events", headers={"Host": host}).status_code == 421
    assert program.err.count("\n") == 1, program.err


def test_a_token_is_asked_for(serve: Callable[..., tuple[Program, httpx.Client]]) -> None:
    """Nothing is told without it; with it a browser gets a cookie, and a program needs none."""
    program, client = serve("--host", "0.0.0.0", ZMQPIPELINE_DASHBOARD_TOKEN=TOKEN)
    with client:
        page = client.get("/")
        assert (page.status_code, "password" in page.text) == (401, True)
        for path in ("/events", "/page.js", "/x"):
            assert client.get(path).status_code == 401
            # a path in the host is not that which is asked for
            for host in ("x/page.css?", "x/page.css#", "["):
                assert client.get(path, headers={"Host": host}).status_code == 401
        for cookie in ("", "x", TOKEN, "\xe9"):
            header = {"Cookie": f"zmqpipeline-{client.base_url.port}={cookie}".encode("latin-1")}
            assert client.get("/events", headers=header).status_code == 401
        for given in ({"token": "wrong"}, {"token": ""}, {}, {"token": "x" * 100_000}):
            assert client.post("/login", data=given).status_code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/page.js", headers=bearer).status_code == 200
        assert client.get("/page.js", headers={"Authorization": f"Bearer {TOKEN}x"}).status_code == 401
        answer = client.post("/login", data={"token": TOKEN})
        assert (answer.status_code, answer.headers["Location"]) == (303, "./")
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert TOKEN not in cookie
        assert next(events(client))["title"] == "counted"
    assert not program.ended()
    assert program.err.count("\n") == 1, program.err


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\ntok",
        b"GET /events HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\r\n\r\n",
    ],
    ids=["half a login", "a websocket", "no http"],
)
def test_who_has_no_token_writes_nothing_into_the_log(
    sent: bytes, serve: Callable[..., tuple[Program, httpx.Client]]
) -> None:
    """Half a request, or one of another kind; who has the token is served as before."""
    program, client = serve(ZMQPIPELINE_DASHBOARD_TOKEN=TOKEN)
    with client:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as raw:
                raw.sendall(sent)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(4096):
                    pass
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert next(events(client))["title"] == "counted"
    program.signal(15)
    assert program.wait() == 143
    assert program.err.count("\n") == 1, program.err


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET / HT", b"POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\ntok"],
    ids=["nothing", "half a head", "half a login"],
)
def test_who_has_the_token_is_served_beside_many_unfinished_requests(
    sent: bytes, serve: Callable[..., tuple[Program, httpx.Client]]
) -> None:
    """Those are closed after some seconds; a browser that listens meanwhile goes on.

    The quickest of three answers counts: what else the machine does only adds to it.
    """
    program, client = serve(ZMQPIPELINE_DASHBOARD_TOKEN=TOKEN)
    client.headers["Authorization"] = f"Bearer {TOKEN}"
    place = ("127.0.0.1", client.base_url.port or 0)
    with client, ExitStack() as stack:
        listening = events(client)
        assert next(listening)["title"] == "counted"
        seconds = []
        for _ in range(3):
            strangers = [stack.enter_context(socket.create_connection(place, timeout=60)) for _ in range(230)]
            for one in strangers:
                with suppress(ConnectionError):  # those that came first are closed already
                    one.sendall(sent)
            before = time.monotonic()
            # by a connection of its own
            assert httpx.get(f"{client.base_url}/", headers=client.headers, timeout=60).status_code == 200
            seconds.append(time.monotonic() - before)
        for one in strangers:
            with suppress(ConnectionError):
                assert one.recv(1) == b""
        assert next(listening)["title"] == "counted"
        assert min(seconds) < REQUEST_SECONDS - 1, seconds
    program.signal(15)
    assert program.wait() == 143
    assert program.err.count("\n") == 1, program.err


def test_a_connection_may_bring_one_request_after_another(
    workshop: Workshop,
    serve: Callable[..., tuple[Program, httpx.Client]],
) -> None:
    """Also one whose bytes come one by one, and the first of them late; all of it takes longer than one may."""
    # far more than one of them takes here, so that one is in time where the machine stalls
    longer = f"from zmqpipeline.cli.page import connections\nconnections.REQUEST_SECONDS = {ONE_REQUEST}\n"
    workshop.write("app.py", longer + APP)
    _, client = serve()
    head = f"GET /page.css HTTP/1.1\r\nHost: 127.0.0.1:{client.base_url.port}\r\n\r\n".encode()
    with client, socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=60) as raw:
        for _ in range(3):
            time.sleep(ONE_REQUEST / 3)
            for index in range(len(head)):
                raw.sendall(head[index : index + 1])
                time.sleep(0.02)
            answer = http.client.HTTPResponse(raw)
            answer.begin()
            assert (answer.status, len(answer.read())) == (200, int(answer.headers["Content-Length"]))


def test_what_the_user_can_mend_is_one_line(workshop: Workshop) -> None:
    """Another address without a token, a token that is short, a port that is taken: status 2."""
    workshop.write("app.py", APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, said in (
            (("--host", "0.0.0.0"), "ZMQPIPELINE_DASHBOARD_TOKEN="),
            (("--host", "::"), "other machines could read the page"),
            (("--dashboard-token", "short"), "5 characters; it needs 16"),
            (("--port", port), f"Nobody can listen at 127.0.0.1 port {port}"),
            (("--port", "0", "--endpoint", "inproc://x"), "inproc"),
        ):
            status, program = workshop.run("-m", "app", "dashboard", *arguments)
            assert (status, program.err.count("\n")) == (2, 1), program.err
            assert said in program.err


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_packages_it_says_what_to_install(workshop: Workshop, package: str) -> None:
    """One line, status 2."""
    workshop.write("app.py", APP)
    workshop.write(f"{package}.py", f"raise ModuleNotFoundError(\"No module named '{package}'\")")
    path = os.pathsep.join((str(workshop.folder), workshop.environ["PYTHONPATH"]))
    status, program = workshop.run("-m", "app", "dashboard", "--port", "0", PYTHONPATH=path)
    assert (status, program.err.count("\n")) == (2, 1), program.err
    assert "pip install 'zmqpipeline[dashboard]'" in program.err


def test_the_files_of_the_page_are_in_the_package(workshop: Workshop) -> None:
    """Read as an installed program reads them."""
    imports = "from zmqpipeline.cli.page.guard import page_file; from zmqpipeline.cli.page.site import FILES"
    code = f"{imports}\nfor name, _ in FILES.values(): page_file(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=workshop.folder, env=workshop.environ, check=False)
    assert done.returncode == 0
