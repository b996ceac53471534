"""The command `collector`."""

from __future__ import annotations

from typing import Any, cast

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import (
    check_journal,
    exit_when_idle_flag,
    journal_flags,
    making,
    serve,
    settle,
    shared_flags,
)
from zmqpipeline.roles.collector import Collector, CollectorRunner


@click.command("collector", epilog="Example: python -m app collector --journal run.db --endpoint tcp://0.0.0.0:5550")
@journal_flags
@exit_when_idle_flag
@shared_flags
@click.pass_obj
def collector_command(app: Pipeline, /, fresh: bool, **flags: Any) -> int:
    """Collect the results of all tasks."""
    options = settle(app, flags)
    check_journal(options, fresh)
    with making("collector"):
        collector = cast("Collector", app.compile("collector", options=options))
    CollectorRunner.of(collector).fresh = fresh
    return serve(collector)
