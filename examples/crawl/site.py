"""A site that is made up: so many pages with circles and dead links, behind a real HTTP server on the loopback.

Start it with ``python -m examples.crawl.site [--pages N] [--port N]``; its first line is its address.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DEAD = 50
"""One page in so many has a link that leads nowhere."""


def links(page: int, pages: int) -> list[str]:
    """The links of a page: to two further ones, back to the one before, to one anywhere, and perhaps nowhere."""
    further = [one for one in (2 * page + 1, 2 * page + 2) if one < pages]
    found = [f"/{one}" if one else "/" for one in (*further, page // 2, (7 * page + 3) % pages)]
    return [*found, f"/gone/{page}"] if page % DEAD == 0 else found


def graph(pages: int) -> dict[str, list[str]]:
    """All paths that there are links to; a dead one has no links of its own."""
    alive = {f"/{page}" if page else "/": links(page, pages) for page in range(pages)}
    return alive | {f"/gone/{page}": [] for page in range(0, pages, DEAD)}


def html(path: str, found: list[str]) -> bytes:
    """The page itself."""
    text = "".join(f'<a href="{link}">{link}</a>' for link in found)
    return f"<html><title>page {path}</title><body>{text}</body></html>".encode()


def serve(pages: int, port: int) -> None:
    """Serve until it is killed; ``/-/asked`` says how often each path was asked for, ``/-/count`` how many."""
    known, asked = graph(pages), Counter[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = known.get(self.path, [])
            if self.path.startswith("/-/"):
                body = json.dumps(len(asked) if self.path == "/-/count" else asked).encode()
            else:
                asked[self.path] += 1
                body = html(self.path, found)
            self.send_response(200 if found or self.path.startswith("/-/") else 404)
            # without it Scrapy asks what the text may be, for longer than it takes to get it
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: there are ten thousand of them."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Who asked may have been killed meanwhile."""
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", port), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.crawl.site", description="Serve a made-up site.")
    parser.add_argument("--pages", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--port", type=int, default=0, help="default: any free one")
    given = parser.parse_args()
    serve(given.pages, given.port)
