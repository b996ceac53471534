"""The command line: click commands around an app, for ``python -m app ...`` and ``zmqpipeline -A package.module ...``.

Exit status: 0 all collected; 1 an item failed or was aborted; 2 usage or configuration; 3 a role that `run` needs kept
dying; 70 a worker whose threads are all stuck; 75 something that may pass, such as a full disk; 130 and 143 ended by
SIGINT or SIGTERM (a worker that drained on SIGTERM: 0).
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import say
from zmqpipeline.cli.group import AllCommands
from zmqpipeline.cli.output import OF_A_FULL_DISK, OutputError, flush_output
from zmqpipeline.errors import JournalUnavailable, PipelineError
from zmqpipeline.processes import import_app
from zmqpipeline.runtime import child as processes
from zmqpipeline.runtime import child_report as told
from zmqpipeline.runtime.error_text import users_line
from zmqpipeline.runtime.standard_files import open_closed_files


def main(app: Pipeline | None = None, argv: Sequence[str] | None = None) -> NoReturn:
    """Carry out the command that `argv` (default: that of the process) names, and exit with its status.

    Without an app, ``-A`` says which; that is what the ``zmqpipeline`` command does.
    """
    sys.exit(run_command(app, argv))


def run_command(app: Pipeline | None, argv: Sequence[str] | None = None) -> int:
    """As `main`, but returns the exit status. What the user can mend is one line on stderr, without a traceback."""
    open_closed_files()
    status = _carry_out(app, argv)
    if not processes.is_child():
        status = _flushed(status)
    # whoever started this process can tell now that the status is ours, and not one of user code
    processes.tell_parent(f"{told.EXIT} {status}")
    return status


def _flushed(status: int) -> int:
    """The status of a command that has come to its end, once all that it printed is written; of what cannot be, 75."""
    try:
        flush_output()
    except OutputError as error:
        return say(str(error), error.exit_status)
    return status


def _carry_out(app: Pipeline | None, argv: Sequence[str] | None) -> int:
    if app is not None:
        import_app.refuse_while_importing("app.main()")
        app.command = str(_program(app))
    arguments = None if argv is None else list(argv)
    try:
        status = _commands(app).main(arguments, prog_name=_program(app), standalone_mode=False, obj=app)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return say(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except PipelineError as error:
        # of what a decorator refuses while `-A` imports the app, the line of the user's file
        place = users_line(error.__traceback__)
        return say(f"{place}: {error}" if place else str(error), error.exit_status)
    except OutputError as error:
        return say(str(error), error.exit_status)
    except OSError as error:
        # such as that of `--help`, which click prints
        if error.errno not in OF_A_FULL_DISK:
            raise
        place = "" if error.filename is None else f": {error.filename}"
        return say(f"{error.strerror}{place}.", JournalUnavailable.exit_status)
    return status if isinstance(status, int) else 0


def _program(app: Pipeline | None) -> str | None:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None:
        return None if app is None else f"python {Path(sys.argv[0]).name}"
    return f"python -m {spec.name.removesuffix('.__main__')}"


def _commands(app: Pipeline | None) -> click.Group:
    group = AllCommands("zmqpipeline", help="Run a pipeline, or one of its roles.", with_new=app is None)
    group.epilog = "Example: zmqpipeline new squares; cd squares; zmqpipeline -A squares run"
    if app is not None:
        group.epilog = "Example: python -m app run; python -m app COMMAND --help tells more of each command."
        group.help = f"Run the pipeline {app.name!r}, or one of its roles."
        return group
    where = "The app: package.module[:name] or file.py[:name]. All commands but `new` need it."
    group.params.append(click.Option(["-A", "--app"], metavar="TARGET", callback=_load, expose_value=False, help=where))
    return group


def _load(ctx: click.Context, parameter: click.Parameter, target: str | None) -> None:
    if target is not None and not ctx.resilient_parsing:
        ctx.obj = import_app.find_app(target)
        ctx.obj.command = f"{ctx.command_path} {shlex.join(['-A', target])}"
