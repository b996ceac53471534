"""The decorators of a pipeline and their method twins: they write down what is to be run, in a registry."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar, overload

from zmqpipeline.definitions import signatures
from zmqpipeline.definitions.entries import (
    check_event_type,
    collector_plan,
    service_entry,
    task_entry,
    task_name,
    worker_entry,
)
from zmqpipeline.definitions.keywords import CollectorKeywords, ServiceKeywords, TaskKeywords, WorkerKeywords, takes
from zmqpipeline.definitions.origin import Original, is_from_twin
from zmqpipeline.definitions.registry import ObserverEntry, Registry, add_once
from zmqpipeline.definitions.signatures import Handler, HandlerKind, all_brief, brief, label, plan
from zmqpipeline.errors import RegistrationError

if TYPE_CHECKING:
    from zmqpipeline.events import Event

    if sys.version_info >= (3, 11):
        from typing import Unpack
    else:
        from typing_extensions import Unpack


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


class _Attrs(Protocol):
    __attrs_attrs__: ClassVar[Any]


class _Struct(Protocol):
    __struct_fields__: ClassVar[tuple[str, ...]]


class _Model(Protocol):
    __pydantic_fields__: ClassVar[dict[str, Any]]


_Record: TypeAlias = Mapping[Any, Any] | tuple[Any, ...] | _Dataclass | _Attrs | _Struct | _Model | None
_Results: TypeAlias = _Record | list[Any]
"""What a worker's function returns; a list, if it has `batch`."""

Function = TypeVar("Function", bound=Callable[..., Any])
_Items: TypeAlias = Iterable[_Record] | AsyncIterable[_Record] | _Record
TaskFunction = TypeVar("TaskFunction", bound="Callable[..., _Items | Awaitable[_Items]]")
WorkerFunction = TypeVar("WorkerFunction", bound="Callable[..., _Results | Awaitable[_Results]]")
MetadataFunction = TypeVar("MetadataFunction", bound="Callable[..., Mapping[Any, Any] | None]")
Class = TypeVar("Class", bound=type)
AnyEvent = TypeVar("AnyEvent", bound="Event")
Result = TypeVar("Result")


class Decorated(Original):
    """What `Pipeline` is registered by. Every decorator returns the function as it was, and has a method twin."""

    name: str
    registry: Registry
    """What is registered, for the compiler and the command line."""

    _frozen: bool

    # tasks ------------------------------------------------------------------------------------------------------------

    @takes(TaskKeywords)
    def task(self, task_type: str, **keywords: Unpack[TaskKeywords]) -> Callable[[TaskFunction], TaskFunction]:
        """Decorator: the function gives the items of a task.

        It may be a generator, return an iterable of dicts, or return one dict or None; an `async def` does the same on
        an event loop of its own. It may be called again, when a
        distributor is started anew in the middle of a run: it must then give the same items in the same order, or, with
        `key`, items with the same keys in any order. By name it may take metadata, task_type, ack_data, address,
        msgtype, with `times` number, and without `times` and `key` start: how many items, from the first on without a
        gap, are done by then; it begins behind these.

        With `for_each` it is called in the collector's process, once for each collected result of these tasks: its
        first parameter is the result, and what it gives are items of this task. None is no item then. By name it may
        take metadata, task_type (of the result), number, attempt, and depth: how many results led to that item.

        Args:
            task_type: the name of the task.
            **keywords: those of `TaskKeywords`.

        Raises:
            RegistrationError: a second function for the task, a bad argument, or a parameter that nobody provides.
        """
        task_name(task_type, "task")

        def register(function: TaskFunction) -> TaskFunction:
            self.add_task(task_type, function, **keywords)
            return function

        return brief(register)

    @takes(TaskKeywords)
    def add_task(
        self, task_type: str, function: Callable[..., Any] | None = None, **keywords: Unpack[TaskKeywords]
    ) -> None:
        """The method twin of `@app.task`, with the same keywords.

        Without a function, with `for_each`, results of those tasks are its items as they are.
        """
        if not self._takes("task"):
            return
        entry = task_entry(task_type, function, **keywords)
        what = f"Task {entry.name!r}"
        add_once(self.registry.tasks, entry.name, entry, what, lambda one: _label(one.plan or one.cls or "no function"))

    def available(self, task_type: str) -> Callable[[Function], Function]:
        """Decorator: ``fn(ack_data) -> bool`` is asked before each item of the task, in the distributor's process.

        With one ACK: that of the last time as long as it returns True; when it returns False, with the next one, once
        with each, in order, until it returns True. ``ack_data`` is what the collector attached to it, with
        ``_task_type`` and ``_id``, the number of items acknowledged by then (0 before the first). By name it may take
        metadata, task_type, address.
        """
        return self._named(signatures.AVAILABLE, task_type, self.add_available)

    def add_available(self, task_type: str, function: Callable[..., Any]) -> None:
        """The method twin of `@app.available`."""
        self._add(self.registry.gates, signatures.AVAILABLE, task_type, function)

    def metadata(self, function: MetadataFunction) -> MetadataFunction:
        """Decorator: returns the run's metadata, a dict; the distributor calls it once, before the first item."""
        self.add_metadata(function)
        return function

    def add_metadata(self, function: Callable[..., Any]) -> None:
        """The method twin of `@app.metadata`."""
        self._add_single(signatures.METADATA, function)

    # workers ----------------------------------------------------------------------------------------------------------

    @takes(WorkerKeywords)
    def worker(self, task_type: str, **keywords: Unpack[WorkerKeywords]) -> Callable[[WorkerFunction], WorkerFunction]:
        """Decorator: the function executes one item of the task, its first parameter, and returns the result, a dict.

        Both may be records: what the parameter is annotated with, a dataclass for example, is what it is called with.

        With `batch` it takes a list of items and returns a list of results; by name it may take numbers, not number.

        An `async def` is awaited on the event loop of one thread of each worker process, so many calls at a time as
        `concurrency` says. A call that runs past the task's `timeout` is cancelled, and so are those that still go on
        when the process ends at once.

        By name it may take metadata, task_type, thread_index, number, attempt, resource.

        Args:
            task_type: the task.
            **keywords: those of `WorkerKeywords`.
        """
        task_name(task_type, "worker")

        def register(function: WorkerFunction) -> WorkerFunction:
            self.add_worker(task_type, function, **keywords)
            return function

        return brief(register)

    @takes(WorkerKeywords)
    def add_worker(self, task_type: str, function: Callable[..., Any], **keywords: Unpack[WorkerKeywords]) -> None:
        """The method twin of `@app.worker`, with the same keywords."""
        if not self._takes("worker"):
            return
        entry = worker_entry(task_type, function, **keywords)
        what = f"The worker of task {entry.name!r}"
        add_once(self.registry.workers, entry.name, entry, what, lambda one: _label(one.plan or one.cls))

    def worker_init(self, task_type: str) -> Callable[[Function], Function]:
        """Decorator: runs once in each worker process, just before its first item; it returns the `resource`.

        That of an async worker may be an `async def`, too, and is called on its event loop in any case. It may be a
        generator: what it yields is the resource, and what follows closes it when the process ends in good order.
        By name it may take metadata, task_type.
        """
        return self._named(signatures.WORKER_INIT, task_type, self.add_worker_init)

    def add_worker_init(self, task_type: str, function: Callable[..., Any]) -> None:
        """The method twin of `@app.worker_init`."""
        self._add(self.registry.worker_inits, signatures.WORKER_INIT, task_type, function)

    def thread_init(self, task_type: str) -> Callable[[Function], Function]:
        """Decorator: runs once in each thread before its first item; what it returns is that thread's `resource`.

        It may be a generator, as that of `worker_init`, and is closed on its thread.
        By name it may take metadata, task_type, thread_index, and resource, which is that of `worker_init`.
        """
        return self._named(signatures.THREAD_INIT, task_type, self.add_thread_init)

    def add_thread_init(self, task_type: str, function: Callable[..., Any]) -> None:
        """The method twin of `@app.thread_init`."""
        self._add(self.registry.thread_inits, signatures.THREAD_INIT, task_type, function)

    # the collector ----------------------------------------------------------------------------------------------------

    @overload
    def collector(self, task_type: Function) -> Function: ...

    @overload
    def collector(
        self, task_type: str | None = None, **keywords: Unpack[CollectorKeywords]
    ) -> Callable[[Function], Function]: ...

    @takes(CollectorKeywords)
    def collector(self, task_type: Any = None, **keywords: Unpack[CollectorKeywords]) -> Any:
        """Decorator: the function takes each result. ``@app.collector`` for all tasks, ``@app.collector("C")`` for one.

        The one for a task wins over the one for all. A dict that it returns is attached to the next ACK. By name it may
        take metadata, task_type, number, attempt, msgtype, and journal: the open transaction of the run's journal, in
        which what it writes is committed together with the mark that the item is collected.

        Args:
            task_type: the task; None for all.
            **keywords: those of `CollectorKeywords`.
        """
        if callable(task_type):
            self.add_collector(task_type)
            return task_type

        def register(function: Function) -> Function:
            self.add_collector(function, task_type, **keywords)
            return function

        return brief(register)

    @takes(CollectorKeywords)
    def add_collector(
        self, function: Callable[..., Any], task_type: str | None = None, **keywords: Unpack[CollectorKeywords]
    ) -> None:
        """The method twin of `@app.collector`, with the same keywords; without a task it is for all."""
        if not self._takes("collector"):
            return
        name = "" if task_type is None else task_name(task_type, "collector")
        made = collector_plan(function, name, **keywords)
        what = f"`@app.collector({name!r})`" if name else "The collector"
        add_once(self.registry.collectors, name, made, what, _label)

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
        self._add_single(signatures.FINISHED, function)

    def failed(self, function: Function) -> Function:
        """Decorator: is called in the collector with the `Failure` of each item that was given up.

        By name it may take metadata, task_type, and journal, as `@app.collector` has it.
        """
        self.add_failed(function)
        return function

    def add_failed(self, function: Callable[..., Any]) -> None:
        """The method twin of `@app.failed`."""
        self._add_single(signatures.FAILED, function)

    def ack_data(self, function: Function) -> Function:
        """Decorator: returns a dict that is attached to every ACK. By name it may take metadata, task_type."""
        self.add_ack_data(function)
        return function

    def add_ack_data(self, function: Callable[..., Any]) -> None:
        """The method twin of `@app.ack_data`."""
        self._add_single(signatures.ACK_DATA, function)

    # services ---------------------------------------------------------------------------------------------------------

    @takes(ServiceKeywords)
    def service(self, name: str, **keywords: Unpack[ServiceKeywords]) -> Callable[[Function], Function]:
        """Decorator: the function answers the requests for a service; its first parameter is the request.

        By name it may take task_type, thread_index, attempt, resource (of `@app.worker_init(name)`), msgtype.

        Args:
            name: what clients ask for.
            **keywords: those of `ServiceKeywords`.
        """
        task_name(name, "service")

        def register(function: Function) -> Function:
            self.add_service(name, function, **keywords)
            return function

        return brief(register)

    @takes(ServiceKeywords)
    def add_service(self, name: str, function: Callable[..., Any], **keywords: Unpack[ServiceKeywords]) -> None:
        """The method twin of `@app.service`, with the same keywords."""
        if not self._takes("service"):
            return
        entry = service_entry(name, function, **keywords)
        what = f"The service {entry.name!r}"
        add_once(self.registry.services, entry.name, entry, what, lambda one: _label(one.plan))

    # observers --------------------------------------------------------------------------------------------------------

    def on(self, event_type: type[AnyEvent]) -> Callable[[Callable[[AnyEvent], Result]], Callable[[AnyEvent], Result]]:
        """Decorator: the function is called with each event of this type, beside the run; see `zmqpipeline.events`.

        Each role calls it in its own process, on a thread of its own, once for many items. `Event` stands for all
        types. There may be several functions for one type. What one raises is logged, and nothing else.

        Raises:
            RegistrationError: that is no type of event, or the function takes other parameters.
        """
        check_event_type(event_type)

        def register(function: Callable[[AnyEvent], Result]) -> Callable[[AnyEvent], Result]:
            self.add_on(event_type, function)
            return function

        return brief(register)

    def add_on(self, event_type: type[AnyEvent], function: Callable[[AnyEvent], Any]) -> None:
        """The method twin of `@app.on`."""
        check_event_type(event_type)
        if self._takes("on"):
            self.registry.add_observer(ObserverEntry(event_type, plan(function, signatures.ON)))

    # classes ----------------------------------------------------------------------------------------------------------

    def register(self, cls: Class) -> Class:
        """Register a Task, Worker, Collector or MetaDataWorker class; returns it, so it may stand as a decorator.

        The addresses that the class declares hold, unless a flag or a variable gives a base address. Each role makes an
        object of its class, without arguments.

        Raises:
            DefinitionError: the class leaves something open; it is a `TypeError`.
            RegistrationError: its place is taken, or it is none of these.
        """
        if self._takes("register"):
            from zmqpipeline.definitions.classes import class_entry

            class_entry(self.registry, cls)
        return cls

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
        self, place: HandlerKind, task_type: str, add: Callable[[str, Callable[..., Any]], None]
    ) -> Callable[[Function], Function]:
        task_name(task_type, place.decorator)

        def register(function: Function) -> Function:
            add(task_type, function)
            return function

        return brief(register)

    def _add(
        self, entries: dict[str, Handler], place: HandlerKind, task_type: str, function: Callable[..., Any]
    ) -> None:
        if not self._takes(place.decorator):
            return
        name = task_name(task_type, place.decorator)
        what = f"`@app.{place.decorator}({name!r})`"
        add_once(entries, name, plan(function, place, name), what, _label)

    def _add_single(self, place: HandlerKind, function: Callable[..., Any]) -> None:
        if not self._takes(place.decorator):
            return
        made = plan(function, place)
        add_once(self.registry.single, place.decorator, made, f"`@app.{place.decorator}`", _label)


all_brief(Decorated)


def _label(entry: object) -> str:
    return label(entry.function if isinstance(entry, Handler) else entry)
