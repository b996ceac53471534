"""The commands for services: the broker, its workers, and a client for one request."""

from __future__ import annotations

import json
from typing import Any

import click

from zmqpipeline.app import Pipeline
from zmqpipeline.cli.common import flag_arguments, serve, settle, shared_flags
from zmqpipeline.cli.output import tell
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options
from zmqpipeline.processes import launch
from zmqpipeline.roles.base import Role


@click.command("service", epilog="Example: python -m app service --endpoint tcp://0.0.0.0:5550")
@shared_flags
@click.pass_obj
def service(app: Pipeline, /, **flags: Any) -> int:
    """Run the broker: it routes requests of clients to the workers of each service."""
    return serve(_compiled(app, "service", settle(app, flags)))


@click.command(
    "service-worker", epilog="Example: python -m app service-worker upper --threads 4 --endpoint tcp://SERVER:5550"
)
@click.argument("name", required=False)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads of the process.")
@click.option("--processes", type=click.IntRange(1), metavar="N", help="So many worker processes.")
@shared_flags
@click.pass_obj
def service_worker(app: Pipeline, /, name: str | None, threads: int | None, processes: int | None, **flags: Any) -> int:
    """Execute the requests of one service. Without NAME: of every service, each in a process of its own."""
    options = settle(app, flags)
    names = [name] if name is not None else app.service_names
    if not names:
        raise ConfigurationError(f"Pipeline {app.name!r} has no services. Add one with `@app.service('NAME')`.")
    if len(names) == 1 and processes is None:
        role = _compiled(app, "service-worker", options, task_type=names[0], threads=threads)
        return serve(role, worker=True)
    for one in names:
        _compiled(app, "service-worker", options, task_type=one)
    arguments = flag_arguments({**flags, "threads": threads})
    count = processes or 1
    return launch.supervise_workers(app, names, count, arguments, options.drain_timeout, "service-worker")


@click.command("call", epilog='Example: python -m app call upper \'{"text": "abc"}\'')
@click.argument("name")
@click.argument("request", metavar="JSON")
@click.option("--timeout", type=click.FloatRange(0), default=30.0, show_default=True, metavar="S")
@shared_flags
@click.pass_obj
def call(app: Pipeline, /, name: str, request: str, timeout: float, **flags: Any) -> int:
    """Send one request to a service; print the reply as JSON."""
    options = settle(app, flags)
    with app.client(name, options=options) as client:
        reply = client.request(_read(request), timeout=timeout)
    tell(_shown(reply))
    return 0


def _compiled(app: Pipeline, role: str, options: Options, **arguments: Any) -> Role:
    return app.compile(role, options=options, **arguments)


def _read(text: str) -> Any:
    """The request that a command line gives.

    Raises ConfigurationError for anything but an object or a list of objects.
    """
    shown = text if len(text) < 60 else text[:60] + "..."
    example = 'Write an object, such as \'{"text": "abc"}\', or a list of objects.'
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigurationError(f"The request {shown!r} is no JSON ({error}). {example}") from error
    if not all(isinstance(one, dict) for one in (found if isinstance(found, list) else [found])):
        raise ConfigurationError(f"The request {shown!r} is no JSON object. {example}")
    return found


def _shown(reply: Any) -> str:
    """A reply as one line of JSON; what JSON has no form for is shown as Python's `str` has it."""
    text = json.dumps(_plain(reply), default=str, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()


def _plain(value: Any) -> Any:
    """With sets and tuples as lists, and all keys as strings: JSON knows no others."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    return value
