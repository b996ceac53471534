"""The command `graph`: the tasks of an app, drawn as text."""

from __future__ import annotations

from typing import Any

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli import describe
from zmqpipeline.cli.common import settle, shared_flags
from zmqpipeline.cli.output import tell


@click.command("graph", epilog="Example: python -m app graph --dot | dot -Tsvg -o app.svg")
@click.option("--dot", "as_dot", is_flag=True, help="Write Graphviz DOT instead of Mermaid.")
@shared_flags
@click.pass_obj
def graph(app: Pipeline, /, as_dot: bool, **flags: Any) -> int:
    """Draw the tasks and their order as text: a Mermaid flowchart, as GitHub and many editors show it."""
    settle(app, flags)
    for line in describe.dot(app) if as_dot else describe.mermaid(app):
        tell(line)
    return 0
