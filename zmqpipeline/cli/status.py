"""The command `status`: asks running distributors and brokers how they stand, once or again and again.

What `status` and `top` show of a distributor's answer: lines for people, an object for programs.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import click

from zmqpipeline.addresses import EndpointAddress, derive, refuse_inproc
from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import interval_flag, settle, shared_flags
from zmqpipeline.cli.output import tell
from zmqpipeline.cli.screen import Line, Screen, bar
from zmqpipeline.cli.tables import duration, table
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options, variable
from zmqpipeline.processes import launch
from zmqpipeline.protocol.messages import RunningItem, Status, TaskStatus, WorkerStatus
from zmqpipeline.roles.results import Reason
from zmqpipeline.runtime.error_text import printable
from zmqpipeline.runtime.status_client import PATIENCE, StatusClient

SHOWN = 3
"""So many running items of a worker are in its line, and so many kinds of failure below the tasks."""

MIN_WORKERS = 3
"""So many workers `top` shows however low the terminal is."""

LONG_ENOUGH = 0.2
"""Seconds between two answers from which a rate can be told."""

Answers: TypeAlias = "Sequence[tuple[EndpointAddress, str, Status]]"
"""Where an answer came from, the base address of the run, and the answer."""

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
        "tasks": {one.counts.task: _task_object(one, rate_of(one, status, before)) for one in status.tasks},
        "workers": [_worker_object(one) for one in status.workers],
        "failures": [asdict(one) for one in status.failures],
        "lost_workers": status.lost_workers,
        "lost": [{**asdict(one), "seconds": round(one.seconds, 3)} for one in status.lost],
        "log": [{**asdict(one), "seconds": round(one.seconds, 3)} for one in status.log],
    }


def as_lines(address: str, status: Status, before: Status | None = None, *, bars: bool = False) -> list[str]:
    """The answer as two tables, one of tasks and one of workers; with `bars`, of how much of each task is done."""
    return [*_head(address, status), "", *_task_lines(status, before, bars), *_worker_lines(status)]


def as_top(
    address: str, status: Status, before: Status | None = None, *, bars: bool = False, rows: int | None = None
) -> list[str]:
    """The same with the workers first, those on top whose items have run longest, and what each has done a second.

    Of the workers as many are left out as do not fit into so many `rows`.
    """
    head, tasks = _head(address, status), ["", *_task_lines(status, before, bars)]
    workers = _worker_table(status, before)
    # the line of those that are left out is one, too
    room = len(workers) if rows is None else max(MIN_WORKERS + 1, rows - len(head) - len(tasks) - 2)
    shown = workers if len(workers) <= room and not _unnamed(status) else workers[:room]
    more = len(workers) - len(shown) + _unnamed(status)
    lines = [*head, "", *shown, f"and {more} more workers"] if more else [*head, "", *shown]
    return [*lines, *tasks] if workers else [*head, *tasks]


def _head(address: str, status: Status) -> list[str]:
    run = f", run {status.run[:8]}" if status.run else ""
    why = f": {printable(status.why)}" if status.why else ""
    return [f"{printable(status.pipeline)} at {address}{run}, {status.phase} for {duration(status.seconds)}{why}"]


def _task_lines(status: Status, before: Status | None, bars: bool) -> list[str]:
    """The table of the tasks, and what waits beside them."""
    rows = [_task_row(one, rate_of(one, status, before), bars) for one in status.tasks]
    names = [*_TASKS[:7], "progress", *_TASKS[7:]] if bars else _TASKS
    head, *lines = table(names, rows, right=_NUMBERS)
    bad = [one.counts.failed > 0 or one.counts.state in ("failed", "aborted") for one in status.tasks]
    lines = [
        Line(head, "head"),
        *(Line(line, "bad") if is_bad else line for line, is_bad in zip(lines, bad, strict=True)),
    ]
    if status.queued_bytes:
        lines += ["", f"{size_text(status.queued_bytes)} of results wait for the collector's function"]
    if status.held_bytes:
        lines += ["", f"{size_text(status.held_bytes)} of requests and replies wait at the broker"]
    return [*lines, *_failure_lines(status)]


def _failure_lines(status: Status) -> list[str]:
    """Why items failed: the most frequent kinds, as the summary has them."""
    lines = [
        printable(str(Reason(one.task, one.stage, one.error, one.message, one.place, one.items, one.item)))
        for one in status.failures[:SHOWN]
    ]
    more = len(status.failures) - len(lines)
    lines += [f"and {more} more kind{'' if more == 1 else 's'} of failure"] if more else []
    return ["", *(Line(line, "bad") for line in lines)] if lines else []


def _worker_lines(status: Status) -> list[str]:
    workers = sorted(status.workers, key=lambda one: (one.task, one.address))
    lines: list[str] = []
    if workers:
        head, *rest = table(_WORKERS, [_worker_row(one) for one in workers], right=_NUMBERS)
        lines = ["", Line(head, "head"), *rest]
    more = _unnamed(status)
    return [*lines, f"and {more} more workers"] if more > 0 else lines


def _worker_table(status: Status, before: Status | None) -> list[str]:
    """That of `top`, with its head; empty without workers."""
    if not status.workers:
        return []
    # by whole seconds, so that those with short items stay where they are
    workers = sorted(status.workers, key=lambda one: (-int(longest(one)), one.task, one.address))
    then = {one.address: one.executed for one in before.workers} if before and before.run == status.run else {}
    passed = status.seconds - before.seconds if before is not None else 0.0
    rows = []
    for one in workers:
        is_known = passed >= LONG_ENOUGH and one.address in then
        rate = rate_text(max(0.0, (one.executed - then[one.address]) / passed)) if is_known else ""
        *cells, runs = _worker_row(one)
        rows.append([*cells, rate, runs])
    head, *lines = table((*_WORKERS[:-1], "rate", _WORKERS[-1]), rows, right=_NUMBERS)
    return [Line(head, "head"), *lines]


def longest(worker: WorkerStatus) -> float:
    """How many seconds its item has run that has run longest; 0 if none does."""
    return max((one.seconds for one in worker.running), default=0.0)


def _unnamed(status: Status) -> int:
    """How many workers the answer does not name."""
    return max(0, sum(one.workers for one in status.tasks) - len(status.workers))


def _done(task: TaskStatus) -> int:
    return task.counts.collected + task.counts.failed


def rate_of(task: TaskStatus, now: Status, before: Status | None) -> float:
    """Items done a second: between the two answers if they are of one run, otherwise since the task opened."""
    if before is not None and before.run == now.run and task.counts.state in ("open", "exhausted"):
        passed = now.seconds - before.seconds
        then = next((one for one in before.tasks if one.counts.task == task.counts.task), None)
        if then is not None and passed >= LONG_ENOUGH:
            return max(0.0, (_done(task) - _done(then)) / passed)
    return max(0.0, (_done(task) - task.inherited) / task.seconds) if task.seconds > 0 else 0.0


def seconds_left(task: TaskStatus, rate: float) -> float | None:
    """Seconds until the task is done, if it says how many items there are, and some are being done."""
    if task.total is None or rate <= 0 or task.counts.state not in ("open", "exhausted"):
        return None
    return max(0, task.total - _done(task)) / rate


def _task_object(task: TaskStatus, rate: float) -> dict[str, Any]:
    left = seconds_left(task, rate)
    counts = {key: value for key, value in asdict(task.counts).items() if key != "task"}
    names = ("total", "waiting", "retrying", "leased", "workers", "why")
    return {
        **counts,
        **{name: getattr(task, name) for name in names},
        "desired_workers": task.desired,
        "rate": round(rate, 3),
        "left_seconds": None if left is None else round(left, 1),
    }


def _task_row(task: TaskStatus, rate: float, with_bar: bool) -> list[str]:
    counts, left = task.counts, seconds_left(task, rate)
    bars = [_bar(task)] if with_bar else []
    return [
        printable(counts.task),
        counts.state,
        str(task.waiting + task.retrying),
        str(task.leased),
        str(counts.collected),
        str(counts.failed),
        "" if task.total is None else str(task.total),
        *bars,
        rate_text(rate),
        "" if left is None else duration(left),
        str(task.workers) if task.desired is None else f"{task.workers}/{task.desired}",
        printable(task.why),
    ]


def _bar(task: TaskStatus) -> str:
    if not task.total:
        return ""
    done = min(_done(task), task.total)
    return f"{bar(done, task.total)} {done * 100 // task.total:3}%"


def rate_text(rate: float) -> str:
    """A rate for people."""
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s"


def _worker_object(worker: WorkerStatus) -> dict[str, Any]:
    running = [{**asdict(one), "seconds": round(one.seconds, 3)} for one in worker.running]
    return {**asdict(worker), "running": running}


def _worker_row(worker: WorkerStatus) -> list[str]:
    first = [printable(worker.address), printable(worker.task), worker.state]
    numbers = [str(worker.threads), str(worker.leased), size_text(worker.kept_bytes), str(worker.executed)]
    return [*first, *numbers, runs_text(worker.running)]


def size_text(count: int) -> str:
    """Bytes for people: ``0``, ``12 KiB``, ``3.4 MiB``."""
    if count < 1024:
        return str(count)
    return f"{count / 1024:.0f} KiB" if count < 1024 * 1024 else f"{count / (1024 * 1024):.1f} MiB"


def runs_text(items: list[RunningItem]) -> str:
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
@click.option("--watch", is_flag=True, help="Repeat every --interval until the run is over or Ctrl-C is pressed.")
@interval_flag
@shared_flags
@click.pass_obj
def status(app: Pipeline, /, as_json: bool, watch: bool, interval: float, **flags: Any) -> int:
    """Show the state of a running pipeline: tasks, workers, running items, and what is waited for.

    Of an app with services it asks their broker, too. It finds each `run` of this user, and the roles at the usual
    address; --endpoint asks at that address alone.
    """
    screen = Screen(sys.stdout, again=watch)
    tables = Tables(screen, lambda base, now, before, runs: as_lines(base, now, before, bars=screen.is_live))
    show: Callable[[Answers], None] = _Json() if as_json else tables
    ask_again(app, flags, show, interval if watch else None)
    return 0


def ask_again(app: Pipeline, flags: Mapping[str, Any], show: Callable[[Answers], None], interval: float | None) -> None:
    """Ask, and show the answers; again after each `interval`, until nobody answers any more. None: once.

    Raises ConfigurationError if nobody answers the first time.
    """
    options = settle(app, flags)
    bases = _bases(app, options, flags["endpoint"] or os.environ.get(variable("endpoint")))
    roles = ("status", "service-clients") if app.service_names else ("status",)
    places = {derive(base, role): base for base in bases for role in roles}
    with StatusClient(list(places), options) as watcher:
        answers = watcher.ask()
        if not answers:
            raise ConfigurationError(_nobody(list(places), watcher))
        while answers:
            show([(place, places[place], status) for place, status in answers.items()])
            if interval is None:
                return
            time.sleep(interval)
            answers = watcher.ask()
    tell("No distributor answers any more: the run is over, or was ended.", err=True)


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


class Before:
    """Remembers the last answer of each run, from which the rates of the next are told."""

    def __init__(self) -> None:
        self._last: dict[EndpointAddress, Status] = {}

    def swap(self, place: EndpointAddress, status: Status) -> Status | None:
        """The answer before this one, if there was one."""
        before, self._last[place] = self._last.get(place), status
        return before


class _Json(Before):
    """Prints an object a line."""

    def __call__(self, answers: Answers) -> None:
        for place, base, status in answers:
            tell(json.dumps(as_object(base, status, self.swap(place, status))))


class Tables(Before):
    """Shows tables on a screen."""

    def __init__(self, screen: Screen, lines_of: Callable[[str, Status, Status | None, int], list[str]]) -> None:
        """`lines_of` makes them of a base address, an answer, that before it, and how many runs share the screen."""
        super().__init__()
        self._screen = screen
        self._lines_of = lines_of

    def __call__(self, answers: Answers) -> None:
        """Show these answers in the place of those before."""
        lines: list[str] = []
        for place, base, status in answers:
            found = self._lines_of(base, status, self.swap(place, status), len(answers))
            lines += ["", *found] if lines else found
        self._screen.draw(lines)
