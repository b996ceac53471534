"""The group of all commands: each is in a module of this folder, and a new one is a new file.

A process carries out one command: the module of its name is imported, and all others only if there is none (a module
may define several commands), or if they are listed.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import click

from zmqpipeline import cli
from zmqpipeline.cli.common import unknown
from zmqpipeline.runtime.imports import many_imports

NEW = "new"
"""The command that has no app."""


class Group(click.Group):
    """Commands, of which a wrong one is answered with the known names."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the known names beside a wrong one."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise click.UsageError(unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


class AllCommands(Group):
    """See the module. A missing app is answered with how to name it."""

    def __init__(self, *args: Any, with_new: bool = False, **kwargs: Any) -> None:
        """`with_new`: that command, too."""
        super().__init__(*args, **kwargs)
        self._left = {one.name for one in pkgutil.iter_modules(cli.__path__)} - {"main"}
        self._with_new = with_new

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, if there is one."""
        module = cmd_name.replace("-", "_")
        if cmd_name not in self.commands and module in self._left:
            self._import(module)
        if cmd_name not in self.commands:
            self._import(*sorted(self._left))
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all."""
        self._import(*sorted(self._left))
        return super().list_commands(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As that of `Group`, if there is an app."""
        found = super().resolve_command(ctx, args)
        if ctx.obj is None and args[0] != NEW and "--help" not in args:
            raise click.UsageError(
                "Say which app: -A package.module, -A file.py, or -A package.module:name, before the command."
            )
        return found

    def _import(self, *modules: str) -> None:
        """Take the commands of these modules."""
        for module in modules:
            self._left.discard(module)
            with many_imports():
                imported = importlib.import_module(f"{cli.__name__}.{module}")
            for name, one in vars(imported).items():
                if isinstance(one, click.Command) and not name.startswith("_") and (one.name != NEW or self._with_new):
                    self.add_command(one)
