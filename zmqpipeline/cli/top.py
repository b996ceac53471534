"""The command `top`: what the workers of a running pipeline do, those on top whose items have run longest."""

from __future__ import annotations

import sys
from typing import Any

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import interval_flag, shared_flags
from zmqpipeline.cli.screen import Screen
from zmqpipeline.cli.status import Tables, as_top, ask_again
from zmqpipeline.protocol.messages import Status


@click.command("top", epilog="Example: python -m app top --interval 2")
@interval_flag
@shared_flags
@click.pass_obj
def top(app: Pipeline, /, interval: float, **flags: Any) -> int:
    """Show the workers of a running pipeline, longest running items first, until it is over.

    It is `status --watch` with the workers on top, and how much each has done a second. On a terminal as many workers
    are shown as there is room for.
    """
    screen = Screen(sys.stdout)

    def lines_of(base: str, now: Status, before: Status | None, runs: int) -> list[str]:
        rows = screen.rows
        # an empty line is between two runs
        return as_top(base, now, before, bars=screen.is_live, rows=None if rows is None else rows // runs - (runs > 1))

    ask_again(app, flags, Tables(screen, lines_of), interval)
    return 0
