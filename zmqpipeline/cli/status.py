"""The command `status`: asks running distributors and brokers how they stand, once or again and again.

What `status` shows of a distributor's answer: lines for people, an object for programs. Pure: it prints nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from zmqpipeline.addresses import EndpointAddress, derive, refuse_inproc
from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import settle, shared_flags
from zmqpipeline.cli.tables import duration, printable, table
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options, variable
from zmqpipeline.processes import launch
from zmqpipeline.protocol.messages import RunningItem, Status, TaskStatus, WorkerStatus
from zmqpipeline.runtime.status_client import PATIENCE, StatusClient

SHOWN = 3
"""So many running items of a worker are in its line."""

LONG_ENOUGH = 0.2
"""Seconds between two answers from which a rate can be told."""

_TASKS = ("task", "state", "waiting", "leased", "collected", "failed", "of", "rate", "left", "workers", "")
_WORKERS = ("worker", "task", "state", "threads", "holds", "results", "done", "runs now")
_NUMBERS = (
    "waiting",
    "leased",
    "collected",
    "failed",
    "of",
    "rate",
    "left",
    "workers",
    "threads",
    "holds",
    "results",
    "done",
)


def as_object(address: str, status: Status, before: Status | None = None) -> dict[str, Any]:
    """Everything that the answer says, for JSON; `before` is an earlier answer, from which the rates are then told."""
    return {
        "pipeline": status.pipeline,
        "address": address,
        "run": status.run,
        "phase": status.phase,
        "seconds": round(status.seconds, 3),
        "why": status.why,
        "queued_bytes": status.queued_bytes,
        "held_bytes": status.held_bytes,
        "tasks": {one.counts.task: _task_object(one, _rate(one, status, before)) for one in status.tasks},
        "workers": [_worker_object(one) for one in status.workers],
    }


def as_lines(address: str, status: Status, before: Status | None = None) -> list[str]:
    """The answer as two tables, one of tasks and one of workers."""
    run = f", run {status.run[:8]}" if status.run else ""
    why = f": {printable(status.why)}" if status.why else ""
    lines = [
        f"{printable(status.pipeline)} at {address}{run}, {status.phase} for {duration(status.seconds)}{why}",
        "",
        *table(_TASKS, [_task_row(one, _rate(one, status, before)) for one in status.tasks], right=_NUMBERS),
    ]
    if status.queued_bytes:
        lines += ["", f"{_size(status.queued_bytes)} of results wait for the collector's function"]
    if status.held_bytes:
        lines += ["", f"{_size(status.held_bytes)} of requests and replies wait at the broker"]
    if status.workers:
        workers = sorted(status.workers, key=lambda one: (one.task, one.address))
        lines += ["", *table(_WORKERS, [_worker_row(one) for one in workers], right=_NUMBERS)]
    more = sum(one.workers for one in status.tasks) - len(status.workers)
    return [*lines, f"and {more} more workers"] if more > 0 else lines


def _done(task: TaskStatus) -> int:
    return task.counts.collected + task.counts.failed


def _rate(task: TaskStatus, now: Status, before: Status | None) -> float:
    """Items done a second: between the two answers if they are of one run, otherwise since the task opened."""
    if before is not None and before.run == now.run and task.counts.state in ("open", "exhausted"):
        passed = now.seconds - before.seconds
        then = next((one for one in before.tasks if one.counts.task == task.counts.task), None)
        if then is not None and passed >= LONG_ENOUGH:
            return max(0.0, (_done(task) - _done(then)) / passed)
    return max(0.0, (_done(task) - task.inherited) / task.seconds) if task.seconds > 0 else 0.0


def _left(task: TaskStatus, rate: float) -> float | None:
    """Seconds until the task is done, if it says how many items there are, and some are being done."""
    if task.total is None or rate <= 0 or task.counts.state not in ("open", "exhausted"):
        return None
    return max(0, task.total - _done(task)) / rate


def _task_object(task: TaskStatus, rate: float) -> dict[str, Any]:
    left = _left(task, rate)
    counts = {key: value for key, value in asdict(task.counts).items() if key != "task"}
    names = ("total", "waiting", "retrying", "leased", "workers", "why")
    return {
        **counts,
        **{name: getattr(task, name) for name in names},
        "rate": round(rate, 3),
        "left_seconds": None if left is None else round(left, 1),
    }


def _task_row(task: TaskStatus, rate: float) -> list[str]:
    counts, left = task.counts, _left(task, rate)
    return [
        printable(counts.task),
        counts.state,
        str(task.waiting + task.retrying),
        str(task.leased),
        str(counts.collected),
        str(counts.failed),
        "" if task.total is None else str(task.total),
        f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s",
        "" if left is None else duration(left),
        str(task.workers),
        printable(task.why),
    ]


def _worker_object(worker: WorkerStatus) -> dict[str, Any]:
    running = [{**asdict(one), "seconds": round(one.seconds, 3)} for one in worker.running]
    return {**asdict(worker), "running": running}


def _worker_row(worker: WorkerStatus) -> list[str]:
    first = [printable(worker.address), printable(worker.task), worker.state]
    numbers = [str(worker.threads), str(worker.leased), _size(worker.kept_bytes), str(worker.executed)]
    return [*first, *numbers, _runs(worker.running)]


def _size(count: int) -> str:
    """Bytes for people: ``0``, ``12 KiB``, ``3.4 MiB``."""
    if count < 1024:
        return str(count)
    return f"{count / 1024:.0f} KiB" if count < 1024 * 1024 else f"{count / (1024 * 1024):.1f} MiB"


def _runs(items: list[RunningItem]) -> str:
    """``17 for 3.2 s, 4 for 0.1 s (attempt 2), and 8 more``: the longest first."""
    longest = sorted(items, key=lambda one: -one.seconds)
    shown = [_run(one) for one in longest[:SHOWN]]
    more = len(items) - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown)


def _run(item: RunningItem) -> str:
    again = f" (attempt {item.attempt})" if item.attempt > 1 else ""
    return f"{item.number} for {duration(item.seconds)}{again}"


@click.command("status", epilog="Example: python -m app status --watch")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on stdout, one line a run.")
@click.option("--watch", is_flag=True, help="Repeat until the run is over or Ctrl-C is pressed.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two updates of --watch.",
)
@shared_flags
@click.pass_obj
def status(app: Pipeline, /, as_json: bool, watch: bool, interval: float, **flags: Any) -> int:
    """Show the state of a running pipeline: tasks, workers, running items, and what is waited for.

    Of an app with services it asks their broker, too. It finds each `run` of this user, and the roles at the usual
    address; --endpoint asks at that address alone.
    """
    options = settle(app, flags)
    bases = _bases(app, options, flags["endpoint"] or os.environ.get(variable("endpoint")))
    roles = ("status", "service-clients") if app.service_names else ("status",)
    places = {derive(base, role): base for base in bases for role in roles}
    with StatusClient(list(places), options) as watcher:
        show = _Show(places, as_json=as_json, clear=watch)
        answers = watcher.ask()
        if not answers:
            raise ConfigurationError(_nobody(list(places), watcher))
        show(answers)
        while watch:
            time.sleep(interval)
            answers = watcher.ask()
            if not answers:
                click.echo("No distributor answers any more: the run is over, or was ended.", err=True)
                return 0
            show(answers)
    return 0


def _bases(app: Pipeline, options: Options, given: str | None) -> list[str]:
    """Where to ask: at the one base address that was given, or wherever a distributor of this app may be."""
    if given:
        refuse_inproc(EndpointAddress(given))
        return [given]
    bases = launch.status_bases(app, options)
    if not bases:
        raise ConfigurationError(
            f"No run of {app.name!r} and no distributor of it is up here. Start one, or say where it is: "
            "--endpoint ADDRESS."
        )
    return bases


def _nobody(places: list[EndpointAddress], watcher: StatusClient) -> str:
    where = ", ".join(places)
    strange = "".join(
        f" What answers at {place} is none of this version: {text}." for place, text in watcher.strange.items()
    )
    return (
        f"No distributor answered at {where} within {PATIENCE:g} s.{strange} "
        "Start one, or say where it is: --endpoint ADDRESS."
    )


class _Show:
    """Prints answers; of each run it remembers the last one, from which the rates of the next are told."""

    def __init__(self, bases: Mapping[EndpointAddress, str], *, as_json: bool, clear: bool) -> None:
        self._bases = bases
        self._as_json = as_json
        self._clear = clear and not as_json
        self._before: dict[EndpointAddress, Status] = {}

    def __call__(self, answers: Mapping[EndpointAddress, Status]) -> None:
        if self._clear:
            click.clear()  # does nothing where there is no terminal
        for index, (place, status) in enumerate(answers.items()):
            before, self._before[place] = self._before.get(place), status
            if self._as_json:
                click.echo(json.dumps(as_object(self._bases[place], status, before)))
                continue
            if index or (self._clear and before is not None):
                click.echo()
            for line in as_lines(self._bases[place], status, before):
                click.echo(line)
