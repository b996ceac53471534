"""Pipeline: decorators write down what to run; `compile` makes the roles of the class API out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, NoReturn

from zmqpipeline.addresses import EndpointAddress, RoleAddresses, default_base
from zmqpipeline.definitions.decorators import Decorated
from zmqpipeline.definitions.origin import namesakes, twice, without_tasks
from zmqpipeline.definitions.registry import Registry
from zmqpipeline.errors import ConfigurationError, RegistrationError
from zmqpipeline.options import Options
from zmqpipeline.roles.task_type import why_no_name
from zmqpipeline.runtime.imports import many_imports

if TYPE_CHECKING:
    from zmqpipeline.roles.async_client import AsyncServiceClient
    from zmqpipeline.roles.client import ServiceClient
    from zmqpipeline.roles.collector import Collector
    from zmqpipeline.roles.distributor import Distributor
    from zmqpipeline.roles.results import Summary
    from zmqpipeline.roles.service import Service, ServiceWorker
    from zmqpipeline.roles.worker import Worker
    from zmqpipeline.testing.run import TestRun


class Pipeline(Decorated):
    """An app: its tasks, their workers and the collector, registered by decorators or by their method twins.

    Every decorator returns the function as it was. Decorators may come in any order, before the pipeline starts.
    """

    def __init__(
        self, name: str, *, endpoint: EndpointAddress | str | None = None, options: Options | None = None
    ) -> None:
        """Make an empty pipeline.

        Args:
            name: says what it is, in messages and for its private folder. ``__name__`` stands for the name by which
                the module is imported, also where it is started and therefore called ``__main__``.
            endpoint: the base address of all roles: ``ipc://FOLDER``, ``tcp://HOST:PORT`` or ``inproc://NAME``;
                by default ipc sockets in a private folder of the user.
            options: settings; variables and flags beat them.

        Raises:
            EndpointError: the address is malformed.
        """
        if "registry" in vars(self):
            return  # it is its twin, and has everything
        if not isinstance(name, str) or not name.strip():
            raise ConfigurationError(f"A pipeline's name is a string that is not empty, not {name!r}.")
        if reason := why_no_name(name):
            raise ConfigurationError(f"A pipeline's name {reason}: {name[:40]!a}.")
        self.name = self.origin.import_name if name == self.origin.module else name
        """What the pipeline is called."""
        self.options = options or Options()
        """The settings as the program gives them; variables and flags beat them."""
        if endpoint is not None:
            self.options = replace(self.options, endpoint=str(EndpointAddress(endpoint)))
        self.import_name = self.origin.import_name
        """The module in which the pipeline was made, by the name that other processes import it by."""
        self.registry = Registry()
        """What is registered, for the compiler and the command line."""
        self._frozen = False
        self.command = ""
        """What starts its roles, for messages; empty if that is not known."""

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r}: tasks {', '.join(map(repr, self.task_types)) or 'none'}>"

    # what is done with it ---------------------------------------------------------------------------------------------

    @property
    def task_types(self) -> list[str]:
        """The names of the tasks, in the order of their registration."""
        return list(self.registry.tasks)

    @property
    def worker_types(self) -> list[str]:
        """The names of the tasks that have a worker here, in the order of the tasks."""
        return [name for name in self.registry.tasks if name in self.registry.workers]

    @property
    def service_names(self) -> list[str]:
        """The names of the services, in the order of their registration."""
        return list(self.registry.services)

    @property
    def totals(self) -> dict[str, int | None]:
        """How many items each task announces, None where it does not say."""
        return {name: entry.spec.total for name, entry in self.registry.tasks.items()}

    def check(self) -> list[str]:
        """Check that all that is registered fits together; the task types in an order that honours `depends_on`.

        Raises:
            RegistrationError: no task, a task without a worker, a worker without a task.
            DependencyError: a dependency is unknown or goes in a circle.
        """
        if not self.registry.tasks and (others := [one for one in namesakes(self) if one.registry.tasks]):
            raise RegistrationError(twice(self, others[0]))
        if not (self.registry.tasks or self.registry.services) and self.origin.at_import:
            raise RegistrationError(without_tasks(self))
        return self.registry.check(self.name)

    def freeze(self) -> None:
        """End the set-up: from here on every decorator is refused. `check` comes first."""
        self.check()
        self._frozen = True

    @property
    def default_base(self) -> EndpointAddress:
        """The base address where none is given: a private folder of this user, named after the pipeline.

        Of one that is named after its module, each file has a folder of its own: there are many an ``app.py``.
        """
        return default_base(self.name, self.own_file)

    @property
    def own_file(self) -> str:
        """The file that tells it apart from others of its name: of one that is named after its module; else empty."""
        return self.origin.file if self.name == self.import_name else ""

    def places(self, options: Options | None = None) -> RoleAddresses:
        """The addresses of all roles, under these options (by default those of program and environment)."""
        from zmqpipeline.definitions.build import places_of

        return places_of(self, options)

    def compile(
        self,
        role: str,
        task_type: str | None = None,
        *,
        options: Options | None = None,
        metadata: Mapping[str, Any] | None = None,
        threads: int | None = None,
    ) -> Distributor | Worker | Collector | Service | ServiceWorker:
        """Make a role of the class API, ready to `run()`; ends the set-up.

        Args:
            role: "distributor", "worker", "collector", "service" (the broker) or "service-worker".
            task_type: whose worker, or of which service; may be left out if there is but one.
            options: all settings, with flags and variables in them; by default those of program and environment.
            metadata: added to what the metadata function returns, over it; for the distributor.
            threads: of the worker; by default as many as it was registered with.

        Raises:
            ConfigurationError: the app does not fit together, or there is no such role or task.
        """
        from zmqpipeline.definitions.build import compile_role

        self.freeze()
        return compile_role(self, role, task_type, options=options, metadata=metadata, threads=threads)

    def client(self, name: str = "", *, options: Options | None = None) -> ServiceClient:
        """A client of this app's broker, for one service; close it, or use it in a `with` block.

        Raises:
            ConfigurationError: the app has no such service.
        """
        from zmqpipeline.definitions.build import client_of

        return client_of(self, name, options)

    def async_client(self, name: str = "", *, options: Options | None = None) -> AsyncServiceClient:
        """The same for asyncio programs: its methods are awaited, and it is used in an ``async with`` block.

        Raises:
            ConfigurationError: the app has no such service.
        """
        from zmqpipeline.definitions.build import async_client_of

        return async_client_of(self, name, options)

    def test_run(
        self,
        *,
        workers: int | Mapping[str, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
        raise_failures: bool = True,
    ) -> TestRun:
        """Run the real roles as threads of this process and return what came of it; see `testrun.run_in_threads`."""
        from zmqpipeline.testing.run import run_in_threads

        __tracebackhide__ = True
        return run_in_threads(self, workers=workers, metadata=metadata, timeout=timeout, raise_failures=raise_failures)

    def run(
        self,
        *,
        workers: int | str | Mapping[str, int | str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        journal: str | PathLike[str] | None = None,
        progress: bool | None = None,
        timeout: float | None = None,
        max_failures: int | None = None,
        collect_results: bool = False,
    ) -> Summary:
        """Run everything on this machine and block until it is over; returns also when items failed (`ok` is False).

        The collector's functions run in this process, the distributor and the workers in child processes, which import
        the module again: the call belongs under ``if __name__ == "__main__":``.

        Args:
            workers: processes for every task, or for some: ``{"C": 4}``; "auto", the default, is as many as there are
                cores for this process, by its affinity and the CPU quota of its control groups. A range such as "1:8"
                or "0:auto": as many as the work needs.
            metadata: added to what the metadata function returns, over it.
            journal: a file in which the collector writes down what is done. Called again with the same file, also by
                another process after this one was killed, the run goes on; a finished one is not started again, and
                its summary is returned (`ok` is False if an item had failed).
            progress: a progress line; None draws one if stderr is a terminal.
            timeout: seconds after which the run drains and PipelineTimeout is raised.
            max_failures: when more items than this have failed for good since the call, the run drains; the summary's
                `stopped` says so. By default, as `Options.max_failures`.
            collect_results: keep what is collected, in memory, as `results` of the summary: for small runs. With a
                journal, that is what this call collected, not what an earlier one did.

        Raises:
            ConfigurationError: the app does not fit together, or the child processes cannot import it.
            JournalError: the journal cannot be used, or holds an unfinished run with other metadata.
            PipelineTimeout: it was not over in time.
            RoleDied, WorkerInitError: a process that the run needs kept dying.
            KeyboardInterrupt, SystemExit: SIGINT or SIGTERM ended the run, which has drained.
        """
        from zmqpipeline.cli.run import run_app

        return run_app(
            self,
            workers=workers,
            metadata=metadata,
            journal=journal,
            progress=progress,
            timeout=timeout,
            max_failures=max_failures,
            collect_results=collect_results,
        )

    def main(self, argv: Sequence[str] | None = None) -> NoReturn:
        """Carry out the command that `argv` (by default the process's arguments) names, and exit with its status."""
        with many_imports():
            from zmqpipeline.cli.main import main
        main(self, argv)

    # how entries are made ---------------------------------------------------------------------------------------------
