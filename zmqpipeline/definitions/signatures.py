"""Parameters by name: which extra values a decorated function may ask for, and how it is called.

The first parameter of a worker, collector, failed or available function is what it is called for, whatever its name;
the others are taken by name, each where it has a meaning. The signature is read once, when the decorator runs; a
function that takes nothing extra is afterwards called as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property, partial, wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from zmqpipeline.definitions.annotations import first_converter
from zmqpipeline.errors import ConfigurationError, RegistrationError
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.roles.attributes import is_async

if TYPE_CHECKING:
    from zmqpipeline.runtime.threads.event_loop import EventLoopThread

_NOTHING = inspect.Parameter.empty
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_BY_PLACE = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


@dataclass(frozen=True)
class HandlerKind:
    """Where a function is used: its decorator, its first parameter (None: all go by name), and which names exist."""

    decorator: str
    first: str | None
    names: tuple[str, ...]
    may_yield: bool = False
    may_await: bool = False
    """It may be a coroutine function."""
    is_typed: bool = False
    """Its first parameter may be annotated with the records that it wants; see `annotations`."""
    second: str | None = None
    """Its second parameter, a list, if that does not go by name; it may be annotated likewise."""


_TASK_NAMES = ("metadata", "task_type", "ack_data", "address", "msgtype")
TASK = HandlerKind("task", None, (*_TASK_NAMES, "start"), may_yield=True, may_await=True)
TIMES = HandlerKind("task", None, (*_TASK_NAMES, "number"), may_await=True)
FIRST = HandlerKind("first", None, ("metadata", "task_type"), may_yield=True, may_await=True)
FOR_EACH = HandlerKind(
    "task",
    "the result",
    ("metadata", "task_type", "number", "attempt", "depth"),
    may_yield=True,
    may_await=True,
    is_typed=True,
)
GATHER = HandlerKind(
    "task",
    "the result of the parent",
    ("metadata", "task_type", "number", "attempt", "depth", "failures"),
    may_yield=True,
    may_await=True,
    is_typed=True,
    second="the list of results that came of it",
)
WORKER = HandlerKind(
    "worker",
    "the item",
    ("metadata", "task_type", "thread_index", "number", "attempt", "resource"),
    may_await=True,
    is_typed=True,
)
BATCHES = HandlerKind(
    "worker",
    "the list of items",
    ("metadata", "task_type", "thread_index", "numbers", "attempt", "resource"),
    may_await=True,
    is_typed=True,
)
SERVICE = HandlerKind(
    "service",
    "the request",
    ("task_type", "thread_index", "attempt", "resource", "msgtype"),
    may_await=True,
    is_typed=True,
)
WORKER_INIT = HandlerKind("worker_init", None, ("metadata", "task_type"), may_yield=True, may_await=True)
THREAD_INIT = HandlerKind(
    "thread_init", None, ("metadata", "task_type", "thread_index", "resource"), may_yield=True, may_await=True
)
COLLECTOR = HandlerKind(
    "collector",
    "the result",
    ("metadata", "task_type", "number", "attempt", "msgtype", "journal"),
    may_await=True,
    is_typed=True,
)
LISTS = HandlerKind(
    "collector",
    "the list of results",
    ("metadata", "task_type", "numbers", "attempt", "msgtype", "journal"),
    may_await=True,
    is_typed=True,
)
FINISHED = HandlerKind("finished", None, ("metadata", "msgtype", "journal"), may_await=True)
FAILED = HandlerKind("failed", "the failure", ("metadata", "task_type", "journal"), may_await=True)
ACK_DATA = HandlerKind("ack_data", None, ("metadata", "task_type"))
AVAILABLE = HandlerKind("available", "the ack data", ("metadata", "task_type", "address"))
METADATA = HandlerKind("metadata", None, ())
ON = HandlerKind("on", "the event", ())


@dataclass(frozen=True)
class Handler:
    """How a function is called: with its first argument, if the place has one, and these names."""

    function: Callable[..., Any]
    names: tuple[str, ...]
    what: str
    place: HandlerKind | None = None
    batch: int = 0
    """Of a collector: how many results it takes at once; 0: one, and no list."""

    @cached_property
    def convert(self) -> Callable[[Any], Any] | None:
        """What makes of a dict what the first parameter is annotated with; None: it takes dicts as they arrive.

        Raises:
            RegistrationError: such values are never sent, or the annotation cannot be evaluated.
        """
        if self.place is None or not self.place.is_typed:
            return None
        return first_converter(
            self.function, self.what, is_list=self.place in (BATCHES, LISTS), is_dict=self.place is not SERVICE
        )

    @cached_property
    def convert_second(self) -> Callable[[Any], Any] | None:
        """The same for the second parameter, a list; None if it takes a list of dicts, or there is none."""
        if self.place is None or self.place.second is None:
            return None
        return first_converter(partial(self.function, None), self.what, is_list=True, which="second")

    @property
    def is_async(self) -> bool:
        """Whether calling it makes a coroutine or an async generator, which needs an event loop."""
        return is_async(self.function)

    def bind(self, constants: Mapping[str, Any], loop: EventLoopThread | None = None) -> BoundHandler:
        """Fill in what stays the same from call to call; what is left is given at each call.

        With a `loop` an async function is called as a plain one, which waits for what runs there.
        """
        given = {name: constants[name] for name in self.names if name in constants}
        function = partial(self.function, **given) if given else self.function
        if loop is not None and self.is_async:
            function = loop.plain(function)
        if self.place is not None and self.place.second is not None:
            function = _converting_two(function, self.convert, self.convert_second)
        elif self.convert is not None:
            function = _converting(function, self.convert, takes_names=len(given) < len(self.names))
        rest = tuple(name for name in self.names if name not in constants)
        return BoundHandler(function, rest, self.what, loop is not None and self.is_async)

    def needs(self, name: str) -> bool:
        """Whether the function takes this name and has no default for it."""
        return name in self.names and inspect.signature(self.function).parameters[name].default is _NOTHING


@dataclass(frozen=True)
class BoundHandler:
    """A function with its constant parameters filled in; `rest` are the names that each call must give."""

    function: Callable[..., Any]
    rest: tuple[str, ...]
    what: str
    is_async: bool = False
    """The user's function runs on an event loop, on its thread."""

    def __call__(self, *first: Any, **values: Any) -> Any:
        """Call it; of `values` it is given those that it takes."""
        return self.function(*first, **{name: values[name] for name in self.rest})


def _converting(function: Callable[..., Any], convert: Callable[[Any], Any], *, takes_names: bool) -> Any:
    def with_names(value: Any, /, **names: Any) -> Any:
        return function(convert(value), **names)

    def alone(value: Any, /) -> Any:
        return function(convert(value))

    return _as_written(with_names if takes_names else alone, function)


def _converting_two(
    function: Callable[..., Any], first: Callable[[Any], Any] | None, second: Callable[[Any], Any] | None
) -> Any:
    def converted(one: Any, other: Any, /, **names: Any) -> Any:
        return function(one if first is None else first(one), other if second is None else second(other), **names)

    return function if first is None and second is None else _as_written(converted, function)


def _as_written(made: Any, function: Callable[..., Any]) -> Any:
    # messages name the line in which the user's function is written
    made.__wrapped__ = function.func if isinstance(function, partial) else function
    return made


def label(function: object) -> str:
    """The name of a function as messages show it."""
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__).replace("<locals>.", "")


def plan(function: Callable[..., Any], place: HandlerKind, task_type: str | None = None) -> Handler:
    """Read the signature of a function once.

    Raises:
        RegistrationError: it is no function, a coroutine, or takes a parameter that has no meaning there.
    """
    what = f"{place.decorator} function {label(function)!r}" + (f" of task {task_type!r}" if task_type else "")
    _check_sort(function, place, what)
    return Handler(function, _names(function, place, what), what, place)


def _check_sort(function: Callable[..., Any], place: HandlerKind, what: str) -> None:
    if not callable(function):
        raise RegistrationError(f"`@app.{place.decorator}` needs a function, not {function!r}.")
    # an object may be called by a method
    forms = (function, type(function).__call__)
    makes_more = any(inspect.isasyncgenfunction(one) for one in forms)
    if makes_more and place.may_await and not place.may_yield:
        raise RegistrationError(f"The {what} has a `yield`; it must return one value. Write `return` in its place.")
    if (makes_more and not (place.may_await and place.may_yield)) or (is_async(function) and not place.may_await):
        raise RegistrationError(f"The {what} is an async function; these are not called. Write it with plain `def`.")
    if inspect.isgeneratorfunction(function) and not place.may_yield:
        raise RegistrationError(f"The {what} has a `yield`; it must return one value. Write `return` in its place.")


def _names(function: Callable[..., Any], place: HandlerKind, what: str) -> tuple[str, ...]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        # some builtins hide their signature: they are called with the first argument alone
        return ()
    if place.first is not None:
        parameters = _without_first(parameters, place, what)
    if place.second is not None:
        parameters = _without_second(parameters, place, what)
    return tuple(one.name for one in parameters if _injected(one, place, what))


def _without_first(parameters: list[inspect.Parameter], place: HandlerKind, what: str) -> list[inspect.Parameter]:
    if not parameters or parameters[0].kind not in _BY_PLACE:
        raise RegistrationError(f"The {what} takes no parameter. Its first one is {place.first}: give it one.")
    return parameters if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL else parameters[1:]


def _without_second(parameters: list[inspect.Parameter], place: HandlerKind, what: str) -> list[inspect.Parameter]:
    if not parameters or parameters[0].kind not in _BY_PLACE:
        raise RegistrationError(
            f"The {what} takes one parameter, {place.first}. Its second one is {place.second}: give it one."
        )
    return parameters if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL else parameters[1:]


def _injected(parameter: inspect.Parameter, place: HandlerKind, what: str) -> bool:
    if parameter.kind in _BY_NAME and parameter.name in place.names:
        return True
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.default is not _NOTHING:
        return False
    raise RegistrationError(_refusal(parameter, place, what))


def _refusal(parameter: inspect.Parameter, place: HandlerKind, what: str) -> str:
    if parameter.name in place.names:
        return f"The {what} takes {parameter.name!r} by position only; it is given by name. Take the '/' out."
    known = ", ".join(place.names) or "none"
    if place.decorator == "task" and place.first is None:
        return (
            f"The {what} takes a parameter {parameter.name!r}, which nobody provides: it gives items, and takes none. "
            f"What executes an item, its first parameter, is decorated with `@app.worker`. Names that have a meaning "
            f"here: {known}."
        )
    first = f" Its first parameter is {place.first}." if place.first else ""
    first += f" Its second one is {place.second}." if place.second else ""
    return (
        f"The {what} takes a parameter {parameter.name!r}, which nobody provides.{first} "
        f"Names that have a meaning there: {known}. Rename it, or give it a default."
    )


Called = TypeVar("Called", bound=Callable[..., Any])


def brief(function: Called) -> Called:
    """Decorator: what the user can mend is raised without our own frames, but for this one.

    So a traceback ends with the user's line and the message. Anything else is a bug, and keeps them.
    """

    @wraps(function)
    def called(*args: Any, **keywords: Any) -> Any:
        try:
            return function(*args, **keywords)
        except ConfigurationError as error:
            mistake = error.with_traceback(None)
        raise mistake

    return cast("Called", called)


def all_brief(cls: type[Any]) -> None:
    """Make the public methods of a class `brief`."""
    for name, value in list(vars(cls).items()):
        if isinstance(value, FunctionType) and not name.startswith("_"):
            setattr(cls, name, brief(value))
