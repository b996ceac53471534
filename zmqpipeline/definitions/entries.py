"""From the arguments of a decorator to an entry of the registry: what each keyword does."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions import signatures
from zmqpipeline.definitions.keywords import (
    CollectorKeywords,
    ServiceKeywords,
    TaskKeywords,
    WorkerKeywords,
    checked,
)
from zmqpipeline.definitions.registry import ServiceEntry, TaskEntry, WorkerEntry
from zmqpipeline.definitions.signatures import Handler, plan
from zmqpipeline.errors import RegistrationError
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.roles.attributes import per_second
from zmqpipeline.roles.task_type import TaskType

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from typing import Unpack
    else:
        from typing_extensions import Unpack


def task_name(task_type: object, decorator: str) -> str:
    """A task type as a decorator got it, registered as a TaskType.

    Raises:
        RegistrationError: it is no string, or an empty one.
    """
    if callable(task_type):
        raise RegistrationError(f"`@app.{decorator}` needs the name of a task: write `@app.{decorator}('NAME')`.")
    if not isinstance(task_type, str) or not task_type:
        raise RegistrationError(f"`@app.{decorator}` needs the name of a task, a string, not {task_type!r}.")
    name = str.__str__(task_type)
    TaskType.register_type(name)
    return name


def task_entry(task_type: str, function: Callable[..., Any] | None, **given: Unpack[TaskKeywords]) -> TaskEntry:
    """The entry of `@app.task`. Without a function, results of other tasks are its items as they are.

    Raises:
        RegistrationError: an argument is wrong, or the function takes what nobody provides.
        EndpointError: the task's own address is malformed.
    """
    name = task_name(task_type, "task")
    keywords = checked(TaskKeywords, given, f"Task {name!r}")
    times, total, key, endpoint = keywords["times"], keywords["total"], keywords["key"], keywords["endpoint"]
    spec = TaskSpec(
        name,
        depends_on=tuple(keywords["depends_on"]),
        retries=keywords["retries"],
        backoff=float(keywords["backoff"]),
        timeout=keywords["timeout"] or None,
        crash_limit=keywords["crash_limit"],
        on_failed=keywords["on_failed"],
        total=times if total is None else total,
        keyed=key is not None and not keywords["for_each"],
        for_each=tuple(keywords["for_each"]),
        gather=str.__str__(keywords["gather"] or ""),
        rate=None if keywords["rate"] is None else per_second(keywords["rate"]),
        rate_by=keywords["rate_by"],
        limit=keywords["limit"],
    )
    if spec.rate_by is not None and (spec.rate is None or not spec.for_each):
        lacks = "rate=" if spec.rate is None else "for_each="
        raise RegistrationError(
            f"Task {name!r} has rate_by={spec.rate_by!r} without {lacks}. A rate for each value of a field is for "
            f"items that results give: @app.task({name!r}, for_each=..., rate='1/s', rate_by={spec.rate_by!r}). A task "
            "with a source has one rate for all."
        )
    place = None if endpoint is None else EndpointAddress(endpoint)
    if spec.gather and (function is None or not spec.for_each):
        lacks = "no function" if spec.for_each else "no for_each="
        raise RegistrationError(
            f"Task {name!r} has gather= and {lacks}. With for_each='B', gather={spec.gather!r} a function is called "
            f"with a result of {spec.gather!r} and the list of all results of 'B' that came of it: "
            "def FUNCTION(parent, results)."
        )
    if spec.for_each:
        return _fed_entry(spec, function, place, keywords)
    if function is None or keywords["first"] is not None:
        lacks = "it has first=" if function is not None else "it has no function"
        raise RegistrationError(
            f"Task {name!r} has no for_each=, and {lacks}. Results of another task become its items with "
            f"for_each='A'; items of its own come from a function: @app.task({name!r})."
        )
    made = _task_plan(function, name, times)
    if key is not None and "start" in made.names:
        raise RegistrationError(
            f"The {made.what} takes `start`, and has key=. Items with keys are known by these, wherever they "
            "come in the order: how many are done from the first on says nothing of them. Take `start` or key= away."
        )
    return TaskEntry(name, spec, made, None, place, keywords)


def _fed_entry(
    spec: TaskSpec, function: Callable[..., Any] | None, place: EndpointAddress | None, keywords: TaskKeywords
) -> TaskEntry:
    name, first = spec.task_type, keywords["first"]
    if keywords["times"] is not None:
        raise RegistrationError(
            f"Task {name!r} has for_each= and times=. It has as many items as its function gives for each result: take "
            "times= away."
        )
    place_of = signatures.GATHER if spec.gather else signatures.FOR_EACH
    made = None if function is None else plan(function, place_of, name)
    roots: Callable[..., Any] | None = None
    if first is not None:
        roots = first if callable(first) else _given(first)
    module = _module() if function is None else ""
    first_plan = None if roots is None else plan(roots, signatures.FIRST, name)
    return TaskEntry(name, spec, made, None, place, keywords, first_plan, module)


def _module() -> str:
    """The module that is at work here, outside of this package: where a task without a function is added."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith("zmqpipeline."):
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _given(items: Iterable[Any]) -> Callable[[], Iterable[Any]]:
    def first() -> Iterable[Any]:
        return items

    return first


def _task_plan(function: Callable[..., Any], name: str, times: int | None) -> Handler:
    made = plan(function, signatures.TASK if times is None else signatures.TIMES, name)
    if times is not None and inspect.isgeneratorfunction(function):
        raise RegistrationError(
            f"The {made.what} has a `yield`, and times={times}. With times= each call returns one item: "
            "write `return`, or take times= away."
        )
    return made


def worker_entry(task_type: str, function: Callable[..., Any], **given: Unpack[WorkerKeywords]) -> WorkerEntry:
    """The entry of `@app.worker`.

    Raises:
        RegistrationError: an argument is wrong, or the function takes what nobody provides.
    """
    name = task_name(task_type, "worker")
    keywords = checked(WorkerKeywords, given, f"The worker of task {name!r}")
    made = plan(function, signatures.WORKER if keywords["batch"] is None else signatures.BATCHES, name)
    _check_calls(made, given)
    return WorkerEntry(name, made, None, keywords)


def _check_calls(made: Handler, given: Mapping[str, Any]) -> None:
    """How many calls go on at a time: a coroutine function has `concurrency`, a plain one threads."""
    if made.is_async and "threads" in given:
        raise RegistrationError(
            f"The {made.what} is an async function: its calls share one thread of each worker process, so that "
            f"threads={given['threads']} says nothing. Write concurrency={given['threads']}: so many calls at a time."
        )
    if not made.is_async and "concurrency" in given:
        raise RegistrationError(
            f"The {made.what} is a plain function: each of its calls needs a thread, so that "
            f"concurrency={given['concurrency']} says nothing. Write threads={given['concurrency']}, or `async def`."
        )


def collector_plan(function: Callable[..., Any], name: str, **given: Unpack[CollectorKeywords]) -> Handler:
    """The plan of `@app.collector`; `name` is its task, or blank.

    Raises:
        RegistrationError: an argument is wrong, or the function takes what nobody provides.
    """
    keywords = checked(CollectorKeywords, given, f"The collector of task {name!r}" if name else "The collector")
    batch = keywords["batch"] or 0
    return replace(plan(function, signatures.LISTS if batch else signatures.COLLECTOR, name or None), batch=batch)


def check_event_type(event_type: object) -> None:
    """Raise RegistrationError for what is no type of event."""
    from zmqpipeline import events

    if not (isinstance(event_type, type) and issubclass(event_type, events.Event)):
        kinds = [one for one in vars(events).values() if isinstance(one, type) and issubclass(one, events.Event)]
        raise RegistrationError(
            f"`@app.on` needs a type of event, such as `@app.on(ItemCollected)`, not {event_type!r}. "
            f"Those of `zmqpipeline.events`: {', '.join(one.__name__ for one in kinds)}."
        )


def service_entry(name: str, function: Callable[..., Any], **given: Unpack[ServiceKeywords]) -> ServiceEntry:
    """The entry of `@app.service`.

    Raises:
        RegistrationError: an argument is wrong, or the function takes what nobody provides.
    """
    name = task_name(name, "service")
    keywords = checked(ServiceKeywords, given, f"The service {name!r}")
    made = plan(function, signatures.SERVICE, name)
    _check_calls(made, given)
    return ServiceEntry(name, made, keywords)
