"""The command `status`: asks running distributors and brokers how they stand, once or again and again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import click

from zmqpipeline import launch
from zmqpipeline.address import EndpointAddress, derive
from zmqpipeline.app import Pipeline
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options, variable
from zmqpipeline.protocol.messages import Status
from zmqpipeline.runtime.watching import PATIENCE, Watcher
from zmqpipeline.standing import as_lines, as_object

Settle = Callable[[Pipeline, Mapping[str, Any]], Options]


def status_command(common: Callable[[Callable[..., Any]], Callable[..., Any]], settle: Settle) -> click.Command:
    """The command, with what all commands share."""

    @click.command("status", epilog="Example: python -m app status --watch")
    @click.option("--json", "as_json", is_flag=True, help="Print a JSON object on stdout, one line a run.")
    @click.option("--watch", is_flag=True, help="Ask again and again, until the run is over or Ctrl-C.")
    @click.option(
        "--interval",
        type=click.FloatRange(0.1),
        default=1.0,
        show_default=True,
        metavar="S",
        help="Seconds between two questions of --watch.",
    )
    @common
    @click.pass_obj
    def status(app: Pipeline, /, as_json: bool, watch: bool, interval: float, **flags: Any) -> int:
        """Ask a running distributor how it stands: tasks, workers, what runs now, and why something does not.

        Of an app with services it asks their broker, too. It finds each `run` of this user, and the roles at the usual
        address; --endpoint asks at that address alone.
        """
        options = settle(app, flags)
        bases = _bases(app, options, flags["endpoint"] or os.environ.get(variable("endpoint")))
        roles = ("status", "service-clients") if app.service_names else ("status",)
        places = {derive(base, role): base for base in bases for role in roles}
        with Watcher(list(places), options) as watcher:
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

    return status


def _bases(app: Pipeline, options: Options, given: str | None) -> list[str]:
    """Where to ask: at the one base address that was given, or wherever a distributor of this app may be."""
    if given:
        launch.refuse_inproc(EndpointAddress(given))
        return [given]
    bases = launch.status_bases(app, options)
    if not bases:
        raise ConfigurationError(
            f"No run of {app.name!r} and no distributor of it is up here. Start one, or say where it is: "
            "--endpoint ADDRESS."
        )
    return bases


def _nobody(places: list[EndpointAddress], watcher: Watcher) -> str:
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
