"""What is served: the files of the page, events that tell how the run stands, metrics, and what may be asked for."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from zmqpipeline.cli.asker import Asker
from zmqpipeline.cli.metrics import exposed
from zmqpipeline.cli.page.guard import body_of, may_change, page_file
from zmqpipeline.cli.page.orders import SCALE, read_order
from zmqpipeline.cli.page.plan import PagePlan
from zmqpipeline.cli.page.shown import View, shown
from zmqpipeline.cli.page.watch import Watch
from zmqpipeline.runtime.error_text import printable

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/draw.js": ("draw.js", "text/javascript"),
    "/uPlot.js": ("uPlot.iife.min.js", "text/javascript"),
    "/uPlot.css": ("uPlot.min.css", "text/css"),
    "/uPlot.LICENSE": ("uPlot.LICENSE", "text/plain"),
}

WORDS = ("drain", "cancel", SCALE)
"""What a page may ask `run` for."""

MAX_ORDER_BYTES = 200
"""So many bytes of a request that changes something are read."""


class Site:
    """See the module."""

    server: uvicorn.Server | None = None
    """Whoever serves it: when that is to end, the events do."""

    def __init__(
        self, plan: PagePlan, watch: Watch, asker: Asker, ask_for: Callable[[str], object] | None = None
    ) -> None:
        """`ask_for` hands a line on to `run`; None: nothing can be asked for."""
        self._plan = plan
        self._watch = watch
        self._asker = asker
        self._ask_for = ask_for
        self._word = secrets.token_urlsafe(24)

    def routes(self) -> ASGIApp:
        """The application, without its guard."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        paths = [*FILES, "/favicon.ico"]
        app = Starlette(
            routes=[
                *(Route(path, self._file) for path in paths),
                Route("/events", self._events),
                Route("/metrics", self._metrics),
                Route("/control/{what}", self._control, methods=["POST"]),
            ]
        )
        # to a place whose host is whatever the request says
        app.router.redirect_slashes = False
        return app

    async def _file(self, request: Request) -> Response:
        from starlette.responses import Response

        path = request.scope["path"]
        if path not in FILES:
            return Response(status_code=204)  # browsers ask for an icon by themselves
        name, kind = FILES[path]
        return Response(page_file(name), media_type=kind)

    # events -----------------------------------------------------------------------------------------------------------

    async def _events(self, request: Request) -> Response:
        from starlette.responses import StreamingResponse

        return StreamingResponse(self._stream(View.read(request.query_params)), media_type="text/event-stream")

    def _is_closing(self) -> bool:
        return self.server is not None and self.server.should_exit

    async def _stream(self, view: View) -> AsyncIterator[str]:
        """The first event has all of it, the others what has changed, and the new points of the lines."""
        control = {"word": self._word, "can": WORDS} if self._ask_for is not None else None
        told: dict[str, Any] = {"graph": self._plan.graph, "control": control}
        last: dict[str, Any] = {}
        version, sent = -1, 0
        async for _ in self._watch.numbers(self._is_closing):
            history = self._watch.history
            if version != history.version:
                version, sent = history.version, 0
                told["series"] = [printable(name) for name in history.series]
            told["points"] = [[round(one.at, 2), one.rates, one.seconds] for one in history.points[sent:]]
            sent = len(history.points)
            now = shown(self._plan, self._watch.moment(), view)
            told.update((key, value) for key, value in now.items() if key not in last or last[key] != value)
            yield f"data: {json.dumps(told)}\n\n"
            last, told = now, {}

    # metrics ----------------------------------------------------------------------------------------------------------

    async def _metrics(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse, Response

        try:
            told, kind = await asyncio.to_thread(exposed, self._asker.ask, request.headers.get("Accept", ""))
        except ImportError as error:
            text = f"Metrics need the package prometheus-client, which cannot be imported ({error}).\n"
            return PlainTextResponse(text, 501)
        return Response(told, headers={"Content-Type": kind})

    # control ----------------------------------------------------------------------------------------------------------

    async def _control(self, request: Request) -> Response:
        from starlette.responses import PlainTextResponse

        what = request.path_params["what"]
        if self._ask_for is None:
            return PlainTextResponse("Nothing can be changed here: see --dashboard-control.\n", 403)
        if not may_change(request, self._word):
            return PlainTextResponse("This does not come from the page of this run: load it again.\n", 403)
        if what not in WORDS:
            return PlainTextResponse("Nothing of this name can be asked for.\n", 404)
        line = what
        if what == SCALE:
            body = await body_of(request, MAX_ORDER_BYTES)
            order = read_order(self._plan.scalable, self._watch.moment().staff, body)
            if isinstance(order, str):
                return PlainTextResponse(f"{order} Nothing was changed.\n", 400)
            line = order.line()
        try:
            self._ask_for(line)
        except OSError:
            return PlainTextResponse("The run is gone.\n", 503)
        return PlainTextResponse("Asked for.\n", 202)
