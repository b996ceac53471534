"""The command `dashboard`: a page in a browser that shows a running pipeline, by a server that asks as `status` does.

There is nothing to change by it: a run that was started with `--dashboard-control` has a page of its own for that.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.asker import asker_of
from zmqpipeline.cli.common import interval_flag, settle, shared_flags
from zmqpipeline.cli.output import tell
from zmqpipeline.cli.page.guard import check_token
from zmqpipeline.cli.page.place import HOST, PORT, TOKEN_HELP, TOKEN_VARIABLE, listening, url_of
from zmqpipeline.cli.page.plan import page_plan
from zmqpipeline.cli.page.server import check_packages, serve
from zmqpipeline.cli.page.site import Site
from zmqpipeline.cli.page.watch import Watch


@click.command("dashboard", epilog="Example: python -m app dashboard --port 8787 --endpoint tcp://SERVER:5550")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    metavar="P",
    help="Port to listen on. 0: any free one, which is printed.",
)
@click.option(
    "--host",
    default=HOST,
    show_default=True,
    metavar="HOST",
    help="Address to listen on. One that other machines reach needs a token.",
)
@click.option("--dashboard-token", envvar=TOKEN_VARIABLE, metavar="TOKEN", help=TOKEN_HELP)
@interval_flag
@shared_flags
@click.pass_obj
@click.pass_context
def dashboard(
    ctx: click.Context,
    app: Pipeline,
    /,
    port: int,
    host: str,
    dashboard_token: str | None,
    interval: float,
    **flags: Any,
) -> int:
    """Show a running pipeline in a browser, until this process is ended. Nothing can be changed there."""
    options = settle(app, flags)
    check_token(host, dashboard_token)
    check_packages()
    plan = page_plan(ctx, app, options.journal, is_beside=False)
    how = "--host HOST --port PORT"
    with asker_of(app, options, flags["endpoint"]) as asker, listening(host, port, how) as listener:

        async def run() -> None:
            watch = Watch(asker, interval)
            await serve(Site(plan, watch, asker), watch, listener, host, dashboard_token, own=True)

        # the server takes the signals while it runs, and gives them on when it has ended
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            tell(f"The page of {app.name!r}: {url_of(listener)}", err=True)
            asyncio.run(run())
        finally:
            signal.signal(signal.SIGTERM, before)
    return 128 + signal.SIGTERM
