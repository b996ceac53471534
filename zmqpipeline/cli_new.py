"""The command `new`: a small app with its test, to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from zmqpipeline.scaffold import write_app


@click.command("new", epilog="Example: zmqpipeline new squares")
@click.argument("name")
def new_command(name: str) -> int:
    """Write a small app, its test and a README into the new folder NAME; all of it works at once."""
    for file in write_app(name, Path()):
        click.echo(f"wrote {file}")
    click.echo(f"Now: cd {name} && python -m {name} run")
    return 0
