"""A service of an app, up for one test: the broker and its workers as threads of this process, and a client."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING

from zmqpipeline.errors import ConfigurationError, PipelineTimeout
from zmqpipeline.options import Options
from zmqpipeline.roles.client import ServiceClient
from zmqpipeline.testing.hang_report import thread_lines
from zmqpipeline.testing.run import DRAIN_SECONDS, RoleThread

if TYPE_CHECKING:
    from zmqpipeline.app import Pipeline

_numbers = itertools.count(1)


@contextmanager
def serving(app: Pipeline, name: str = "", *, workers: int = 1) -> Iterator[ServiceClient]:
    """Have a service of this app up for a while.

    ``with serving(app, "price") as client: client.request(...)``.

    Broker and workers are threads of this process, over ``inproc://``; all of them have ended afterwards.

    Args:
        app: the pipeline; its set-up ends here.
        name: the service; may be left out if there is but one.
        workers: how many workers answer.

    Raises:
        ConfigurationError: the app has no such service, or `workers` is below 1.
        WorkerInitError: on the way out: a `worker_init` or `thread_init` function raised.
        PipelineTimeout: on the way out: a function did not return.
    """
    if workers < 1:
        raise ConfigurationError(f"workers= asks for {workers} workers of service {name!r}. Give 1 or more.")
    app.freeze()
    if not name and len(app.service_names) == 1:
        name = app.service_names[0]
    options = replace(
        Options.from_environ(app.options, os.environ),
        endpoint=f"inproc://zmqpipeline-serving-{os.getpid()}-{next(_numbers)}",
        drain_timeout=DRAIN_SECONDS,
        idle_timeout=None,
    )
    roles = [app.compile("service-worker", name, options=options) for _ in range(workers)]
    ended: SimpleQueue[RoleThread] = SimpleQueue()
    threads = [RoleThread(f"broker of {name!r}", app.compile("service", options=options), ended)]
    threads += [RoleThread(f"worker of service {name!r}", role, ended) for role in roles]
    before = set(threading.enumerate())
    for thread in threads:
        thread.start()
    client = app.client(name, options=options)
    try:
        yield client
    finally:
        client.close()
        _end(threads)
    _raise_what_went_wrong(threads, before)


def _end(threads: list[RoleThread]) -> None:
    """The workers first, so that they hand back what they have not begun to a broker that is still there."""
    for thread in reversed(threads):
        thread.role.shutdown()
    for thread in threads:
        thread.join(2 * DRAIN_SECONDS)


def _raise_what_went_wrong(threads: list[RoleThread], before: set[threading.Thread]) -> None:
    error = next((thread.error for thread in threads if thread.error is not None), None)
    if error is not None:
        raise error
    alive = [thread.name for thread in threads if thread.is_alive()]
    if alive:
        where = thread_lines(set(threading.enumerate()) - before - set(threads))
        raise PipelineTimeout("\n".join([f"These did not end: {', '.join(alive)}.", *where]))
