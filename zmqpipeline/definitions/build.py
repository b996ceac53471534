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
from zmqpipeline.definitions.instances import instance
from zmqpipeline.definitions.registry import ServiceEntry, TaskEntry, WorkerEntry, listed, unknown_task
from zmqpipeline.definitions.signatures import Handler
from zmqpipeline.errors import ConfigurationError, did_you_mean
from zmqpipeline.options import Options
from zmqpipeline.protocol.delivery.stages import inner_stages
from zmqpipeline.roles.runner import RunnerSettings
from zmqpipeline.runtime.error_text import named
from zmqpipeline.serialization.pack import METADATA_BYTES, pack_aside

if TYPE_CHECKING:
    from zmqpipeline.app import Pipeline
    from zmqpipeline.events import Event, Observer
    from zmqpipeline.roles.async_client import AsyncServiceClient
    from zmqpipeline.roles.client import ServiceClient
    from zmqpipeline.roles.collecting import Stages
    from zmqpipeline.roles.collector import Collector
    from zmqpipeline.roles.distributor import Distributor
    from zmqpipeline.roles.service import Service, ServiceWorker
    from zmqpipeline.roles.sources import ItemSource
    from zmqpipeline.roles.worker import Worker
    from zmqpipeline.runtime.threads.event_loop import EventLoopThread

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
    settings = RunnerSettings(options, places, app.name, app.command, _observers(app))
    if role == "service":
        return _service(settings, places)
    if role == "service-worker":
        return _service_worker(app, _service_entry(app, task_type), settings, places, threads)
    if not app.registry.tasks:
        raise ConfigurationError(f"Pipeline {app.name!r} has services but no tasks, so there is no {role}.")
    if role == "distributor":
        return _distributor(app, settings, places, metadata or {})
    if role == "collector":
        return _collector(app, settings, places)
    return _worker(app, _worker_entry(app, task_type), settings, places, threads)


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
    base = options.endpoint or app.default_base
    own = {name: entry.endpoint for name, entry in registry.tasks.items()}
    places = places_under(base, own)
    collector = registry.collector_class
    if collector is None:
        return places
    return replace(places, results=EndpointAddress(collector.endpoint), acks=EndpointAddress(collector.ack_endpoint))


def _settled(app: Pipeline, options: Options | None) -> Options:
    return Options.from_environ(app.options, os.environ) if options is None else options


def _observers(app: Pipeline) -> tuple[tuple[type[Event], Observer], ...]:
    return tuple((one.event_type, one.plan.function) for one in app.registry.observers.values())


def _distributor(
    app: Pipeline, settings: RunnerSettings, places: RoleAddresses, extra: Mapping[str, Any]
) -> Distributor:
    from zmqpipeline.roles.distributor import Distributor, DistributorRunner

    sources = [_source(app, entry, places.tasks[name]) for name, entry in app.registry.tasks.items()]
    made = Distributor(places.results, places.acks)
    # `given` is for when it takes over a run that has its metadata already
    DistributorRunner(made, settings, sources=sources, metadata=_metadata_source(app, extra), given=dict(extra))
    return made


def _source(app: Pipeline, entry: TaskEntry, endpoint: EndpointAddress) -> ItemSource:
    if entry.cls is None:
        from zmqpipeline.definitions.functions.task import FunctionSource

        return FunctionSource(entry, endpoint, app.registry.gates.get(entry.name))
    from zmqpipeline.roles.task import ClassSource

    return ClassSource(instance(entry.cls), endpoint)


def _metadata_source(app: Pipeline, extra: Mapping[str, Any]) -> Callable[[], dict[str, Any]] | None:
    plan = app.registry.single.get("metadata")
    if plan is None:
        return (lambda: dict(extra)) if extra else None

    def source() -> dict[str, Any]:
        made = plan.function()
        pack_aside(made, f"The {named(plan.what, plan.function)}", METADATA_BYTES)
        return {**(made or {}), **extra}

    return source


def _collector(app: Pipeline, settings: RunnerSettings, places: RoleAddresses) -> Collector:
    from zmqpipeline.roles.collector import CollectorRunner

    cls = app.registry.collector_class
    if cls is None:
        from zmqpipeline.definitions.functions.collector import FunctionCollector
        from zmqpipeline.runtime.threads.event_loop import EventLoopThread

        inner = inner_stages(entry.spec for entry in app.registry.tasks.values())
        # what one async function has opened, another one may use
        loop = EventLoopThread("zmqpipeline-async-collect")
        registry = app.registry
        made = FunctionCollector(places.results, places.acks, registry.collectors, registry.single, inner, loop)
        CollectorRunner(made, settings, handler=made.handler, stages=_stages(app, loop))
        return made
    collector = instance(cls)
    CollectorRunner(collector, settings, stages=_stages(app))
    return collector


def _stages(app: Pipeline, loop: EventLoopThread | None = None) -> Stages | None:
    """How results become items of other tasks, if they do."""
    if not any(entry.spec.for_each for entry in app.registry.tasks.values()):
        return None
    from zmqpipeline.definitions.functions.feeding import FunctionStages

    return FunctionStages(app.registry.tasks, loop)


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


def _worker(
    app: Pipeline, entry: WorkerEntry, settings: RunnerSettings, places: RoleAddresses, threads: int | None
) -> Worker:
    from zmqpipeline.roles.worker import MultiThreadedWorker, WorkerRunner

    _refuse_threads(entry.plan, threads)
    if entry.cls is None:
        from zmqpipeline.definitions.functions.worker import FunctionWorker

        inits = app.registry.worker_inits.get(entry.name), app.registry.thread_inits.get(entry.name)
        made = FunctionWorker(entry, places.tasks[entry.name], places.results, *inits)
        WorkerRunner(made, settings, handler=made.handler, threads=threads)
        return made
    worker = instance(entry.cls)
    if threads not in (None, 1) and not isinstance(worker, MultiThreadedWorker):
        raise ConfigurationError(f"{entry.cls.__name__} is a SingleThreadedWorker; it has one thread, not {threads}.")
    WorkerRunner(worker, settings, threads=threads)
    return worker


def _refuse_threads(plan: Handler | None, threads: int | None) -> None:
    if threads is not None and plan is not None and plan.is_async:
        raise ConfigurationError(
            f"The {plan.what} is an async function: its calls share one thread, not {threads}. How many go on at a "
            "time its decorator says, with concurrency=. Take threads away."
        )


def _service_entry(app: Pipeline, name: str | None) -> ServiceEntry:
    services = app.registry.services
    known = f"Known: {listed(services)}."

    def unknown(name: str) -> str:
        return f"There is no service {name!r}. {known}{did_you_mean(name, services)}"

    return _chosen(services, name, f"Say for which service. {known}", unknown)


def _service(settings: RunnerSettings, places: RoleAddresses) -> Service:
    from zmqpipeline.roles.service import Service, ServiceRunner

    made = Service(places.clients, places.service_workers)
    ServiceRunner(made, settings)
    return made


def _service_worker(
    app: Pipeline, entry: ServiceEntry, settings: RunnerSettings, places: RoleAddresses, threads: int | None
) -> ServiceWorker:
    from zmqpipeline.definitions.functions.service import FunctionServiceWorker
    from zmqpipeline.roles.service import ServiceWorkerRunner

    inits = app.registry.worker_inits.get(entry.name), app.registry.thread_inits.get(entry.name)
    _refuse_threads(entry.plan, threads)
    made = FunctionServiceWorker(entry, places.service_workers, *inits)
    ServiceWorkerRunner(made, settings, handler=made.handler, threads=threads)
    return made


def client_of(app: Pipeline, name: str, options: Options | None) -> ServiceClient:
    """See `Pipeline.client`."""
    from zmqpipeline.roles.client import ServiceClient

    options = _client_options(app, name, options)
    return ServiceClient(places_of(app, options).clients, name, options=options)


def async_client_of(app: Pipeline, name: str, options: Options | None) -> AsyncServiceClient:
    """See `Pipeline.async_client`."""
    from zmqpipeline.roles.async_client import AsyncServiceClient

    options = _client_options(app, name, options)
    return AsyncServiceClient(places_of(app, options).clients, name, options=options)


def _client_options(app: Pipeline, name: str, options: Options | None) -> Options:
    if name:
        _service_entry(app, name)
    return _settled(app, options)
