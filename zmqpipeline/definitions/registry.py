"""What is registered with a pipeline: one entry for each decorated function or class, and the rules between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from typing import TYPE_CHECKING, Any, TypeVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions.keywords import ServiceKeywords, TaskKeywords, WorkerKeywords, defaults
from zmqpipeline.definitions.signatures import Handler
from zmqpipeline.definitions.stages import check_stages
from zmqpipeline.errors import RegistrationError, did_you_mean
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.delivery.dependencies import TaskSpec, order
from zmqpipeline.runtime.error_text import named

if TYPE_CHECKING:
    from zmqpipeline.events import Event
    from zmqpipeline.roles.collector import Collector
    from zmqpipeline.roles.task import Task
    from zmqpipeline.roles.worker import Worker


@dataclass(frozen=True)
class TaskEntry:
    """A task: a function with its keywords, or a class."""

    name: str
    spec: TaskSpec
    plan: Handler | None = None
    cls: type[Task] | None = None
    endpoint: EndpointAddress | None = None
    keywords: TaskKeywords = field(default_factory=lambda: defaults(TaskKeywords))
    first: Handler | None = None
    """Of one that results feed: what gives its own first items.

    `plan` is then called for each result; None: a result is an item as it is.
    """
    module: str = ""
    """Where it was added, if it has no function."""


@dataclass(frozen=True)
class WorkerEntry:
    """The worker of a task: a function with its keywords, or a class."""

    name: str
    plan: Handler | None = None
    cls: type[Worker] | None = None
    keywords: WorkerKeywords = field(default_factory=lambda: defaults(WorkerKeywords))


@dataclass(frozen=True)
class ServiceEntry:
    """A service: the function that answers, with its keywords."""

    name: str
    plan: Handler
    keywords: ServiceKeywords


@dataclass(frozen=True)
class ObserverEntry:
    """An observer: which events it is called with, and the function."""

    event_type: type[Event]
    plan: Handler


@dataclass(frozen=False)
class Registry:
    """Everything that is registered with one pipeline. Keys are task types."""

    tasks: dict[str, TaskEntry] = field(default_factory=dict)
    workers: dict[str, WorkerEntry] = field(default_factory=dict)
    services: dict[str, ServiceEntry] = field(default_factory=dict)
    worker_inits: dict[str, Handler] = field(default_factory=dict)
    thread_inits: dict[str, Handler] = field(default_factory=dict)
    gates: dict[str, Handler] = field(default_factory=dict)
    collectors: dict[str, Handler] = field(default_factory=dict)
    """The collector for all other tasks has the key ""."""
    single: dict[str, Handler] = field(default_factory=dict)
    """Those of which there is one: finished, failed, ack_data, metadata."""
    collector_class: type[Collector] | None = None
    observers: dict[str, ObserverEntry] = field(default_factory=dict)
    """By numbers: there may be several for one kind of event."""

    def check(self, pipeline: str) -> list[str]:
        """The task types in an order that honours depends_on.

        Raises:
            RegistrationError: there is no task, a task has no worker, or something is for a task that is none.
            DependencyError: a dependency is unknown or goes in a circle.
        """
        self._check_names()
        self._check_types()
        if not self.tasks and self.services:
            return []
        if not self.tasks:
            raise RegistrationError(
                f"Pipeline {pipeline!r} has no tasks. Add a function with `@app.task('NAME')` above this call, "
                "or check that the module which adds them is imported."
            )
        specs = {name: entry.spec for name, entry in self.tasks.items()}
        check_stages(
            specs,
            keyed=[name for name, entry in self.tasks.items() if entry.keywords["key"] is not None],
            rooted=[name for name, entry in self.tasks.items() if entry.first is not None],
            gates=self.gates,
        )
        ordered = order(specs.values())
        for name in ordered:
            if name not in self.workers:
                what = named(f"task {name!r}", _function_of(self.tasks[name]))
                raise RegistrationError(_no_worker(what, name, self.workers))
        return ordered

    def add_observer(self, entry: ObserverEntry) -> None:
        """Put one beside the others."""
        self.observers[str(1 + max(map(int, self.observers), default=0))] = entry

    def modules(self) -> list[str]:
        """The modules of all functions and classes that are registered, in the order of their names."""
        found = {_module_of(entry) for entries in self._places() for entry in entries.values()}
        if self.collector_class is not None:
            found.add(self.collector_class.__module__)
        return sorted(name for name in found if name)

    def _places(self) -> tuple[dict[str, Any], ...]:
        return (
            *(self.tasks, self.workers, self.services, self.worker_inits, self.thread_inits),
            *(self.gates, self.collectors, self.single, self.observers),
        )

    def forget(self, module: str) -> None:
        """Take out what was registered with functions and classes of this module."""
        for entries in self._places():
            for name in [name for name, entry in entries.items() if _module_of(entry) == module]:
                del entries[name]
        if self.collector_class is not None and self.collector_class.__module__ == module:
            self.collector_class = None

    def _check_names(self) -> None:
        for decorator, names in (
            ("worker", self.workers),
            ("worker_init", self.worker_inits),
            ("thread_init", self.thread_inits),
            ("available", self.gates),
            ("collector", self.collectors),
        ):
            for name in names:
                if name and name not in self.tasks and not (name in self.services and decorator.endswith("_init")):
                    what = named(f"`@app.{decorator}({name!r})`", _function_of(names[name]))
                    raise RegistrationError(unknown_task(f"{what} is for a task that", self.tasks, name))
        for decorator, inits in (("worker_init", self.worker_inits), ("thread_init", self.thread_inits)):
            for name in inits:
                self._check_init(decorator, name)
        for name in self.gates:
            if self.tasks[name].cls is not None:
                raise RegistrationError(_two_ways("available", name, "is_available_for_handling"))
        if self.collector_class is not None and (
            self.collectors or {"finished", "failed", "ack_data"} & set(self.single)
        ):
            raise RegistrationError(
                f"The pipeline has the collector class {self.collector_class.__name__}, and functions for a collector. "
                "Take the functions out, or write the class as functions."
            )

    def _check_types(self) -> None:
        """What functions are annotated with can be sent: that is looked at when all modules are imported."""
        plans = [entry.plan for entries in (self.tasks, self.workers, self.services) for entry in entries.values()]
        for one in (*plans, *self.collectors.values()):
            if one is not None:
                one.convert  # noqa: B018 - it raises
                one.convert_second  # noqa: B018 - likewise

    def _check_init(self, decorator: str, name: str) -> None:
        worker = self.workers.get(name)
        if worker is not None and worker.cls is not None:
            raise RegistrationError(_two_ways(decorator, name, "init_worker or init_thread"))
        init = (self.worker_inits if decorator == "worker_init" else self.thread_inits)[name]
        for user in (worker, self.services.get(name)):
            if user is not None and user.plan is not None and init.is_async and not user.plan.is_async:
                raise RegistrationError(
                    f"The {init.what} is an async function, and the {user.plan.what} is a plain one, which has no "
                    "event loop. Write both with `async def`, or both with `def`."
                )


Value = TypeVar("Value")


def add_once(entries: dict[str, Value], key: str, value: Value, what: str, name: Callable[[Value], str]) -> None:
    """Put an entry in its place.

    Raises:
        RegistrationError: the place is taken; the message names both.
    """
    other = entries.setdefault(key, value)
    if other is not value:
        raise RegistrationError(
            f"{what} has two functions: {name(other)!r} and {name(value)!r}. "
            "There is room for one: remove the other, or give it another task."
        )


def _module_of(entry: Any) -> str:
    """Where the function or class of an entry was defined; of a task without a function, where it was added."""
    return str(getattr(_function_of(entry), "__module__", "") or getattr(entry, "module", ""))


def _function_of(entry: Any) -> Any:
    made = entry if isinstance(entry, Handler) else entry.plan or entry.cls
    return made.function if isinstance(made, Handler) else made


def unknown_task(beginning: str, known: Iterable[str], name: str) -> str:
    """The sentence for a name that is no task."""
    names = sorted(known)
    return f"{beginning} does not exist. Known: {listed(names)}.{did_you_mean(name, names)}"


def listed(names: Iterable[str]) -> str:
    """Names as a sentence shows them."""
    return ", ".join(repr(name) for name in names) or "none"


def _no_worker(what: str, name: str, workers: Iterable[str]) -> str:
    return (
        f"No worker for {what}. Known: {listed(sorted(workers))}. "
        f"Add a function with `@app.worker({name!r})`, or check the spelling."
    )


def _two_ways(decorator: str, name: str, method: str) -> str:
    return f"`@app.{decorator}({name!r})` is for a class that is registered. Write {method} in that class."
