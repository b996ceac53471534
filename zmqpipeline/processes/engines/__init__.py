"""Engines: what starts the process of a place, on this machine or elsewhere.

An engine only places processes. Who is started again, when, and what a death means is decided in `restarts`, and which
worker gets which item by the distributor: both are the same whoever has started a worker.

`run --engine NAME` uses the one that an installed package has registered under this name, in the group GROUP of entry
points: a subclass of `RunEngine` (`docs/howto/engines.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from zmqpipeline.runtime.child import Child
from zmqpipeline.runtime.security.issued import KeyIssuer

GROUP = "zmqpipeline.engines"
"""The group of entry points under which engines are found."""


class Engine(Protocol):
    """Starts processes, one a call."""

    @property
    def hint(self) -> str:
        """What to look at if a process ended before anything was heard of it, as a sentence after a blank; or empty."""
        ...

    def start(
        self, label: str, arguments: Sequence[str], exited: Callable[[Child], None], *, stdout: int | None
    ) -> Child:
        """Start ``python ARGUMENTS``.

        What it returns can be asked to drain, ended, and told a line. `exited` is called once with it, from another
        thread, when the process is lost or has ended. `label` is for log lines; `stdout` is a file descriptor, None
        inherits ours.
        """
        ...


@dataclass(frozen=True)
class EngineRun:
    """What an engine is told of the run that it is to place the workers of."""

    pipeline: str
    """The name of the app."""
    run: str
    """A new word for each run, of letters and digits."""
    endpoint: str
    """The base address that the workers will connect to."""
    workers: int
    """The most workers that there may be, of all tasks."""
    scheduler: str | None = None
    """What `--scheduler` says."""
    python: str | None = None
    """The interpreter where the workers are, if `--python` says so."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What `--engine-option NAME=VALUE` says."""
    issuer: KeyIssuer | None = None
    """Gives each worker keys of its own (`LaunchCommand`, `FarChild`), without which it is not let in; None: the run
    has no keys."""


class RunEngine:
    """The base of engines that are used by name: one object a run, for the workers of all its tasks.

    It is made in the process of `run`, and its methods are called there, by one thread. What they raise is no end of
    the run: a worker whose start raised is tried again like one that died before it was ready. A ConfigurationError
    ends it.
    """

    hint = ""
    """See `Engine`."""

    def __init__(self, run: EngineRun) -> None:
        """Connect to what is needed. Raise ConfigurationError for what the user can mend."""
        self.run = run

    def for_worker(self, task: str, index: int) -> Engine:
        """What starts the worker of this task that has this number among them, from 0; by default, this engine."""
        return self

    def start(
        self, label: str, arguments: Sequence[str], exited: Callable[[Child], None], *, stdout: int | None
    ) -> Child:
        """As `Engine.start`."""
        raise NotImplementedError(f"{type(self).__name__} has no start()")

    def close(self) -> None:
        """The run is over, and every process that was started has ended, or was told to."""
