"""A group of commands: a wrong one is answered with the known names, a missing app with how to name it."""

from __future__ import annotations

import click

from zmqpipeline.cli.common import unknown
from zmqpipeline.cli.new import new_command


class Group(click.Group):
    """See the module."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the known names beside a wrong one."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise click.UsageError(unknown("command", args[0], list(self.commands)))
        found = super().resolve_command(ctx, args)
        if ctx.obj is None and args[0] != new_command.name and "--help" not in args:
            raise click.UsageError(
                "Say which app: -A package.module, -A file.py, or -A package.module:name, before the command."
            )
        return found
