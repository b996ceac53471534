"""The command `run`, and `Pipeline.run`: a whole pipeline on this machine, and what is said of it at the end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import (
    ENDPOINT_VARIABLE,
    check_journal,
    flag_arguments,
    journal_flags,
    making,
    metadata_flag,
    pairs,
    say,
    settle,
    shared_flags,
    tune,
)
from zmqpipeline.cli.failed import command_of
from zmqpipeline.cli.output import OutputError, flush_output, tell
from zmqpipeline.cli.page.place import HOST, TOKEN_HELP, TOKEN_VARIABLE
from zmqpipeline.cli.progress import progress_shown
from zmqpipeline.errors import ConfigurationError, JournalUnavailable
from zmqpipeline.options import Options
from zmqpipeline.processes import import_app
from zmqpipeline.processes import launch as launching
from zmqpipeline.processes.supervisor import Outcome
from zmqpipeline.processes.worker_numbers import Workers, read_workers
from zmqpipeline.roles.results import Summary
from zmqpipeline.runtime.error_text import printable
from zmqpipeline.runtime.journal import dead_items
from zmqpipeline.runtime.standard_files import open_closed_files

if TYPE_CHECKING:
    from zmqpipeline.cli.page.beside import PageBeside
    from zmqpipeline.cli.report import Reporter

log = logging.getLogger("zmqpipeline.run")


MAX_SHOWN_REASONS = 3
"""So many kinds of failure are shown below the counts of a run."""


NOT_ALL = (
    "Not all was collected: the commands `dead list` and `dead retry` show the failed items, and have them tried again."
)
"""Why a finished run that is started again has the status 1."""


@click.command("run", epilog="Example: python -m app run --workers 4 --journal run.db")
@click.option(
    "--workers",
    multiple=True,
    metavar="auto|N|MIN:MAX|TASK=...,...",
    help="Worker processes for each task, or TASK=N for one. MIN:MAX, such as 1:8 or 1:auto: as many as the work "
    "needs. Default: auto, one for each CPU core.",
)
@click.option(
    "--launch",
    metavar="PREFIX",
    help="Start each worker behind this command line, such as 'nice -n 10' or 'ssh node{index} cd /srv/app && exec'. "
    "Fields: {index} of the worker among those of its task, from 0; {task}; {run}, a new word for each run. "
    "Workers on other machines need --endpoint tcp://HOST:PORT.",
)
@click.option(
    "--python",
    metavar="PATH",
    help="The interpreter behind --launch or of an --engine, where the workers run. Default: that of this, or of Dask.",
)
@click.option(
    "--engine",
    default="local",
    metavar="local|dask|NAME",
    help="What places the workers: this machine, a cluster of Dask, or an engine of an installed package.",
)
@click.option("--scheduler", metavar="ADDRESS", help="With --engine dask: its scheduler. Default: a cluster here.")
@click.option(
    "--engine-option",
    "engine_options",
    multiple=True,
    metavar="K=V",
    callback=pairs,
    help="An option of the engine, such as resources=GPU:1 of Dask. May be repeated.",
)
@metadata_flag
@journal_flags
@click.option(
    "--max-failures",
    type=click.IntRange(0),
    metavar="N",
    help="Stop the run, with status 1, when more than N items have failed.",
)
@click.option(
    "--dashboard",
    is_flag=False,
    flag_value="",
    metavar="[HOST:PORT]",
    help=f"Show the run in a browser. Default address: {HOST}. Needs the extra `dashboard`.",
)
@click.option("--dashboard-token", envvar=TOKEN_VARIABLE, metavar="TOKEN", help=TOKEN_HELP)
@click.option(
    "--dashboard-control",
    is_flag=True,
    help="Allow users who have the page's token to drain or cancel the run, or to change its number of workers.",
)
@click.option("--progress/--no-progress", default=None, help="Show a progress line. Default: if stderr is a terminal.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print the summary as one JSON object on stdout, and nothing else."
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Write a page about the run at its end: counts, failures, throughput, a timeline of workers, slowest items.",
)
@shared_flags
@click.pass_obj
@click.pass_context
def run(
    ctx: click.Context,
    app: Pipeline,
    /,
    workers: Sequence[str],
    meta: dict[str, str],
    progress: bool | None,
    as_json: bool,
    fresh: bool,
    launch: str | None,
    python: str | None,
    dashboard: str | None,
    dashboard_token: str | None,
    dashboard_control: bool,
    report: Path | None,
    engine: str,
    scheduler: str | None,
    engine_options: dict[str, str],
    **flags: Any,
) -> int:
    """Run everything on this machine: collector, distributor and workers."""
    options = settle(app, flags)
    check_journal(options, fresh)
    # what a launched worker is told by variables is on other machines
    os.environ.pop(TOKEN_VARIABLE, None)
    if dashboard is None:
        _refuse_page_flags(ctx, dashboard_control)
    reporter = None if report is None else _reporter(report)
    page: PageBeside | None = None
    if dashboard is not None:
        # a run without it does not pay for what it imports
        from zmqpipeline.cli.page.beside import page_beside

        page = page_beside(
            *(ctx, app, options, dashboard, dashboard_token),
            control=dashboard_control,
            summary_of=lambda outcome: _object(app.name, outcome),
        )
    tune(is_bound=True)
    del flags["journal"], flags["run_id"], flags["max_failures"]  # not for a child
    closing: Any = contextlib.nullcontext() if page is None else contextlib.closing(page)
    with progress_shown(progress) as observe, _only_json(as_json) as stdout, closing, making("run"):
        outcome = launching.start(
            app,
            options=options,
            endpoint=flags.pop("endpoint") or os.environ.get(ENDPOINT_VARIABLE),
            workers=read_workers(app, workers),
            metadata=meta,
            flags=flag_arguments(flags),
            observe=observe,
            stdout=stdout,
            fresh=fresh,
            launch=launch,
            python=python,
            beside=page,
            record=None if reporter is None else reporter.record,
            engine=launching.EngineChoice(engine, scheduler, engine_options),
        )
    if outcome.was_finished and not as_json:
        _say_finished(ctx, app, outcome.summary, str(options.journal))
        if report is not None:
            tell(f"  no report was written: nothing has run. {printable(str(report))} is as it was", err=True)
        return outcome.status
    if outcome.error is not None:
        say(str(outcome.error), outcome.status)
    status = outcome.status
    if as_json or status not in (ConfigurationError.exit_status, JournalUnavailable.exit_status):
        status = _report(app.name, outcome, as_json)
    if reporter is not None and not outcome.was_finished:
        given = {"workers": _numbers(outcome), "launch": launch or "", "metadata": ", ".join(meta)}
        headline, *_ = _summary_lines(app.name, outcome)
        if reporter.write(app, outcome, headline, options, given) and not as_json:
            tell(f"  report: {printable(str(report))}", err=True)
    if outcome.abandoned:
        # a collector's function still runs in its thread, and would hold up a normal exit
        _leave(status)
    return status


def _refuse_page_flags(ctx: click.Context, control: bool) -> None:
    """Of a run without a page. The variable of the token may be there for another one."""
    is_given = ctx.get_parameter_source("dashboard_token") is ParameterSource.COMMANDLINE
    if control or is_given:
        flag = "--dashboard-control" if control else "--dashboard-token"
        raise ConfigurationError(f"{flag} is about the page of the run. Add --dashboard.")


def _reporter(path: Path) -> Reporter:
    # who wants no report does not pay for its modules
    from zmqpipeline.cli.report import Reporter

    return Reporter(path)


def run_app(
    app: Pipeline,
    *,
    workers: Workers | None = None,
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
    open_closed_files()
    app.check()
    options = Options.from_environ(app.options, os.environ).merge(max_failures=max_failures)
    if journal is not None:
        options = options.merge(journal=os.fspath(journal))
    check_journal(options, fresh=False)
    with progress_shown(progress) as observe:
        outcome = launching.start(
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
    return replace(launching.result(outcome), results=results)


def _report(name: str, outcome: Outcome, as_json: bool) -> int:
    """Print the summary; the status, which is another one if nobody can read it."""
    if not as_json:
        for line in _summary_lines(name, outcome):
            tell(line, err=True)
        return outcome.status
    try:
        tell(json.dumps(_object(name, outcome)))
    except OutputError as error:
        return say(str(error), error.exit_status)
    return outcome.status


def _object(name: str, outcome: Outcome) -> dict[str, Any]:
    """The summary, for JSON."""
    summary = outcome.summary
    failures = sum(one.failed for one in summary.tasks.values())
    head = {"pipeline": name, "status": outcome.status, "failures": failures, "workers": dict(outcome.workers)}
    return {**head, **{key: value for key, value in asdict(summary).items() if key != "results"}}


def _numbers(outcome: Outcome) -> str:
    """How many worker processes each task was given, for people."""
    return ", ".join(f"{task}: {number}" for task, number in outcome.workers.items())


def _summary_lines(name: str, outcome: Outcome) -> list[str]:
    summary, workers = outcome.summary, sum(outcome.workers.values())
    collected = sum(one.collected for one in summary.tasks.values())
    what = "all collected" if summary.ok or outcome.is_whole else "not all collected"
    if outcome.is_whole and (raised := [repr(one.task) for one in summary.reasons]):
        what += f", but {' and '.join(raised)} raised"
    what += f"; stopped: {summary.stopped}" if summary.stopped else ""
    number = _number(sum(outcome.least.get(task, most) for task, most in outcome.workers.items()), workers)
    by = f" by {number} worker{'' if workers == 1 else 's'}" if workers else ""
    head = f"{name}: {collected} items in {summary.seconds:.1f} s{by}, {what}"
    return [head, *_task_lines(summary, outcome.workers, outcome.least), *_reason_lines(summary)]


def _reason_lines(summary: Summary) -> list[str]:
    """Why items failed: the first few kinds."""
    lines = [f"  {one}" for one in summary.reasons[:MAX_SHOWN_REASONS]]
    more = len(summary.reasons) - MAX_SHOWN_REASONS
    return [*lines, f"  and {more} more kind{'' if more == 1 else 's'} of failure"] if more > 0 else lines


def _number(least: int, most: int) -> str:
    return f"{most}" if least == most else f"{least} to {most}"


def _task_lines(
    summary: Summary,
    workers: Mapping[str, int] = MappingProxyType({}),
    least: Mapping[str, int] = MappingProxyType({}),
) -> list[str]:
    """The counts of each task; with its workers, if there are several tasks."""
    lines = []
    for task, counts in summary.tasks.items():
        numbers = [f"{key} {value}" for key, value in asdict(counts).items() if value or key in ("sent", "collected")]
        if len(workers) > 1 and task in workers:
            numbers.append(f"workers {_number(least.get(task, workers[task]), workers[task])}")
        lines.append(f"  {task}: {', '.join(numbers)}")
    return lines


def _say_finished(ctx: click.Context, app: Pipeline, summary: Summary, journal: str) -> None:
    """What `run` says in the place of running, when its journal holds a finished run."""
    how = "" if summary.ok else ", and not all was collected"
    tell(f"{app.name}: already finished, says the journal {journal}{how}; --fresh starts again", err=True)
    for line in _task_lines(summary):
        tell(line, err=True)
    dead = len(dead_items(journal))
    if dead:
        see = command_of(ctx, app, "dead", "list", "--journal", journal)
        again = command_of(ctx, app, "dead", "retry", "--all", "--journal", journal)
        tell(f"  {dead} failed item{'' if dead == 1 else 's'}: {see}", err=True)
        tell(f"  to have {'it' if dead == 1 else 'them'} tried again: {again}", err=True)


@contextlib.contextmanager
def _only_json(wanted: bool) -> Any:
    """With ``--json``, what user functions print, here and in children, goes to stderr: stdout is one JSON object."""
    if not wanted:
        yield None
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield 2


def _leave(status: int) -> NoReturn:
    try:
        flush_output()
    except OutputError as error:
        status = say(str(error), error.exit_status)
    sys.stderr.flush()
    logging.shutdown()
    os._exit(status)
