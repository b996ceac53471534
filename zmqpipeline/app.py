"""Pipeline: decorators write down what to run; `compile` makes the roles of the class API out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, overload

from zmqpipeline import injection
from zmqpipeline.address import EndpointAddress
from zmqpipeline.entries import service_entry, task_entry, task_name, worker_entry
from zmqpipeline.errors import ConfigurationError, RegistrationError
from zmqpipeline.injection import Place, Plan, label, plan
from zmqpipeline.keywords import spelt
from zmqpipeline.options import Options
from zmqpipeline.origin import Original, is_from_twin, namesakes, twice
from zmqpipeline.places import Places, default_base
from zmqpipeline.registry import Registry, add_once
from zmqpipeline.tasktype import why_no_name

if TYPE_CHECKING:
    from zmqpipeline.client import ServiceClient
    from zmqpipeline.collector import Collector
    from zmqpipeline.distributor import Distributor
    from zmqpipeline.service import Service, ServiceWorker
    from zmqpipeline.summary import Summary
    from zmqpipeline.testrun import TestRun
    from zmqpipeline.worker import Worker

Function = TypeVar("Function", bound=Callable[..., Any])
TaskFunction = TypeVar(
    "TaskFunction", bound="Callable[..., Iterable[Mapping[Any, Any] | None] | Mapping[Any, Any] | None]"
)
WorkerFunction = TypeVar("WorkerFunction", bound="Callable[..., Mapping[Any, Any] | None]")
Class = TypeVar("Class", bound=type)


class Pipeline(Original):
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
        self._command = ""

    def __repr__(self) -> str:
        return f"<Pipeline {self.name!r}: tasks {', '.join(map(repr, self.task_types)) or 'none'}>"

    # tasks ------------------------------------------------------------------------------------------------------------

    @spelt
    def task(
        self,
        task_type: str,
        *,
        depends_on: Iterable[str] = (),
        times: int | None = None,
        total: int | None = None,
        key: str | Callable[[dict[str, Any]], Any] | None = None,
        retries: int = 0,
        backoff: float = 1.0,
        timeout: float | None = None,
        crash_limit: int = 3,
        on_failed: Literal["abort", "continue"] = "abort",
        endpoint: str | None = None,
    ) -> Callable[[TaskFunction], TaskFunction]:
        """Decorator: the function gives the items of a task.

        It may be a generator, return an iterable of dicts, or return one dict or None. It may be called again, when a
        distributor is started anew in the middle of a run: it must then give the same items in the same order, or, with
        `key`, items with the same keys in any order. By name it may take metadata, task_type, ack_data, address,
        msgtype, with `times` number, and without `times` and `key` start: how many items, from the first on without a
        gap, are done by then; it begins behind these.

        Args:
            task_type: the name of the task.
            depends_on: tasks of which every item must be acknowledged before the first of this one.
            times: call the function so often, one item a call.
            total: how many items there will be, for the progress line.
            key: a field's name, or a callable on the item: an item with a key that waits, is with a worker or is
                collected is skipped, however often the run is started again; a failed one may come again.
            retries: how often an item is tried again when the worker's function raises.
            backoff: seconds before the first retry; twice as long before each further one.
            timeout: seconds that one execution may take; None for as long as it likes.
            crash_limit: an item that so many workers died of is failed.
            on_failed: what to do when an item of `depends_on` failed: "abort", or "continue".
            endpoint: an address of its own for this task.

        Raises:
            RegistrationError: a second function for the task, a bad argument, or a parameter that nobody provides.
        """
        task_name(task_type, "task")

        def register(function: TaskFunction) -> TaskFunction:
            self.add_task(
                task_type,
                function,
                depends_on=depends_on,
                times=times,
                total=total,
                key=key,
                retries=retries,
                backoff=backoff,
                timeout=timeout,
                crash_limit=crash_limit,
                on_failed=on_failed,
                endpoint=endpoint,
            )
            return function

        return register

    @spelt
    def add_task(
        self,
        task_type: str,
        function: Callable[..., Any],
        *,
        depends_on: Iterable[str] = (),
        times: int | None = None,
        total: int | None = None,
        key: str | Callable[[dict[str, Any]], Any] | None = None,
        retries: int = 0,
        backoff: float = 1.0,
        timeout: float | None = None,
        crash_limit: int = 3,
        on_failed: Literal["abort", "continue"] = "abort",
        endpoint: str | None = None,
    ) -> None:
        """The method twin of `@app.task`, with the same keywords."""
        if not self._takes("task"):
            return
        entry = task_entry(
            task_type,
            function,
            depends_on=depends_on,
            times=times,
            total=total,
            key=key,
            retries=retries,
            backoff=backoff,
            timeout=timeout,
            crash_limit=crash_limit,
            on_failed=on_failed,
            endpoint=endpoint,
        )
        add_once(
            self.registry.tasks, entry.name, entry, f"Task {entry.name!r}", lambda one: _label(one.plan or one.cls)
        )

    def available(self, task_type: str) -> Callable[[Function], Function]:
        """Decorator: ``fn(ack_data) -> bool`` is asked before each item of the task, in the distributor's process.

        With one ACK: that of the last time as long as it returns True; when it returns False, with the next one, once
        with each, in order, until it returns True. ``ack_data`` is what the collector attached to it, with
        ``_task_type`` and ``_id``, the number of items acknowledged by then (0 before the first). By name it may take
        metadata, task_type, address.
        """
        return self._named(injection.AVAILABLE, task_type, self.add_available)

    def add_available(self, task_type: str, function: Callable[..., Any]) -> None:
        """The method twin of `@app.available`."""
        self._add(self.registry.gates, injection.AVAILABLE, task_type, function)

    def metadata(self, function: WorkerFunction) -> WorkerFunction:
        """Decorator: returns the run's metadata, a dict; the distributor calls it once, before the first item."""
        self.add_metadata(function)
        return function

    def add_metadata(self, function: Callable[..., Any]) -> None:
        """The method twin of `@app.metadata`."""
        self._add_single(injection.METADATA, function)

    # workers ----------------------------------------------------------------------------------------------------------

    @spelt
    def worker(
        self,
        task_type: str,
        *,
        threads: int = 1,
        init_timeout: float | None = 60.0,
        max_items: int | None = None,
        max_memory: int | str | None = None,
    ) -> Callable[[WorkerFunction], WorkerFunction]:
        """Decorator: the function executes one item of the task, its first parameter, and returns the result, a dict.

        By name it may take metadata, task_type, thread_index, number, attempt, resource.

        Args:
            task_type: the task.
            threads: so many threads of each worker process call it at once.
            init_timeout: seconds that `worker_init` and `thread_init` may take together; a worker that takes longer
                ends, and has failed to start. None for as long as they like.
            max_items: a process ends its work in good order after so many items, and another one takes its place.
            max_memory: the same when the process has so much memory after an item: bytes, or a text such as "2GiB".
        """
        task_name(task_type, "worker")

        def register(function: WorkerFunction) -> WorkerFunction:
            self.add_worker(
                task_type,
                function,
                threads=threads,
                init_timeout=init_timeout,
                max_items=max_items,
                max_memory=max_memory,
            )
            return function

        return register

    @spelt
    def add_worker(
        self,
        task_type: str,
        function: Callable[..., Any],
        *,
        threads: int = 1,
        init_timeout: float | None = 60.0,
        max_items: int | None = None,
        max_memory: int | str | None = None,
    ) -> None:
        """The method twin of `@app.worker`, with the same keywords."""
        if not self._takes("worker"):
            return
        limits: dict[str, Any] = {"init_timeout": init_timeout, "max_items": max_items, "max_memory": max_memory}
        entry = worker_entry(task_type, function, threads, **limits)
        what = f"The worker of task {entry.name!r}"
        add_once(self.registry.workers, entry.name, entry, what, lambda one: _label(one.plan or one.cls))

    def worker_init(self, task_type: str) -> Callable[[Function], Function]:
        """Decorator: runs once in each worker process, just before its first item; it returns the `resource`.

        By name it may take metadata, task_type.
        """
        return self._named(injection.WORKER_INIT, task_type, self.add_worker_init)

    def add_worker_init(self, task_type: str, function: Callable[..., Any]) -> None:
        """The method twin of `@app.worker_init`."""
        self._add(self.registry.worker_inits, injection.WORKER_INIT, task_type, function)

    def thread_init(self, task_type: str) -> Callable[[Function], Function]:
        """Decorator: runs once in each thread before its first item; what it returns is that thread's `resource`.

        By name it may take metadata, task_type, thread_index, and resource, which is that of `worker_init`.
        """
        return self._named(injection.THREAD_INIT, task_type, self.add_thread_init)

    def add_thread_init(self, task_type: str, function: Callable[..., Any]) -> None:
        """The method twin of `@app.thread_init`."""
        self._add(self.registry.thread_inits, injection.THREAD_INIT, task_type, function)

    # the collector ----------------------------------------------------------------------------------------------------

    @overload
    def collector(self, task_type: Function) -> Function: ...

    @overload
    def collector(self, task_type: str | None = None) -> Callable[[Function], Function]: ...

    def collector(self, task_type: Any = None) -> Any:
        """Decorator: the function takes each result. ``@app.collector`` for all tasks, ``@app.collector("C")`` for one.

        The one for a task wins over the one for all. A dict that it returns is attached to the next ACK. By name it may
        take metadata, task_type, number, attempt, msgtype, and journal: the open transaction of the run's journal, in
        which what it writes is committed together with the mark that the item is collected.
        """
        if callable(task_type):
            self.add_collector(task_type)
            return task_type

        def register(function: Function) -> Function:
            self.add_collector(function, task_type)
            return function

        return register

    def add_collector(self, function: Callable[..., Any], task_type: str | None = None) -> None:
        """The method twin of `@app.collector`; without a task it is for all."""
        if task_type is not None:
            self._add(self.registry.collectors, injection.COLLECTOR, task_type, function)
            return
        if not self._takes("collector"):
            return
        made = plan(function, injection.COLLECTOR)
        add_once(self.registry.collectors, "", made, "The collector", _label)

    def finished(self, function: Function) -> Function:
        """Decorator: is called in the collector when every item is done. By name it may take metadata, msgtype.

        A run counts as finished when it has returned: if it raises, or its process dies first, a run with a journal
        that is started again calls it again, and nothing else (without one, the next collector does, if only the
        collector died). By name it may take journal, too, as `@app.collector` has it: its rows and the mark "finished"
        are committed together, so that they are there once.
        """
        self.add_finished(function)
        return function

    def add_finished(self, function: Callable[..., Any]) -> None:
        """The method twin of `@app.finished`."""
        self._add_single(injection.FINISHED, function)

    def failed(self, function: Function) -> Function:
        """Decorator: is called in the collector with the `Failure` of each item that was given up.

        By name it may take metadata, task_type, and journal, as `@app.collector` has it.
        """
        self.add_failed(function)
        return function

    def add_failed(self, function: Callable[..., Any]) -> None:
        """The method twin of `@app.failed`."""
        self._add_single(injection.FAILED, function)

    def ack_data(self, function: Function) -> Function:
        """Decorator: returns a dict that is attached to every ACK. By name it may take metadata, task_type."""
        self.add_ack_data(function)
        return function

    def add_ack_data(self, function: Callable[..., Any]) -> None:
        """The method twin of `@app.ack_data`."""
        self._add_single(injection.ACK_DATA, function)

    # services ---------------------------------------------------------------------------------------------------------

    @spelt
    def service(
        self, name: str, *, threads: int = 1, idempotent: bool = False, init_timeout: float | None = 60.0
    ) -> Callable[[Function], Function]:
        """Decorator: the function answers the requests for a service; its first parameter is the request.

        By name it may take task_type, thread_index, attempt, resource (of `@app.worker_init(name)`), msgtype.

        Args:
            name: what clients ask for.
            threads: so many threads of each worker process call it at once.
            idempotent: a request whose worker was lost may be given to another one, and so be executed twice.
            init_timeout: seconds that `worker_init` and `thread_init` may take together, as of `@app.worker`.
        """
        task_name(name, "service")

        def register(function: Function) -> Function:
            self.add_service(name, function, threads=threads, idempotent=idempotent, init_timeout=init_timeout)
            return function

        return register

    @spelt
    def add_service(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        threads: int = 1,
        idempotent: bool = False,
        init_timeout: float | None = 60.0,
    ) -> None:
        """The method twin of `@app.service`."""
        if not self._takes("service"):
            return
        entry = service_entry(name, function, threads, idempotent, init_timeout)
        what = f"The service {entry.name!r}"
        add_once(self.registry.services, entry.name, entry, what, lambda one: _label(one.plan))

    def client(self, name: str = "", *, options: Options | None = None) -> ServiceClient:
        """A client of this app's broker, for one service; close it, or use it in a `with` block.

        Raises:
            ConfigurationError: the app has no such service.
        """
        from zmqpipeline.compiling import client_of

        return client_of(self, name, options)

    # classes ----------------------------------------------------------------------------------------------------------

    def register(self, cls: Class) -> Class:
        """Register a Task, Worker, Collector or MetaDataWorker class; returns it, so it may stand as a decorator.

        The addresses that the class declares hold, unless a flag or a variable gives a base address.

        Raises:
            DefinitionError: the class leaves something open; it is a `TypeError`.
            RegistrationError: its place is taken, or it is none of these.
        """
        if self._takes("register"):
            from zmqpipeline.classes import class_entry

            class_entry(self.registry, cls)
        return cls

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
        return self.registry.check(self.name)

    def freeze(self) -> None:
        """End the set-up: from here on every decorator is refused. `check` comes first."""
        self.check()
        self._frozen = True

    def _default_base(self) -> EndpointAddress:
        """The base address where none is given: a private folder of this user, named after the pipeline.

        Of one that is named after its module, each file has a folder of its own: there are many an ``app.py``.
        """
        return default_base(self.name, self._own_file)

    @property
    def _own_file(self) -> str:
        return self.origin.file if self.name == self.import_name else ""

    def places(self, options: Options | None = None) -> Places:
        """The addresses of all roles, under these options (by default those of program and environment)."""
        from zmqpipeline.compiling import places_of

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
        from zmqpipeline.compiling import compile_role

        self.freeze()
        return compile_role(self, role, task_type, options=options, metadata=metadata, threads=threads)

    def test_run(
        self,
        *,
        workers: int | Mapping[str, int] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
        raise_failures: bool = True,
    ) -> TestRun:
        """Run the real roles as threads of this process and return what came of it; see `testrun.run_in_threads`."""
        from zmqpipeline.testrun import run_in_threads

        __tracebackhide__ = True
        return run_in_threads(self, workers=workers, metadata=metadata, timeout=timeout, raise_failures=raise_failures)

    def run(
        self,
        *,
        workers: int | Literal["auto"] | Mapping[str, int | Literal["auto"]] | None = None,
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
                cores for this process, by its affinity and the CPU quota of its control groups.
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
        from zmqpipeline.cli import run_app

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
        from zmqpipeline.cli import main

        main(self, argv)

    # how entries are made ---------------------------------------------------------------------------------------------

    def _takes(self, decorator: str) -> bool:
        """Whether what is registered counts: that of a twin does not, since the started module runs the same line."""
        if is_from_twin(self._home):
            return False
        if self._frozen:
            raise RegistrationError(
                f"The decorator {decorator!r} can no longer be used: pipeline {self.name!r} is already running. "
                "Move it above `app.main()`."
            )
        return True

    def _named(
        self, place: Place, task_type: str, add: Callable[[str, Callable[..., Any]], None]
    ) -> Callable[[Function], Function]:
        task_name(task_type, place.decorator)

        def register(function: Function) -> Function:
            add(task_type, function)
            return function

        return register

    def _add(self, entries: dict[str, Plan], place: Place, task_type: str, function: Callable[..., Any]) -> None:
        if not self._takes(place.decorator):
            return
        name = task_name(task_type, place.decorator)
        what = f"`@app.{place.decorator}({name!r})`"
        add_once(entries, name, plan(function, place, name), what, _label)

    def _add_single(self, place: Place, function: Callable[..., Any]) -> None:
        if not self._takes(place.decorator):
            return
        made = plan(function, place)
        add_once(self.registry.single, place.decorator, made, f"`@app.{place.decorator}`", _label)


def _label(entry: object) -> str:
    return label(entry.function if isinstance(entry, Plan) else entry)
