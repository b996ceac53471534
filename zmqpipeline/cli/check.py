"""The command `check`: whether the app fits together."""

from __future__ import annotations

from typing import Any

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli import describe
from zmqpipeline.cli.common import settle, shared_flags
from zmqpipeline.cli.output import tell


@click.command("check", epilog="Example: python -m app check --endpoint tcp://SERVER:5550")
@shared_flags
@click.pass_obj
def check(app: Pipeline, /, **flags: Any) -> int:
    """Compile the app; print its roles with their addresses, and the order of the tasks."""
    for line in describe.describe(app, settle(app, flags)):
        tell(line)
    return 0
