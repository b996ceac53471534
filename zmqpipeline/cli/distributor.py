"""The command `distributor`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import (
    check_task,
    exit_when_idle_flag,
    making,
    metadata_flag,
    patient,
    serve,
    settle,
    shared_flags,
)
from zmqpipeline.processes.run_metadata import read_metadata
from zmqpipeline.roles.runner import RoleRunner
from zmqpipeline.runtime.security.issued import RunKeys


@click.command("distributor", epilog="Example: python -m app distributor --endpoint tcp://0.0.0.0:5550")
@metadata_flag
@click.option("--meta-file", type=click.Path(path_type=Path), hidden=True)
@click.option("--task", "tasks", multiple=True, hidden=True)
@click.option("--issued-keys", type=click.Path(path_type=Path), hidden=True)
@exit_when_idle_flag
@shared_flags
@click.pass_obj
def distributor(
    app: Pipeline,
    /,
    meta: dict[str, str],
    meta_file: Path | None,
    tasks: Sequence[str],
    issued_keys: Path | None,
    **flags: Any,
) -> int:
    """Hand out the items of all tasks."""
    options = settle(app, flags)
    for name in tasks:
        check_task(name, app.task_types)
    metadata = _metadata(meta, meta_file)
    with making("distributor"):
        role = app.compile("distributor", options=patient(options, flags), metadata=metadata)
    RoleRunner.of(role).run_keys = RunKeys(admitted=issued_keys)
    return serve(role)


def _metadata(given: dict[str, str], file: Path | None) -> dict[str, Any]:
    return dict(given) if file is None else read_metadata(file)
