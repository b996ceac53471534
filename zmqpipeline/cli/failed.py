"""The commands for failed items that a journal holds: list them, show one, mark them to be tried again."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.group import Group
from zmqpipeline.cli.output import tell
from zmqpipeline.cli.tables import table
from zmqpipeline.errors import ConfigurationError, JournalError, SerializeError, did_you_mean
from zmqpipeline.options import Options
from zmqpipeline.processes import import_app, launch
from zmqpipeline.runtime import journal as journals
from zmqpipeline.runtime.error_text import printable
from zmqpipeline.runtime.journal import DeadItem
from zmqpipeline.serialization.pack import unpack

HEAD = ("task", "number", "attempts", "stage", "error", "message", "when", "")
"""The columns of the list."""

MAX_MESSAGE_LENGTH = 60
"""So many characters of an error's message fit into the table."""

_journal = click.option("--journal", metavar="FILE", help="The journal; by default what ZMQPIPELINE_JOURNAL says.")


def command_of(ctx: click.Context, app: Pipeline, *arguments: str) -> str:
    """What the user types for another command of this app: ``python -m app run --journal FILE``."""
    root = ctx.find_root()
    takes_app = any(one.name == "app" for one in root.command.params)
    target = ["-A", import_app.target_of(app)] if takes_app else []
    return f"{root.command_path} {shlex.join([*target, *arguments])}"


@click.command("list", epilog="Example: python -m app dead list --journal run.db")
@_journal
@click.option("--task", metavar="TASK", help="Only those of this task.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array of objects on stdout.")
@click.pass_obj
def _list(app: Pipeline, /, journal: str | None, task: str | None, as_json: bool) -> int:
    """List the failed items, in the order of their failure."""
    path, items = _items(app, journal)
    if task is not None:
        _check_task(app, items, task)
        items = [one for one in items if one.task == task]
    if as_json:
        tell(json.dumps([_as_object(one) for one in items]))
    elif not items:
        tell(f"There are no failed items{'' if task is None else f' of task {task!r}'} in {path}.", err=True)
    else:
        for line in table(HEAD, [_row(one) for one in items]):
            tell(line)
    return 0


@click.command("show", epilog="Example: python -m app dead show C 3 --journal run.db")
@click.argument("task")
@click.argument("number", type=click.IntRange(0))
@_journal
@click.pass_obj
def _show(app: Pipeline, /, task: str, number: int, journal: str | None) -> int:
    """Show one failed item: its data, the error and the traceback."""
    path, items = _items(app, journal)
    _check_known(app, path, items, [(task, number)])
    item = next(one for one in items if (one.task, one.number) == (task, number))
    tries = f"{item.attempts} attempt{'' if item.attempts == 1 else 's'}"
    later = ", to be retried" if item.retrying else ""
    tell(f"Item {number} of task {printable(task)} failed ({item.stage}, {tries}) on {_when(item)}{later}.")
    tell(f"\ndata: {_data(item.payload)}")
    tell(f"\n{printable(item.error)}: {printable(item.message, lines=True)}")
    if item.traceback:
        tell(f"\n{printable(item.traceback.rstrip(), lines=True)}")
    return 0


@click.command("retry", epilog="Example: python -m app dead retry C 3 17 --journal run.db")
@click.argument("ids", nargs=-1, metavar="[TASK NUMBER...]...")
@click.option("--all", "all_of_them", is_flag=True, help="All failed items.")
@_journal
@click.pass_obj
@click.pass_context
def _retry(ctx: click.Context, app: Pipeline, /, ids: Sequence[str], all_of_them: bool, journal: str | None) -> int:
    """Mark failed items to be tried again when the run goes on: a task and its numbers, or --all.

    A run that is finished is opened anew.
    """
    if bool(ids) == all_of_them:
        raise click.UsageError("Say which items: TASK NUMBER..., or --all. `dead list` shows those that there are.")
    wanted = None if all_of_them else _read_ids(ids)
    path, items = _items(app, journal)
    _check_known(app, path, items, wanted or ())
    number = journals.retry(path, None if wanted is None else set(wanted))
    before = sum(one.retrying for one in items if wanted is None or (one.task, one.number) in wanted)
    known = f" {before} {'was' if before == 1 else 'were'} marked before." if before else ""
    if not number and not before:
        tell(f"There are no failed items in {path}.")
    else:
        tell(f"Marked {number} failed item{'' if number == 1 else 's'} to be tried again.{known}")
        tell(f"They are, when the run goes on: {command_of(ctx, app, 'run', '--journal', str(path))}")
    return 0


dead = Group(
    "dead",
    help="List, show and retry the failed items of a journal.",
    epilog="Example: python -m app dead list --journal run.db",
    commands=[_list, _show, _retry],
)


# what they stand on ---------------------------------------------------------------------------------------------------


def _items(app: Pipeline, given: str | None) -> tuple[str, list[DeadItem]]:
    """The journal that is meant, and its failed items. Raises JournalError if it is none of this pipeline."""
    path = Options.from_environ(app.options, os.environ).merge(journal=given).journal
    if path is None:
        raise ConfigurationError("Say which journal: --journal FILE, or the variable ZMQPIPELINE_JOURNAL.")
    launch.held_by(app, path)
    return path, journals.dead_items(path)


def _check_task(app: Pipeline, items: Sequence[DeadItem], task: str) -> None:
    """Raise ConfigurationError for what is neither a task of the app nor of the journal, which may know older ones."""
    known = list(dict.fromkeys([*app.task_types, *(one.task for one in items)]))
    if task not in known:
        listed = ", ".join(repr(one) for one in known) or "none"
        raise ConfigurationError(f"There is no task {task!r}.{did_you_mean(task, known)} Known: {listed}.")


def _check_known(app: Pipeline, path: str, items: Sequence[DeadItem], wanted: Sequence[tuple[str, int]]) -> None:
    known = {(one.task, one.number) for one in items}
    for task, number in wanted:
        _check_task(app, items, task)
        if (task, number) not in known:
            raise JournalError(
                f"There is no failed item {number} of task {task!r} in {path}. `dead list` shows those that there are."
            )


def _read_ids(given: Sequence[str]) -> list[tuple[str, int]]:
    """``C 3 17 D 1``: a task and its numbers, and so on."""
    found: list[tuple[str, int]] = []
    task, numbers = given[0], 0
    for word in given[1:]:
        if word.isascii() and word.isdigit():
            found.append((task, int(word)))
            numbers += 1
        elif not numbers:
            break
        else:
            task, numbers = word, 0
    if not numbers:
        raise click.UsageError(f"After the task {task!r} come the numbers of its items: retry {task} 3 17.")
    return found


def _as_object(item: DeadItem) -> dict[str, Any]:
    when = datetime.fromtimestamp(item.failed_at, timezone.utc).isoformat(timespec="milliseconds")
    names = ("task", "number", "attempts", "stage", "error", "message")
    return {**{name: getattr(item, name) for name in names}, "when": when, "retrying": item.retrying}


def _row(item: DeadItem) -> list[str]:
    lines = item.message.splitlines()
    message = printable(lines[0] if lines else "")
    if len(message) > MAX_MESSAGE_LENGTH:
        message = message[: MAX_MESSAGE_LENGTH - 3] + "..."
    state = "to be retried" if item.retrying else ""
    first = [printable(item.task), str(item.number), str(item.attempts), item.stage]
    return [*first, printable(item.error), message, _when(item), state]


def _when(item: DeadItem) -> str:
    return datetime.fromtimestamp(item.failed_at).isoformat(" ", "seconds")


def _data(payload: bytes) -> str:
    """A packed value as JSON, if that says all of it; otherwise as Python shows it."""
    if not payload:
        return "not kept"
    try:
        value = unpack(payload)
    except SerializeError:
        return repr(payload)
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        plain = json.loads(text) == value
    except (TypeError, ValueError, RecursionError):
        plain = False
    return printable(text if plain else repr(value), lines=True)
