"""The page of a run, as `run` sees it: a process of its own, which is told what happens, and whose end is no matter.

The page's address is bound here, so that one that is taken is known before the run begins. The token is told by the
environment, all else by a file in the run's folder; the environment of no other child has the token.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.output import tell
from zmqpipeline.cli.page.guard import check_token
from zmqpipeline.cli.page.orders import Order
from zmqpipeline.cli.page.place import TOKEN_VARIABLE, listening, read_place, url_of
from zmqpipeline.cli.page.plan import PagePlan, Scalable, ServerPlan, page_plan, plain_options
from zmqpipeline.cli.page.server import missing
from zmqpipeline.cli.page.shown import MAX_TASKS
from zmqpipeline.options import Options
from zmqpipeline.processes.restarts import Signalled, SupervisorEvent, WorkersOrdered
from zmqpipeline.processes.supervisor import Outcome
from zmqpipeline.processes.worker_places import Staff, TaskPlaces, WorkerPlaces
from zmqpipeline.runtime.child import MAX_LINE_LENGTH, Child, describe_death

log = logging.getLogger("zmqpipeline.run")

END_SECONDS = 3.0
"""So long the page has to tell browsers that the run is over."""

LOGGERS = ("zmqpipeline.run", "zmqpipeline.collector")
"""Whose warnings the page shows."""


def page_beside(
    ctx: click.Context,
    app: Pipeline,
    options: Options,
    place: str,
    token: str | None,
    *,
    control: bool,
    summary_of: Callable[[Outcome], Mapping[str, Any]],
) -> PageBeside:
    """The page of a run that is about to begin, at ``HOST:PORT``.

    Raises:
        ConfigurationError: it may not be there without a token, the packages are missing, or the port is taken.
    """
    host, port = read_place(place)
    check_token(host, token, control=control)
    for package in ("starlette", "uvicorn"):
        # they are imported by another process
        if importlib.util.find_spec(package) is None:
            raise missing(f"No module named {package!r}")
    listener = listening(host, port, "--dashboard HOST:PORT")
    roles = ["status", "service-clients"] if app.service_names else ["status"]
    plan = page_plan(ctx, app, options.journal, is_beside=True)
    return PageBeside(plan, listener, summary_of, host=host, token=token, control=control, roles=roles)


class PageBeside:
    """Begins and ends the page's server with the run."""

    def __init__(
        self,
        plan: PagePlan,
        listener: socket.socket,
        summary_of: Callable[[Outcome], Mapping[str, Any]],
        *,
        host: str,
        token: str | None,
        control: bool,
        roles: list[str],
        interval: float = 1.0,
    ) -> None:
        """`summary_of` makes what the page is told at the end."""
        self._plan = ServerPlan(plan, "", roles, {}, listener.fileno(), host, interval, control)
        self._listener = listener
        self._token = token
        self._summary_of = summary_of
        self._child: Child | None = None
        self._folder = Path()
        self._is_ending = False
        self._scalable: list[Scalable] = []
        self._lines = _Lines(self._tell)

    def begin(
        self,
        base: str,
        folder: Path,
        options: Options,
        post: Callable[[SupervisorEvent], None],
        places: WorkerPlaces,
    ) -> None:
        """Start the server; called by the thread that outlives it. `post` tells the supervisor what is asked for."""
        self._folder = folder
        tell(f"The page of {self._plan.page.name!r}: {url_of(self._listener)}", err=True)
        if self._plan.control:
            places.watcher = self
            self._scalable = [_scalable(one) for one in islice(places.tasks.values(), MAX_TASKS)]
        page = replace(self._plan.page, scalable=self._scalable)
        plan = replace(self._plan, page=page, base=base, options=plain_options(options))
        file = folder / "dashboard.json"
        file.write_text(plan.write(), encoding="utf-8", errors="surrogateescape")
        words, voice = os.pipe()
        try:
            self._child = Child(
                "page's server",
                ["-m", "zmqpipeline.cli.page", os.fspath(file)],
                self._ended,
                stdout=voice,
                files=(self._listener.fileno(),),
                environ={} if self._token is None else {TOKEN_VARIABLE: self._token},
            )
        except BaseException:
            os.close(words)
            raise
        finally:
            os.close(voice)
            # if the server dies, who asks is refused, and does not wait
            self._listener.close()
        threading.Thread(target=self._obey, args=(words, post), name="words of the page", daemon=True).start()
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self._lines)

    def close(self) -> None:
        """Listen no more, if it has never begun."""
        self._listener.close()

    def _ended(self, child: Child) -> None:
        if not self._is_ending:
            how = describe_death(1 if child.status is None else child.status)
            log.warning("The page's server ended (%s). The run goes on; the command `dashboard` shows it, too.", how)

    def _tell(self, line: str) -> bool:
        return self._child is not None and not self._is_ending and self._child.tell(line)

    def end(self, outcome: Outcome | None) -> None:
        """Have the server tell what became of the run, and end; None: nobody knows what."""
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self._lines)
        child, self._is_ending = self._child, True
        if child is None:
            return
        # of a run that was shorter than its server's start nobody has seen the page
        if outcome is not None and child.has_told().is_ready:
            file = self._folder / "summary.json"
            with suppress(OSError):  # a full disk: browsers see that the server is gone
                file.write_text(json.dumps(self._summary_of(outcome)), encoding="utf-8")
                if child.tell(f"over {file}"):
                    child.join(END_SECONDS)
        if child.status is None:
            child.kill()
            child.join(END_SECONDS)

    # what it is told of workers, and asks for -------------------------------------------------------------------------

    def staffed(self, task: str, staff: Staff) -> bool:
        """See `StaffWatcher`."""
        which = next((which for which, one in enumerate(self._scalable) if one.task == task), None)
        told = f"workers {which} {staff.there} {staff.wanted} {int(staff.is_ordered)}"
        return which is None or self._tell(told)

    def ends(self) -> None:
        """See `StaffWatcher`."""
        self._tell("ends")

    def _obey(self, words: int, post: Callable[[SupervisorEvent], None]) -> None:
        """Hand on what the page asks for, until its server is gone."""
        ordered: dict[str, int | None] = {}
        with os.fdopen(words, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                word, order = line.strip(), Order.of_line(line)
                if word in ("drain", "cancel"):
                    log.warning(
                        "The page asks for the run to be %s.", {"drain": "drained", "cancel": "cancelled"}[word]
                    )
                    # what SIGTERM does; a second one ends the run at once
                    for _ in range(1 if word == "drain" else 2):
                        post(Signalled(signal.SIGTERM))
                elif order is not None and order.which < len(self._scalable):
                    task, number = self._scalable[order.which].task, order.number
                    many = "as many workers as --workers says" if number is None else f"so many workers: {number}"
                    log.warning("The page asks for task %r to have %s.", task, many)
                    ordered[task] = number
                    post(WorkersOrdered(task, number))
        for task in [task for task, number in ordered.items() if number == 0 and not self._is_ending]:
            # nobody could set another number, and the run would wait for ever
            log.warning("Task %r has workers again, as --workers says: the page, which has set 0, is gone.", task)
            post(WorkersOrdered(task, None))


class _Lines(logging.Filter):
    """Hands warnings on, and lets all lines pass."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        super().__init__()
        self._tell = tell

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            # as JSON a character may have twelve bytes
            text = record.getMessage()[: MAX_LINE_LENGTH // 12 - 20]
            self._tell(f"log {json.dumps([record.levelname.lower(), text])}")
        return True


def _scalable(places: TaskPlaces) -> Scalable:
    least, most = places.bounds.least, places.bounds.most
    return Scalable(places.task, places.limit, f"{least}:{most}" if places.bounds.is_scaled else str(most))
