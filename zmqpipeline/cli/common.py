"""What the commands share: their flags, the options that follow from these, and how a role is run."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import click

from zmqpipeline.addresses import refuse_inproc
from zmqpipeline.app import Pipeline
from zmqpipeline.cli.output import tell
from zmqpipeline.definitions import origin
from zmqpipeline.definitions.instances import trouble_of_class
from zmqpipeline.errors import ConfigurationError, RunFailed, WorkerInitError, did_you_mean
from zmqpipeline.options import ENCRYPTION, LOG_LEVELS, Options, variable
from zmqpipeline.roles.base import Role
from zmqpipeline.roles.runner import HostProcess, RoleRunner
from zmqpipeline.runtime import child as processes
from zmqpipeline.runtime import child_report as told
from zmqpipeline.runtime.error_text import printable, trouble_of
from zmqpipeline.runtime.log import log_to_stderr
from zmqpipeline.runtime.process_start import age_of_command, mark_command
from zmqpipeline.runtime.tuning import keep_freed_memory, keep_imported, raise_file_limit

Function = TypeVar("Function", bound=Callable[..., Any])


log = logging.getLogger("zmqpipeline.run")


ENDPOINT_VARIABLE = "ZMQPIPELINE_ENDPOINT"
"""Makes the addresses of `run` those of other roles, as the flag does; the app's own argument does not."""


class _Choice(click.Choice[str]):
    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        """As click says it, with the closest one named."""
        return super().get_invalid_choice_message(value, ctx) + did_you_mean(str(value), self.choices)


_OPTIONS = (
    click.option("--endpoint", metavar="ADDRESS", help="Base address: ipc://FOLDER or tcp://HOST:PORT."),
    click.option(
        "--keys",
        metavar="DIR",
        help="Folder of CURVE keys: encrypt, and accept only known keys. `keygen DIR` creates it.",
    ),
    click.option(
        "--encryption",
        type=click.Choice(ENCRYPTION, case_sensitive=False),
        help="auto: if there are keys; required: refuse to start without keys; off: never.",
    ),
    click.option("--insecure", is_flag=True, default=None, help="Allow unencrypted connections from other machines."),
    click.option(
        "--drain-timeout",
        type=click.FloatRange(0),
        metavar="S",
        help="Seconds that a stopped role waits for running items.",
    ),
    click.option("--log-level", type=_Choice(LOG_LEVELS, case_sensitive=False), help="Minimum level of log messages."),
    click.option("--log-json", is_flag=True, default=None, help="Log one JSON object a line."),
)


def shared_flags(function: Function) -> Function:
    """Give a command the flags of all roles; `settle` reads them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def settle(app: Pipeline, flags: Mapping[str, Any]) -> Options:
    """Flag beats variable beats argument beats default; logging is set up by the result."""
    app.check()
    options = Options.from_environ(app.options, os.environ).merge(**flags)
    log_to_stderr(options.log_level, as_json=options.log_json)
    return options


def patient(options: Options, flags: Mapping[str, Any]) -> Options:
    """Without `exit_when_idle`, unless by the flag, for a child of a `run`: that one starts again who is not there."""
    return replace(options, exit_when_idle=flags["exit_when_idle"]) if processes.is_child() else options


def tune(*, is_bound: bool) -> None:
    """Set what a process of a role wants of the interpreter and the system; `is_bound`: workers connect to it."""
    mark_command()
    keep_freed_memory()
    keep_imported()
    if is_bound:
        raise_file_limit()


@contextmanager
def making(what: str, *, worker: bool = False) -> Iterator[None]:
    """What a class of the class API raises as it is made, in this block, ends the command with 1.

    It is told with the traceback of the user's own code; of a `worker`, by whoever has started it. What is raised
    elsewhere goes on.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        trouble = trouble_of_class(error)
        if trouble is None:
            raise
        # of many that fail alike, whoever has started them says it once
        if not (worker and processes.tell_parent(told.failed_start(trouble))):
            # a role that begins does not pay for this import
            from zmqpipeline.protocol.delivery.failure_kinds import said, traceback_of

            log.error("The %s could not begin: %s.%s", what, said(trouble).rstrip("."), traceback_of(trouble))
        raise click.exceptions.Exit(1) from error


def serve(role: Role, *, worker: bool = False) -> int:
    """Run one role in this process; its exit status."""
    runner = RoleRunner.of(role)
    for place in runner.places():
        refuse_inproc(place)
    tune(is_bound=not worker)
    try:
        runner.run(HostProcess(processes.is_child(), processes.tell_parent, age_of_command()))
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


def journal_flags(function: Function) -> Function:
    """Give a command the flags of a journal; `check_journal` says whether they fit together."""
    for option in (
        click.option(
            "--fresh",
            is_flag=True,
            help="Discard the journal's earlier run and start again. Your own tables are kept.",
        ),
        click.option(
            "--run-id",
            metavar="ID",
            help="Resume the journal's run if it has this id; otherwise start a new run.",
        ),
        click.option(
            "--journal",
            metavar="FILE",
            help="SQLite file that records what is collected. With the same file, an unfinished run is resumed.",
        ),
    ):
        function = option(function)
    return function


def pairs(ctx: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """``K=V`` given any number of times."""
    for value in values:
        if not value.partition("=")[0] or "=" not in value:
            raise click.BadParameter(f"{value!r} is not of the form K=V.", ctx, parameter)
    return {key: value for key, _, value in (one.partition("=") for one in values)}


exit_when_idle_flag = click.option(
    "--exit-when-idle",
    type=click.FloatRange(0),
    metavar="S",
    help="Exit if a role that this one needs is missing for S seconds. Default: wait for ever.",
)


interval_flag = click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two updates.",
)


metadata_flag = click.option(
    "--meta", multiple=True, callback=pairs, metavar="K=V", help="Add an entry to the run's metadata. Can be repeated."
)


def check_task(name: str, known: Sequence[str]) -> None:
    """Raise ConfigurationError for a task that the app has not."""
    if name not in known:
        # whoever started this process has it
        late = f" It is added too late: {origin.NOT_IMPORTED}." if processes.is_child() else ""
        raise ConfigurationError(unknown("task", name, known) + late)


def check_journal(options: Options, fresh: bool) -> None:
    """Raise ConfigurationError for flags of a journal that do not fit together."""
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


def flag_arguments(flags: Mapping[str, Any]) -> list[str]:
    """The flags that were given, to be handed on to child processes."""
    arguments: list[str] = []
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            arguments.append(flag)
        elif value is not None and value is not False:
            arguments += [flag, str(value)]
    return arguments


def say(text: str, status: int) -> int:
    """Tell the user in one line what went wrong; the exit status that goes with it."""
    tell(f"Error: {printable(' '.join(text.split()))}", err=True)
    return status


def unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """What is said of a name that there is not: the closest one, and all known ones."""
    listed = ", ".join(repr(one) for one in known) or "none"
    return f"There is no {kind} {name!r}.{did_you_mean(name, known)} Known: {listed}."
