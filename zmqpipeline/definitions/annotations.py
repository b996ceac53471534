"""What the first parameter of a function is annotated with, and what converts values to that."""

from __future__ import annotations

import collections.abc
import inspect
import sys
import types
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

from zmqpipeline.errors import RegistrationError
from zmqpipeline.serialization.convert import converter, refuse
from zmqpipeline.serialization.shapes import (
    CannotCarry,
    CannotEvaluate,
    bare,
    holds_record,
    is_plain,
    is_union,
    takes_dicts,
)

_PLAIN_NAMES = ("dict", "Dict", "Mapping", "MutableMapping", "Any", "object", "None")
_LISTS = (
    list,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Iterable,
    collections.abc.Collection,
)


def first_converter(
    function: Callable[..., Any], what: str, *, is_list: bool, is_dict: bool = True, which: str = "first"
) -> Callable[[Any], Any] | None:
    """What converts a value for the first parameter; None if it takes the dict as it arrived.

    With `is_list` it takes a list of values, each of which is converted; with `is_dict` each value is a dict. Letters
    call it the `which` parameter: of a function whose first argument is bound it is the second.

    Raises:
        RegistrationError: such values are never sent, or the annotation cannot be evaluated.
    """
    first = _First(function, f"{which} parameter of the {what}")
    annotation = first.annotation()
    if is_list:
        annotation = first.resolved(_element(annotation, f"{which} parameter of the {what}"))
    if is_plain(annotation):
        return None
    try:
        convert = converter(annotation)
    except CannotCarry as error:
        raise refuse(what, error) from None
    except CannotEvaluate as error:
        if isinstance(error.__cause__, NameError):
            raise _unknown_name(f"{which} parameter of the {what}", str(error.__cause__)) from None
        raise RegistrationError(f"The annotation of the {what} cannot be evaluated: {error}.") from None
    if is_dict and not takes_dicts(annotation):
        raise RegistrationError(
            f"The {which} parameter of the {what} is annotated with {_name(annotation)}, and what it is called with is "
            "a dict. Annotate it with dict, or with a type of records: a dataclass, a TypedDict, a NamedTuple."
        )
    return (lambda values: [convert(one) for one in values]) if is_list else convert


def _element(annotation: Any, parameter: str) -> Any:
    """Of a list of values, or None, the annotation of one; Any if it says nothing about them."""
    wanted = bare(annotation)
    if is_union(wanted):
        others = [one for one in typing.get_args(wanted) if one is not type(None)]
        wanted = bare(others[0]) if len(others) == 1 else wanted
    if typing.get_origin(wanted) in _LISTS:
        return typing.get_args(wanted)[0]
    if holds_record(wanted):
        raise RegistrationError(
            f"The {parameter} is annotated with {_name(annotation)}, and what it is called with is "
            "a list. Annotate it with list[...] of the record that one of them is."
        )
    return Any


def _name(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", annotation))


class _First:
    """The first parameter of a function, and where the names of its annotation are looked up."""

    def __init__(self, function: Callable[..., Any], parameter: str) -> None:
        """`parameter` is what it is called in messages."""
        self._called = parameter
        self._parameter, function = _first_parameter(function)
        self._inner = _innermost(function)
        self._globals = getattr(self._inner, "__globals__", None) or vars(
            sys.modules.get(getattr(self._inner, "__module__", ""), typing)
        )

    def annotation(self) -> Any:
        """Its annotation, evaluated; Any if there is none."""
        given = inspect.Parameter.empty if self._parameter is None else self._parameter.annotation
        if given is inspect.Parameter.empty or _is_of_another(self._inner):
            return Any
        if not isinstance(given, str):
            return self.resolved(given)
        if given.strip("'\"").rpartition(".")[2].partition("[")[0] in _PLAIN_NAMES and "|" not in given:
            # as a rule it is imported for type checkers alone
            return Any
        if given.endswith(".args"):
            # of a ParamSpec
            return Any
        return self.resolved(self._evaluated(given, lambda: eval(given, self._globals, self._locals())))

    def resolved(self, annotation: Any) -> Any:
        """With the texts within it evaluated, as in ``Optional["Point"]``."""
        annotation = bare(annotation)
        if not isinstance(annotation, (str, typing.ForwardRef)) and not typing.get_args(annotation):
            return annotation
        holder = types.SimpleNamespace(__annotations__={"it": annotation})
        return self._evaluated(
            getattr(annotation, "__forward_arg__", annotation),
            lambda: typing.get_type_hints(holder, self._globals, self._locals(), include_extras=True)["it"],
        )

    def _evaluated(self, text: object, evaluate: Callable[[], Any]) -> Any:
        try:
            return evaluate()
        except NameError as error:
            raise _unknown_name(self._called, str(error)) from None
        except Exception as error:
            raise RegistrationError(
                f"The annotation {str(text)!r} of the {self._called} cannot be evaluated: "
                f"{type(error).__name__}: {error}."
            ) from None

    def _locals(self) -> dict[str, Any]:
        """What the function holds of the functions around it, and its type parameters."""
        names = {one.__name__: one for one in getattr(self._inner, "__type_params__", ())}
        free = getattr(getattr(self._inner, "__code__", None), "co_freevars", ())
        for name, cell in zip(free, getattr(self._inner, "__closure__", None) or (), strict=True):
            try:
                names[name] = cell.cell_contents
            except ValueError:
                # it is assigned further down
                continue
        return names


def _first_parameter(function: Any) -> tuple[inspect.Parameter | None, Any]:
    """That which a value arrives at, and the function whose it is.

    What a decorator made is asked itself, since it may convert items; if it takes `*args` it hands them on, and what it
    wraps is asked.
    """
    while True:
        try:
            parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())
        except (ValueError, TypeError):
            # a builtin that hides its signature, as `functools.cache` makes one
            parameters, wrapped = [], _wrapped(function)
        else:
            takes_all = bool(parameters) and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
            wrapped = _wrapped(function) if takes_all else None
        if wrapped is None:
            return (parameters[0] if parameters else None), function
        function = wrapped


def _wrapped(function: Any) -> Any:
    """What a decorator wrapped, bound as the wrapper is; None if there is none."""
    if isinstance(function, partial):
        inner = _wrapped(function.func)
        return None if inner is None else partial(inner, *function.args, **function.keywords)
    inner = getattr(function, "__wrapped__", None)
    if inner is not None and inspect.ismethod(function):
        return types.MethodType(inner, function.__self__)
    return inner


def _innermost(function: Any) -> Any:
    """The function of Python that is called in the end."""
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    return (
        function
        if hasattr(function, "__globals__")
        else getattr(type(function).__call__, "__func__", type(function).__call__)
    )


def _is_of_another(function: Any) -> bool:
    """Whether its annotations are those of what it wraps: `functools.wraps` copies them, whatever it takes itself."""
    wrapped = getattr(function, "__wrapped__", None)
    return wrapped is not None and getattr(function, "__annotations__", None) == getattr(
        _innermost(wrapped), "__annotations__", {}
    )


def _unknown_name(parameter: str, said: str) -> RegistrationError:
    return RegistrationError(
        f"The {parameter} is annotated with a type that is not known where it is called: {said}. "
        "Import it at the top of its module, and not for type checkers alone, or define it there, and not within a "
        "function; or annotate it with dict."
    )
