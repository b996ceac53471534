"""Classes of the class API in a pipeline: from `app.register` to entries of the registry."""

from __future__ import annotations

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions.entries import task_name
from zmqpipeline.definitions.registry import Registry, TaskEntry, WorkerEntry, add_once
from zmqpipeline.definitions.signatures import Handler, label
from zmqpipeline.errors import DefinitionError, RegistrationError
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.roles.attributes import Declarative, require_declared
from zmqpipeline.roles.collector import Collector
from zmqpipeline.roles.metadata import MetaDataWorker
from zmqpipeline.roles.task import Task
from zmqpipeline.roles.worker import Worker


def class_entry(registry: Registry, cls: type) -> None:
    """Put a class of the class API into the registry.

    Raises:
        DefinitionError: it leaves something open; it is a `TypeError`.
        RegistrationError: it is of no known sort, or its place is taken.
    """
    if not (isinstance(cls, type) and issubclass(cls, (Task, Worker, Collector, MetaDataWorker))):
        raise RegistrationError(
            f"app.register takes a subclass of Task, a worker, Collector or MetaDataWorker, not {cls!r}. "
            "For a function use a decorator."
        )
    _require_whole(cls)
    if issubclass(cls, Task):
        _add_task_class(registry, cls)
    elif issubclass(cls, Worker):
        name = task_name(cls.task_type, "register")
        entry = WorkerEntry(name, cls=cls)
        add_once(registry.workers, name, entry, f"The worker of task {name!r}", lambda one: label(_what(one)))
    elif issubclass(cls, Collector):
        if registry.collector_class not in (None, cls):
            raise RegistrationError(f"The pipeline has a collector class already: {label(registry.collector_class)}.")
        registry.collector_class = cls
    else:
        made = Handler(lambda: cls().get_metadata(), (), f"{cls.__name__}.get_metadata")
        add_once(registry.single, "metadata", made, "The metadata", lambda one: one.what)


def _add_task_class(registry: Registry, cls: type[Task]) -> None:
    name = task_name(cls.task_type, "register")
    spec = TaskSpec(name, tuple(str.__str__(one) for one in cls.dependencies))
    entry = TaskEntry(name, spec, cls=cls, endpoint=_endpoint_of(cls))
    add_once(registry.tasks, name, entry, f"Task {name!r}", lambda one: label(_what(one)))


def _endpoint_of(cls: type[Task]) -> EndpointAddress:
    return EndpointAddress(cls.endpoint) if isinstance(cls.endpoint, str) else cls.endpoint


def _what(entry: TaskEntry | WorkerEntry) -> object:
    return entry.cls if entry.plan is None else entry.plan.function


def _require_whole(cls: type[Declarative]) -> None:
    require_declared(cls)
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    if missing:
        raise DefinitionError(
            f"{cls.__name__} does not define {', '.join(missing)}. Write it, then register the class."
        )
