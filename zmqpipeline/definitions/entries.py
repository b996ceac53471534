"""From the arguments of a decorator to an entry of the registry; every argument is checked here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.definitions import signatures
from zmqpipeline.definitions.registry import ON_FAILED, ServiceEntry, TaskEntry, WorkerEntry
from zmqpipeline.definitions.signatures import Plan, plan
from zmqpipeline.errors import RegistrationError
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.roles.attributes import COUNT_LIMIT, MEMORY_LIMIT, TIME_LIMIT, Kind
from zmqpipeline.roles.task_type import TaskType


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


def task_entry(
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
    on_failed: str = "abort",
    endpoint: str | None = None,
) -> TaskEntry:
    """The entry of `@app.task`.

    Raises:
        RegistrationError: an argument is wrong, or the function takes what nobody provides.
        EndpointError: the task's own address is malformed.
    """
    name = task_name(task_type, "task")
    checked = _Checked(name)
    checked.whole("times", times, 0, optional=True)
    checked.whole("total", total, 0, optional=True)
    checked.whole("retries", retries, 0)
    checked.whole("crash_limit", crash_limit, 1)
    checked.seconds("backoff", backoff)
    checked.seconds("timeout", timeout, optional=True)
    checked.that("on_failed", on_failed, on_failed in ON_FAILED, "'abort' or 'continue'")
    checked.that("key", key, key is None or isinstance(key, str) or callable(key), "a field's name or a callable")
    spec = TaskSpec(
        name,
        depends_on=checked.names(depends_on),
        retries=retries,
        backoff=float(backoff),
        timeout=timeout or None,
        crash_limit=crash_limit,
        on_failed=on_failed,
        total=times if total is None else total,
        keyed=key is not None,
    )
    made = _task_plan(function, name, times)
    if key is not None and "start" in made.names:
        raise RegistrationError(
            f"The {made.what} takes `start`, and has key=. Items with keys are known by these, wherever they "
            "come in the order: how many are done from the first on says nothing of them. Take `start` or key= away."
        )
    address = None if endpoint is None else EndpointAddress(endpoint)
    return TaskEntry(name, spec, made, times=times, key=key, endpoint=address)


def _task_plan(function: Callable[..., Any], name: str, times: int | None) -> Plan:
    made = plan(function, signatures.TASK if times is None else signatures.TIMES, name)
    if times is not None and inspect.isgeneratorfunction(function):
        raise RegistrationError(
            f"The {made.what} has a `yield`, and times={times}. With times= each call returns one item: "
            "write `return`, or take times= away."
        )
    return made


class _Checked:
    """The arguments of one task or worker; each check raises RegistrationError with the name of whose they are."""

    def __init__(self, name: str, sort: str = "Task") -> None:
        self._whose = f"{sort} {name!r}"

    def that(self, argument: str, value: object, good: bool, expected: str) -> None:
        if not good:
            raise RegistrationError(f"{self._whose}: {argument} must be {expected}, not {value!r}.")

    def whole(self, argument: str, value: object, least: int, optional: bool = False) -> None:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        self.that(argument, value, good or (optional and value is None), f"a whole number, {least} or more")

    def seconds(self, argument: str, value: object, optional: bool = False) -> None:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")
        self.that(argument, value, good or (optional and value is None), "a number of seconds, 0 or more")

    def of_kind(self, argument: str, value: object, kind: Kind) -> None:
        """As for the attribute of a class that has the same meaning."""
        self.that(argument, value, value is None or kind.fits(value), kind.expected)

    def names(self, depends_on: object) -> tuple[str, ...]:
        """One name stands for a list of one."""
        if isinstance(depends_on, str):
            depends_on = (depends_on,)
        good = isinstance(depends_on, Iterable)
        names = tuple(depends_on) if isinstance(depends_on, Iterable) else ()
        good = good and all(isinstance(one, str) and one for one in names)
        self.that("depends_on", depends_on, good, "a list of names of tasks")
        return tuple(dict.fromkeys(str.__str__(one) for one in names))


def worker_entry(
    task_type: str,
    function: Callable[..., Any],
    threads: int,
    *,
    init_timeout: float | None = 60.0,
    max_items: int | None = None,
    max_memory: int | str | None = None,
) -> WorkerEntry:
    """The entry of `@app.worker`.

    Raises:
        RegistrationError: an argument is wrong, or the function takes what nobody provides.
    """
    name = task_name(task_type, "worker")
    checked = _Checked(name, "The worker of task")
    checked.whole("threads", threads, 1)
    checked.of_kind("init_timeout", init_timeout, TIME_LIMIT)
    checked.of_kind("max_items", max_items, COUNT_LIMIT)
    checked.of_kind("max_memory", max_memory, MEMORY_LIMIT)
    made = plan(function, signatures.WORKER, name)
    return WorkerEntry(name, threads, made, None, init_timeout, max_items, max_memory)


def service_entry(
    name: str, function: Callable[..., Any], threads: int, idempotent: bool, init_timeout: float | None = 60.0
) -> ServiceEntry:
    """The entry of `@app.service`.

    Raises:
        RegistrationError: an argument is wrong, or the function takes what nobody provides.
    """
    name = task_name(name, "service")
    checked = _Checked(name, "The service")
    checked.whole("threads", threads, 1)
    checked.of_kind("init_timeout", init_timeout, TIME_LIMIT)
    return ServiceEntry(name, plan(function, signatures.SERVICE, name), threads, bool(idempotent), init_timeout)
