"""Class attributes that a user declares on a task, worker or collector, checked as early as can be.

A wrong one is a `DefinitionError`, which is a `TypeError`, when the class is defined, a missing one when the class is
instantiated or registered. A base class may leave them open; a property counts as given; so does an attribute that
``__init__`` sets.

Calling the handlers of user classes with as many arguments as they take.
"""

from __future__ import annotations

import inspect
from abc import ABCMeta
from collections.abc import Callable
from types import FunctionType
from typing import Any, ClassVar, TypeVar

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import DefinitionError, EndpointError
from zmqpipeline.options import EXPECTED, size_in_bytes
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.roles.task_type import TaskType


@dataclass(frozen=True)
class AttributeSpec:
    """What an attribute must be: a test, the words for it, and an example. An optional one may be None."""

    fits: Callable[[Any], bool]
    expected: str
    example: str
    optional: bool = False


def _is_types(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(one, TaskType) for one in value)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_size(value: Any) -> bool:
    try:
        return size_in_bytes(value) > 0
    except ValueError:
        return False


def per_second(rate: str) -> float:
    """How many items a second a rate such as "1500/m" stands for.

    Raises:
        ValueError: it stands for none.
    """
    number, slash, unit = rate.replace(" ", "").partition("/")
    seconds = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(unit)
    value = float(number)
    if not slash or seconds is None or not 0 < value < float("inf"):
        raise ValueError(rate)
    return value / seconds


def _is_rate(value: Any) -> bool:
    try:
        return isinstance(value, str) and per_second(value) > 0
    except ValueError:
        return False


ENDPOINT = AttributeSpec(
    lambda value: isinstance(value, EndpointAddress),
    "an address, a str or an EndpointAddress",
    "'ipc://worker.ipc'",
)
TASK_TYPE = AttributeSpec(
    lambda value: isinstance(value, TaskType),
    "a TaskType",
    "TaskType('C'), after TaskType.register_type('C')",
)
SERVICE_TYPE = AttributeSpec(
    lambda value: isinstance(value, TaskType) or value == "",
    "a TaskType or a blank string",
    "TaskType('upper'), after TaskType.register_type('upper')",
)
DEPENDENCIES = AttributeSpec(_is_types, "a list of TaskTypes", "[] or [TaskType('A')]")
THREADS = AttributeSpec(_is_positive, "a positive int", "4")
CONCURRENCY = AttributeSpec(_is_positive, "a positive int", "100", optional=True)
TIME_LIMIT = AttributeSpec(_is_seconds, "a number of seconds, more than 0, or None", "60", optional=True)
COUNT_LIMIT = AttributeSpec(_is_positive, "a whole number, 1 or more, or None", "1000", optional=True)
RATE = AttributeSpec(_is_rate, 'a number of items a second, minute or hour, such as "1500/m"', "'1500/m'", True)
MEMORY_LIMIT = AttributeSpec(_is_size, f"{EXPECTED}, or None", "'2GiB'", optional=True)


Made = TypeVar("Made", bound="Declarative")


class DeclarativeMeta(ABCMeta):
    """Looks at an instance once its ``__init__`` is done."""

    def __call__(cls: type[Made], *args: Any, **kwargs: Any) -> Made:  # type: ignore[misc]  # noqa: D102
        made: Made = super().__call__(*args, **kwargs)  # type: ignore[misc]
        _require(made, cls)
        return made

    @property
    def __signature__(cls) -> inspect.Signature:
        """What `help` shows: the parameters of the class's own ``__init__``, which the call above would hide."""
        signature = inspect.signature(cls.__init__)  # type: ignore[misc]
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Declarative(metaclass=DeclarativeMeta):
    """Base of the classes whose attributes are declared; `_declares` says which, and what they must be."""

    _declares: ClassVar[dict[str, AttributeSpec]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, kind in cls._declares.items():
            value = cls.__dict__.get(name)
            if value is not None and not _computes(value):
                setattr(cls, name, _fitted(value, name, kind, cls))


def require_declared(cls: type[Declarative]) -> None:
    """Check that a class leaves nothing open, without making an instance.

    Raises:
        DefinitionError: an attribute is missing.
    """
    for name, kind in cls._declares.items():
        if getattr(cls, name, None) is None and not kind.optional:
            raise DefinitionError(_missing(name, kind, cls))


def _require(made: Declarative, cls: type) -> None:
    for name, kind in made._declares.items():
        value = getattr(made, name, None)
        if value is None and kind.optional:
            continue
        if value is None:
            raise DefinitionError(_missing(name, kind, cls))
        with_accepted_args = _fitted(value, name, kind, cls)
        if name in vars(made):
            setattr(made, name, with_accepted_args)


def _computes(value: Any) -> bool:
    return hasattr(type(value), "__get__") and not isinstance(value, FunctionType)


def _fitted(value: Any, name: str, kind: AttributeSpec, cls: type) -> Any:
    """The value as it is kept: a str that is an address as an EndpointAddress."""
    if kind is ENDPOINT and isinstance(value, str):
        try:
            return EndpointAddress(value)
        except EndpointError as error:
            raise DefinitionError(f"{cls.__name__}.{name}: {error}") from None
    if not kind.fits(value):
        raise DefinitionError(
            f"{cls.__name__}.{name} must be {kind.expected}, not {value!r} ({type(value).__name__}). "
            f"Write {name} = {kind.example}."
        )
    return value


def _missing(name: str, kind: AttributeSpec, cls: type) -> str:
    return f"{cls.__name__} has no {name}. Give it {kind.expected}: {name} = {kind.example}."


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def with_accepted_args(handler: Callable[..., Any], most: int) -> Callable[..., Any]:
    """A callable that takes `most` positional arguments and passes on the first ones that `handler` has room for.

    The signature is looked at once, here.

    Raises:
        TypeError: the handler needs more than `most`.
    """
    takes = accepted_args(handler, most)
    return handler if takes == most else lambda *args: handler(*args[:takes])


def accepted_args(handler: Callable[..., Any], most: int) -> int:
    """How many of `most` positional arguments a handler has room for.

    Raises:
        TypeError: it needs more than `most`.
    """
    room, needed = _room(handler, most)
    if needed > most:
        name = getattr(handler, "__qualname__", repr(handler))
        raise TypeError(f"{name} needs {needed} arguments, but at most {most} are given. Take some away.")
    return min(room, most)


def _room(handler: Callable[..., Any], most: int) -> tuple[int, int]:
    try:
        parameters = inspect.signature(handler).parameters.values()
    except ValueError:
        return most, 0
    places = [one for one in parameters if one.kind in _POSITIONAL]
    needed = sum(one.default is one.empty for one in places)
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return most, needed
    return len(places), needed


def is_async(function: Callable[..., Any]) -> bool:
    """Whether this, or the method by which an object is called, is an `async def`."""
    forms = (function, type(function).__call__)
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in forms)


def is_overridden(instance: object, name: str, base: type) -> bool:
    """True if the instance's method is not the one of `base`; an attribute set on the instance counts, too."""
    return getattr(getattr(instance, name), "__func__", None) is not getattr(base, name)
