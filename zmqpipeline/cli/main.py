"""The command line: click commands around an app, for ``python -m app ...`` and ``zmqpipeline -A package.module ...``.

Exit status: 0 all collected; 1 an item failed or was aborted; 2 usage or configuration; 3 a role that `run` needs kept
dying; 70 a worker whose threads are all stuck; 75 something that may pass, such as a full disk; 130 and 143 ended by
SIGINT or SIGTERM (a worker that drained on SIGTERM: 0).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar, cast

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli import describe
from zmqpipeline.cli.failed import command_of, dead_command
from zmqpipeline.cli.keygen import keygen
from zmqpipeline.cli.new import new_command
from zmqpipeline.cli.progress import progress_shown
from zmqpipeline.cli.services import service_commands
from zmqpipeline.cli.status import status_command
from zmqpipeline.definitions import origin
from zmqpipeline.errors import (
    ConfigurationError,
    JournalUnavailable,
    PipelineError,
    RunFailed,
    WorkerInitError,
    did_you_mean,
)
from zmqpipeline.options import ENCRYPTION, LOG_LEVELS, Options, variable
from zmqpipeline.processes import import_app, launch
from zmqpipeline.processes.supervisor import Outcome
from zmqpipeline.roles.base import Role
from zmqpipeline.roles.collector import Collector
from zmqpipeline.roles.results import Summary
from zmqpipeline.roles.worker import Worker
from zmqpipeline.runtime import child as processes
from zmqpipeline.runtime import child_report as told
from zmqpipeline.runtime.error_text import trouble_of, users_line
from zmqpipeline.runtime.journal import dead_items
from zmqpipeline.runtime.log import about_process, log_to_stderr
from zmqpipeline.runtime.tuning import keep_freed_memory

Function = TypeVar("Function", bound=Callable[..., Any])

log = logging.getLogger("zmqpipeline.run")

ENDPOINT_VARIABLE = "ZMQPIPELINE_ENDPOINT"
"""Makes the addresses of `run` those of other roles, as the flag does; the app's own argument does not."""


MAX_SHOWN_REASONS = 3
"""So many kinds of failure are shown below the counts of a run."""
NOT_ALL = (
    "Not all was collected: the commands `dead list` and `dead retry` show the failed items, and have them tried again."
)
"""Why a finished run that is started again has the status 1."""


class _Choice(click.Choice[str]):
    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        """As click says it, with the closest one named."""
        return super().get_invalid_choice_message(value, ctx) + did_you_mean(str(value), self.choices)


_OPTIONS = (
    click.option("--endpoint", metavar="ADDRESS", help="Base address: ipc://FOLDER or tcp://HOST:PORT."),
    click.option(
        "--keys", metavar="DIR", help="Encrypt, and let in known keys only; `keygen DIR` makes such a folder."
    ),
    click.option(
        "--encryption",
        type=click.Choice(ENCRYPTION, case_sensitive=False),
        help="When to encrypt: if there are keys (auto), not without keys (required), never (off).",
    ),
    click.option(
        "--insecure", is_flag=True, default=None, help="Bind where other machines can reach it, with no encryption."
    ),
    click.option(
        "--drain-timeout",
        type=click.FloatRange(0),
        metavar="S",
        help="How long a role that should end waits for its work.",
    ),
    click.option("--log-level", type=_Choice(LOG_LEVELS, case_sensitive=False), help="The least that is logged."),
    click.option("--log-json", is_flag=True, default=None, help="Write log lines as JSON objects."),
)


def main(app: Pipeline | None = None, argv: Sequence[str] | None = None) -> NoReturn:
    """Carry out the command that `argv` (default: that of the process) names, and exit with its status.

    Without an app, ``-A`` says which; that is what the ``zmqpipeline`` command does.
    """
    sys.exit(run_command(app, argv))


def run_command(app: Pipeline | None, argv: Sequence[str] | None = None) -> int:
    """As `main`, but returns the exit status. What the user can mend is one line on stderr, without a traceback."""
    status = _carry_out(app, argv)
    # whoever started this process can tell now that the status is ours, and not one of user code
    processes.tell_parent(f"{told.EXIT} {status}")
    return status


def _carry_out(app: Pipeline | None, argv: Sequence[str] | None) -> int:
    if app is not None:
        import_app.refuse_while_importing("app.main()")
        app._command = str(_program(app))
    arguments = None if argv is None else list(argv)
    try:
        status = _commands(app).main(arguments, prog_name=_program(app), standalone_mode=False, obj=app)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        return _say(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except PipelineError as error:
        # of what a decorator refuses while `-A` imports the app, the line of the user's file
        place = users_line(error.__traceback__)
        return _say(f"{place}: {error}" if place else str(error), error.exit_status)
    return status if isinstance(status, int) else 0


def _say(text: str, status: int) -> int:
    click.echo(f"Error: {' '.join(text.split())}", err=True)
    return status


def _program(app: Pipeline | None) -> str | None:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is None:
        return None if app is None else f"python {Path(sys.argv[0]).name}"
    return f"python -m {spec.name.removesuffix('.__main__')}"


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the known names beside a wrong one."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise click.UsageError(_unknown("command", args[0], list(self.commands)))
        found = super().resolve_command(ctx, args)
        if ctx.obj is None and args[0] != new_command.name and "--help" not in args:
            raise click.UsageError(
                "Say which app: -A package.module, -A file.py, or -A package.module:name, before the command."
            )
        return found


def _unknown(kind: str, name: str, known: Sequence[str]) -> str:
    listed = ", ".join(repr(one) for one in known) or "none"
    return f"There is no {kind} {name!r}.{did_you_mean(name, known)} Known: {listed}."


def _commands(app: Pipeline | None) -> click.Group:
    group = _Group("zmqpipeline", help="Run a pipeline, whole or one role at a time.", commands=list(_COMMANDS))
    group.epilog = "Example: zmqpipeline new squares; cd squares; zmqpipeline -A squares run"
    if app is not None:
        group.epilog = "Example: python -m app run; python -m app COMMAND --help tells more of each command."
        group.help = f"The pipeline {app.name!r}: run it whole, or one role at a time."
        return group
    where = "The app: package.module[:name] or file.py[:name]. All commands but `new` need it."
    group.add_command(new_command)
    group.params.append(click.Option(["-A", "--app"], metavar="TARGET", callback=_load, expose_value=False, help=where))
    return group


def _load(ctx: click.Context, parameter: click.Parameter, target: str | None) -> None:
    if target is not None and not ctx.resilient_parsing:
        ctx.obj = import_app.find_app(target)
        ctx.obj._command = f"{ctx.command_path} {shlex.join(['-A', target])}"


# what all commands share ----------------------------------------------------------------------------------------------


def _common(function: Function) -> Function:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def _settle(app: Pipeline, flags: Mapping[str, Any]) -> Options:
    """Flag beats variable beats argument beats default; logging is set up by the result."""
    app.check()
    options = Options.from_environ(app.options, os.environ).merge(**flags)
    log_to_stderr(options.log_level, as_json=options.log_json)
    return options


def _patient(options: Options, flags: Mapping[str, Any]) -> Options:
    """Without `exit_when_idle`, unless by the flag, for a child of a `run`: that one starts again who is not there."""
    return replace(options, exit_when_idle=flags["exit_when_idle"]) if processes.is_child() else options


def _serve(role: Role, *, worker: bool = False) -> int:
    """Run one role in this process; its exit status."""
    _refuse_inproc(role)
    keep_freed_memory()
    role._ignore_sigint = processes.is_child()
    role._tell_parent = processes.tell_parent
    try:
        role.run()
    except (ConfigurationError, KeyboardInterrupt):
        raise
    except WorkerInitError as error:
        trouble = trouble_of(error.__cause__ or error)
        # of many that fail alike, whoever has started them says it once
        if not processes.tell_parent(told.failed_start(trouble)):
            log.error("%s\n%s", error, trouble.traceback.rstrip())
        return role.status or 1
    except RunFailed as error:
        if not processes.is_child():
            log.warning("%s", error)
        return 0 if worker else role.status or error.exit_status
    except Exception:
        if role.status is None:
            log.exception("The role broke down:")
        # else the role came to its end: what user code raised was logged then, with its traceback
        return role.status or 1
    if role.signum is not None and not (worker and role.signum == signal.SIGTERM):
        return 128 + role.signum
    return role.status or 0


def _refuse_inproc(role: Role) -> None:
    """A role that is a process of its own would wait at such an address for ever."""
    for place in role._places():
        launch.refuse_inproc(place)


def _pairs(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """``K=V`` given any number of times."""
    for value in values:
        if not value.partition("=")[0] or "=" not in value:
            raise click.BadParameter(f"{value!r} is not of the form K=V.", ctx, parameter)
    return {key: value for key, _, value in (one.partition("=") for one in values)}


def _journalled(function: Function) -> Function:
    for option in (
        click.option(
            "--fresh",
            is_flag=True,
            help="Forget what the journal holds of an earlier run, and start again; your own tables stay.",
        ),
        click.option(
            "--run-id",
            metavar="ID",
            help="Go on if the journal holds the run of this id; in the place of any other, begin a new one.",
        ),
        click.option(
            "--journal",
            metavar="FILE",
            help="Write down what is collected; started again with the same file, an unfinished run goes on.",
        ),
    ):
        function = option(function)
    return function


def _check_task(name: str, known: Sequence[str]) -> None:
    if name not in known:
        # whoever started this process has it
        late = f" It is added too late: {origin.NOT_IMPORTED}." if processes.is_child() else ""
        raise ConfigurationError(_unknown("task", name, known) + late)


def _check_journal(options: Options, fresh: bool) -> None:
    if fresh and options.journal is None:
        raise ConfigurationError("--fresh starts the run of a journal again. Say which: --journal FILE.")
    if options.run_id is not None and options.journal is None:
        raise ConfigurationError(
            f"--run-id (or {variable('run_id')}) names the run of a journal. Say which: --journal FILE."
        )
    if fresh and options.run_id is not None:
        raise ConfigurationError(
            f"--fresh begins again at each start, --run-id (or {variable('run_id')}) only if the journal holds another "
            "run. Leave out one of them."
        )


_exit_when_idle = click.option(
    "--exit-when-idle",
    type=click.FloatRange(0),
    metavar="S",
    help="End when a role that this one waits for was not there for so long; by default it waits for ever.",
)

_meta = click.option("--meta", multiple=True, callback=_pairs, metavar="K=V", help="Add to the metadata; repeatable.")


# the commands ---------------------------------------------------------------------------------------------------------


@click.command("run", epilog="Example: python -m app run --workers 4 --journal run.db")
@click.option(
    "--workers",
    multiple=True,
    metavar="auto|N|TASK=N,...",
    help="Worker processes for each task, or for some; auto, the default, is as many as there are cores.",
)
@_meta
@_journalled
@click.option("--max-failures", type=click.IntRange(0), metavar="N", help="Drain when more than N items failed.")
@click.option("--progress/--no-progress", default=None, help="A progress line; by default if stderr is a terminal.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout, and nothing else."
)
@_common
@click.pass_obj
@click.pass_context
def _run(
    ctx: click.Context,
    app: Pipeline,
    /,
    workers: Sequence[str],
    meta: dict[str, str],
    progress: bool | None,
    as_json: bool,
    fresh: bool,
    **flags: Any,
) -> int:
    """Run everything on this machine: collector, distributor and workers."""
    options = _settle(app, flags)
    _check_journal(options, fresh)
    keep_freed_memory()
    del flags["journal"], flags["run_id"], flags["max_failures"]  # not for a child
    with progress_shown(progress) as observe, _only_json(as_json) as stdout:
        outcome = launch.start(
            app,
            options=options,
            endpoint=flags.pop("endpoint") or os.environ.get(ENDPOINT_VARIABLE),
            workers=launch.read_workers(app, workers),
            metadata=meta,
            flags=_flag_arguments(flags),
            observe=observe,
            stdout=stdout,
            fresh=fresh,
        )
    if outcome.was_finished and not as_json:
        _say_finished(ctx, app, outcome.summary, str(options.journal))
        return outcome.status
    if outcome.error is not None:
        _say(str(outcome.error), outcome.status)
    if as_json or outcome.status not in (ConfigurationError.exit_status, JournalUnavailable.exit_status):
        _report(app.name, outcome, as_json)
    if outcome.abandoned:
        # a collector's function still runs in its thread, and would hold up a normal exit
        _leave(outcome.status)
    return outcome.status


@click.command("distributor", epilog="Example: python -m app distributor --endpoint tcp://0.0.0.0:5550")
@_meta
@click.option("--meta-file", type=click.Path(path_type=Path), hidden=True)
@click.option("--task", "tasks", multiple=True, hidden=True)
@_exit_when_idle
@_common
@click.pass_obj
def _distributor(
    app: Pipeline, /, meta: dict[str, str], meta_file: Path | None, tasks: Sequence[str], **flags: Any
) -> int:
    """Hand out the items of all tasks."""
    options = _settle(app, flags)
    for name in tasks:
        _check_task(name, app.task_types)
    metadata = launch.read_metadata(meta_file) if meta_file else meta
    return _serve(app.compile("distributor", options=_patient(options, flags), metadata=metadata))


@click.command("worker", epilog="Example: python -m app worker C --processes 4 --endpoint tcp://SERVER:5550")
@click.argument("task_type", required=False)
@click.option(
    "--threads", type=click.IntRange(1), metavar="N", help="Threads of the process; by default as the app says."
)
@click.option(
    "--processes", type=click.IntRange(1), metavar="N", help="So many worker processes; one that dies is replaced."
)
@click.option("--idle-timeout", type=click.FloatRange(0), metavar="S", help="End when there was no item for so long.")
@click.option("--stay", is_flag=True, help="Serve run after run: wait for the next one when one has ended.")
@_exit_when_idle
@_common
@click.pass_obj
def _worker(
    app: Pipeline, /, task_type: str | None, threads: int | None, processes: int | None, stay: bool, **flags: Any
) -> int:
    """Execute the items of one task; of each task, in a process each, if none is named."""
    options = _settle(app, flags)
    known = app.worker_types
    if task_type is not None:
        _check_task(task_type, known)
    types = [task_type] if task_type is not None else known
    if len(types) == 1 and processes is None:
        about_process(task=types[0], worker=f"{socket.gethostname()}/{os.getpid()}")
        worker = cast("Worker", app.compile("worker", types[0], options=_patient(options, flags), threads=threads))
        worker.stay = worker.stay or stay
        return _serve(worker, worker=True)
    given = {**flags, "threads": threads, "stay": stay, "exit_when_idle": options.exit_when_idle}
    return launch.supervise_workers(app, types, processes or 1, _flag_arguments(given), options.drain_timeout)


@click.command("collector", epilog="Example: python -m app collector --journal run.db --endpoint tcp://0.0.0.0:5550")
@_journalled
@_exit_when_idle
@_common
@click.pass_obj
def _collector(app: Pipeline, /, fresh: bool, **flags: Any) -> int:
    """Gather the results of all tasks."""
    options = _settle(app, flags)
    _check_journal(options, fresh)
    collector = cast("Collector", app.compile("collector", options=options))
    collector._fresh = fresh
    return _serve(collector)


@click.command("check", epilog="Example: python -m app check --endpoint tcp://SERVER:5550")
@_common
@click.pass_obj
def _check(app: Pipeline, /, **flags: Any) -> int:
    """Compile the app; print its roles with their addresses, and the order of the tasks."""
    for line in describe.describe(app, _settle(app, flags)):
        click.echo(line)
    return 0


@click.command("graph", epilog="Example: python -m app graph --dot | dot -Tsvg -o app.svg")
@click.option("--dot", "as_dot", is_flag=True, help="In the language of Graphviz, not of Mermaid.")
@_common
@click.pass_obj
def _graph(app: Pipeline, /, as_dot: bool, **flags: Any) -> int:
    """Draw the tasks and their order as text: a Mermaid flowchart, as GitHub and many editors show it."""
    _settle(app, flags)
    for line in describe.dot(app) if as_dot else describe.mermaid(app):
        click.echo(line)
    return 0


# how they are told, and how they tell ---------------------------------------------------------------------------------


def _flag_arguments(flags: Mapping[str, Any]) -> list[str]:
    """The flags that were given, to be handed on to child processes."""
    arguments: list[str] = []
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(flag)
        elif value is not None and value is not False:
            arguments += [flag, str(value)]
    return arguments


_COMMANDS = (
    _run,
    _distributor,
    _worker,
    _collector,
    *service_commands(_common, _settle, _serve, _flag_arguments),
    dead_command(_Group),
    keygen,
    status_command(_common, _settle),
    _check,
    _graph,
)


def _report(name: str, outcome: Outcome, as_json: bool) -> None:
    summary = outcome.summary
    if as_json:
        failures = sum(one.failed for one in summary.tasks.values())
        head = {"pipeline": name, "status": outcome.status, "failures": failures, "workers": dict(outcome.workers)}
        told = {key: value for key, value in asdict(summary).items() if key != "results"}
        click.echo(json.dumps({**head, **told}))
        return
    for line in _summary_lines(name, outcome):
        click.echo(line, err=True)


def _summary_lines(name: str, outcome: Outcome) -> list[str]:
    summary, workers = outcome.summary, sum(outcome.workers.values())
    collected = sum(one.collected for one in summary.tasks.values())
    what = "all collected" if summary.ok or outcome.is_whole else "not all collected"
    if outcome.is_whole and (raised := [repr(one.task) for one in summary.reasons]):
        what += f", but {' and '.join(raised)} raised"
    what += f"; stopped: {summary.stopped}" if summary.stopped else ""
    by = f" by {workers} worker{'' if workers == 1 else 's'}" if workers else ""
    head = f"{name}: {collected} items in {summary.seconds:.1f} s{by}, {what}"
    return [head, *_task_lines(summary, outcome.workers), *_reason_lines(summary)]


def _reason_lines(summary: Summary) -> list[str]:
    """Why items failed: the first few kinds."""
    lines = [f"  {one}" for one in summary.reasons[:MAX_SHOWN_REASONS]]
    more = len(summary.reasons) - MAX_SHOWN_REASONS
    return [*lines, f"  and {more} more kind{'' if more == 1 else 's'} of failure"] if more > 0 else lines


def _task_lines(summary: Summary, workers: Mapping[str, int] = MappingProxyType({})) -> list[str]:
    """The counts of each task; with its workers, if there are several tasks."""
    lines = []
    for task, counts in summary.tasks.items():
        numbers = [f"{key} {value}" for key, value in asdict(counts).items() if value or key in ("sent", "collected")]
        if len(workers) > 1 and task in workers:
            numbers.append(f"workers {workers[task]}")
        lines.append(f"  {task}: {', '.join(numbers)}")
    return lines


def _say_finished(ctx: click.Context, app: Pipeline, summary: Summary, journal: str) -> None:
    """What `run` says in the place of running, when its journal holds a finished run."""
    how = "" if summary.ok else ", and not all was collected"
    click.echo(f"{app.name}: already finished, says the journal {journal}{how}; --fresh starts again", err=True)
    for line in _task_lines(summary):
        click.echo(line, err=True)
    dead = len(dead_items(journal))
    if dead:
        see = command_of(ctx, app, "dead", "list", "--journal", journal)
        again = command_of(ctx, app, "dead", "retry", "--all", "--journal", journal)
        click.echo(f"  {dead} failed item{'' if dead == 1 else 's'}: {see}", err=True)
        click.echo(f"  to have {'it' if dead == 1 else 'them'} tried again: {again}", err=True)


@contextlib.contextmanager
def _only_json(wanted: bool) -> Any:
    """With ``--json``, what user functions print, here and in children, goes to stderr: stdout is one JSON object."""
    if not wanted:
        yield None
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield 2


def _leave(status: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    logging.shutdown()
    os._exit(status)


def run_app(
    app: Pipeline,
    *,
    workers: launch.Workers | None = None,
    metadata: Mapping[str, Any] | None = None,
    journal: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    timeout: float | None = None,
    max_failures: int | None = None,
    collect_results: bool = False,
) -> Summary:
    """What `Pipeline.run` does; see there. A progress line is drawn on a terminal unless `progress` is False."""
    results: list[tuple[str, dict[str, Any]]] = []
    import_app.refuse_while_importing("app.run()")
    app.check()
    options = Options.from_environ(app.options, os.environ).merge(max_failures=max_failures)
    if journal is not None:
        options = options.merge(journal=os.fspath(journal))
    _check_journal(options, fresh=False)
    with progress_shown(progress) as observe:
        outcome = launch.start(
            app,
            options=options,
            endpoint=os.environ.get(ENDPOINT_VARIABLE),
            workers=workers,
            metadata=metadata,
            timeout=timeout,
            observe=observe,
            results=results if collect_results else None,
        )
    if outcome.was_finished:
        log.warning(
            "The run of pipeline %r is already finished, says the journal %s: nothing was started.%s To start it "
            "again, remove the file, or run the app from the command line with --fresh.",
            *(app.name, options.journal, "" if outcome.summary.ok else f" {NOT_ALL}"),
        )
    return replace(launch.result(outcome), results=results)
