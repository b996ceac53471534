"""From what is registered with an app to the roles of the class API.

What a role is made of is imported when it is compiled: a process has one role as a rule, and the modules of the others
would take a fifth of the time in which it starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from zmqpipeline.addresses import EndpointAddress, RoleAddresses, make_folder, places_under
from zmqpipeline.definitions.registry import ServiceEntry, TaskEntry, WorkerEntry, listed, unknown_task
from zmqpipeline.errors import ConfigurationError, did_you_mean
from zmqpipeline.options import Options
from zmqpipeline.protocol.delivery.stages import inner_stages
from zmqpipeline.roles.base import Role
from zmqpipeline.runtime.error_text import named
from zmqpipeline.serialization.pack import METADATA_BYTES, pack_aside

if TYPE_CHECKING:
    from zmqpipeline.app import Pipeline
    from zmqpipeline.roles.client import ServiceClient
    from zmqpipeline.roles.collector import Collector
    from zmqpipeline.roles.distributor import Distributor
    from zmqpipeline.roles.service import Service, ServiceWorker
    from zmqpipeline.roles.task import Task
    from zmqpipeline.roles.worker import Worker

AnyRole = TypeVar("AnyRole", bound=Role)
AnyEntry = TypeVar("AnyEntry", WorkerEntry, ServiceEntry)

ROLES = ("distributor", "worker", "collector", "service", "service-worker")


def compile_role(
    app: Pipeline,
    role: str,
    task_type: str | None,
    *,
    options: Options | None,
    metadata: Mapping[str, Any] | None,
    threads: int | None,
) -> Distributor | Worker | Collector | Service | ServiceWorker:
    """See `Pipeline.compile`."""
    options = _settled(app, options)
    if role not in ROLES:
        hint = did_you_mean(str(role), ROLES)
        raise ConfigurationError(f"There is no role {role!r}. Known: {listed(ROLES)}.{hint}")
    _refuse_extra(role, task_type, metadata, threads)
    places = places_of(app, options)
    make_folder(places.base)
    if role == "service":
        from zmqpipeline.roles.service import Service

        return _ready(Service(places.clients, places.service_workers), app, options)
    if role == "service-worker":
        return _ready(_service_worker(app, _service_entry(app, task_type), places, threads), app, options)
    if not app.registry.tasks:
        raise ConfigurationError(f"Pipeline {app.name!r} has services but no tasks, so there is no {role}.")
    if role == "distributor":
        return _ready(_distributor(app, places, metadata or {}), app, options)
    if role == "collector":
        return _ready(_with_stages(_collector(app, places), app), app, options)
    return _ready(_worker(app, _worker_entry(app, task_type), places, threads), app, options)


def _refuse_extra(role: str, task_type: str | None, metadata: Mapping[str, Any] | None, threads: int | None) -> None:
    if role not in ("worker", "service-worker") and (task_type is not None or threads is not None):
        raise ConfigurationError(f"A {role} takes neither task_type nor threads: it serves all tasks.")
    if role != "distributor" and metadata:
        raise ConfigurationError(
            f"A {role} takes no metadata: it gets them from the distributor. Give them to that one."
        )


def places_of(app: Pipeline, options: Options | None = None) -> RoleAddresses:
    """The addresses of an app's roles.

    An address that a flag or a variable gives beats those that the program gives, to the app, a task or a class.
    """
    options = _settled(app, options)
    registry = app.registry
    if options.endpoint is not None and options.endpoint != app.options.endpoint:
        return places_under(options.endpoint, dict.fromkeys(registry.tasks))
    base = options.endpoint or app._default_base()
    own = {name: entry.endpoint for name, entry in registry.tasks.items()}
    places = places_under(base, own)
    collector = registry.collector_class
    if collector is None:
        return places
    return replace(places, results=EndpointAddress(collector.endpoint), acks=EndpointAddress(collector.ack_endpoint))


def _settled(app: Pipeline, options: Options | None) -> Options:
    return Options.from_environ(app.options, os.environ) if options is None else options


def _ready(role: AnyRole, app: Pipeline, options: Options) -> AnyRole:
    role._options = options
    role._pipeline = app.name
    role._command = app._command
    role._subscriptions = tuple((one.event_type, one.plan.function) for one in app.registry.observers.values())
    return role


def _distributor(app: Pipeline, places: RoleAddresses, extra: Mapping[str, Any]) -> Distributor:
    from zmqpipeline.roles.distributor import Distributor

    tasks = [_task(app, entry, places.tasks[name]) for name, entry in app.registry.tasks.items()]
    made = Distributor(places.results, places.acks, _tasks=tasks, _metadata=_metadata_source(app, extra))
    # for when it takes over a run that has its metadata already
    made._given_metadata = dict(extra)
    made._status_place = places.status
    return made


def _task(app: Pipeline, entry: TaskEntry, endpoint: EndpointAddress) -> Task:
    if entry.cls is None:
        from zmqpipeline.definitions.functions.task import FunctionTask

        return FunctionTask(entry, endpoint, app.registry.gates.get(entry.name))
    task: Task = entry.cls()
    task._addresses["workers"] = endpoint
    return task


def _metadata_source(app: Pipeline, extra: Mapping[str, Any]) -> Callable[[], dict[str, Any]] | None:
    plan = app.registry.single.get("metadata")
    if plan is None:
        return (lambda: dict(extra)) if extra else None

    def source() -> dict[str, Any]:
        made = plan.function()
        pack_aside(made, f"The {named(plan.what, plan.function)}", METADATA_BYTES)
        return {**(made or {}), **extra}

    return source


def _collector(app: Pipeline, places: RoleAddresses) -> Collector:
    cls = app.registry.collector_class
    if cls is None:
        from zmqpipeline.definitions.functions.collector import FunctionCollector

        inner = inner_stages(entry.spec for entry in app.registry.tasks.values())
        return FunctionCollector(places.results, places.acks, app.registry.collectors, app.registry.single, inner)
    collector: Collector = cls()
    collector._addresses.update(results=places.results, acks=places.acks)
    return collector


def _with_stages(collector: Collector, app: Pipeline) -> Collector:
    if any(entry.spec.for_each for entry in app.registry.tasks.values()):
        from zmqpipeline.definitions.functions.feeding import FunctionStages

        collector._stages = FunctionStages(app.registry.tasks)
    return collector


def _chosen(entries: Mapping[str, AnyEntry], name: str | None, several: str, unknown: Callable[[str], str]) -> AnyEntry:
    """The entry of this name, or the only one there is; else ConfigurationError says `several`, or `unknown(name)`."""
    if name is None and len(entries) == 1:
        return next(iter(entries.values()))
    if name is None:
        raise ConfigurationError(several)
    entry = entries.get(str(name))
    if entry is None:
        raise ConfigurationError(unknown(str(name)))
    return entry


def _worker_entry(app: Pipeline, task_type: str | None) -> WorkerEntry:
    workers = app.registry.workers
    several = f"There are several workers: {listed(workers)}. Say for which task."
    return _chosen(workers, task_type, several, lambda name: unknown_task(f"The task {task_type!r}", workers, name))


def _worker(app: Pipeline, entry: WorkerEntry, places: RoleAddresses, threads: int | None) -> Worker:
    from zmqpipeline.definitions.functions.worker import FunctionWorker
    from zmqpipeline.roles.worker import MultiThreadedWorker

    inits = app.registry.worker_inits.get(entry.name), app.registry.thread_inits.get(entry.name)
    if entry.cls is None:
        worker: Worker = FunctionWorker(entry, places.tasks[entry.name], places.results, *inits)
    else:
        worker = entry.cls()
        worker._addresses.update(workers=places.tasks[entry.name], results=places.results)
        if threads not in (None, 1) and not isinstance(worker, MultiThreadedWorker):
            raise ConfigurationError(
                f"{entry.cls.__name__} is a SingleThreadedWorker; it has one thread, not {threads}."
            )
    if threads is not None:
        worker._threads = threads
    return worker


def _service_entry(app: Pipeline, name: str | None) -> ServiceEntry:
    services = app.registry.services
    known = f"Known: {listed(services)}."

    def unknown(name: str) -> str:
        return f"There is no service {name!r}. {known}{did_you_mean(name, services)}"

    return _chosen(services, name, f"Say for which service. {known}", unknown)


def _service_worker(app: Pipeline, entry: ServiceEntry, places: RoleAddresses, threads: int | None) -> ServiceWorker:
    from zmqpipeline.definitions.functions.service import FunctionServiceWorker

    inits = app.registry.worker_inits.get(entry.name), app.registry.thread_inits.get(entry.name)
    worker = FunctionServiceWorker(entry, places.service_workers, *inits)
    if threads is not None:
        worker._threads = threads
    return worker


def client_of(app: Pipeline, name: str, options: Options | None) -> ServiceClient:
    """See `Pipeline.client`."""
    from zmqpipeline.roles.client import ServiceClient

    if name:
        _service_entry(app, name)
    options = _settled(app, options)
    return ServiceClient(places_of(app, options).clients, name, options=options)
