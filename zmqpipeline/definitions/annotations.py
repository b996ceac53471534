"""What the first parameter of a function is annotated with, and what converts values to that."""

from __future__ import annotations

import collections.abc
import inspect
import sys
import typing
from collections.abc import Callable
from functools import partial
from typing import Any

from zmqpipeline.errors import FieldError, RegistrationError
from zmqpipeline.serialization.convert import CannotCarry, converter, is_plain, refuse

_PLAIN_NAMES = ("dict", "Dict", "Mapping", "MutableMapping", "Any", "object", "None")
_LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)


def first_converter(
    function: Callable[..., Any], what: str, *, is_list: bool, is_dict: bool = True
) -> Callable[[Any], Any] | None:
    """What converts a value for the first parameter; None if it takes the dict as it arrived.

    With `is_list` it takes a list of values, each of which is converted; with `is_dict` each value is a dict.

    Raises:
        RegistrationError: such values are never sent, or the annotation cannot be evaluated.
    """
    annotation = _annotation(function, what)
    if is_list:
        if typing.get_origin(annotation) not in _LISTS:
            return None
        (annotation,) = typing.get_args(annotation) or (Any,)
    if is_plain(annotation):
        return None
    try:
        convert = converter(annotation)
    except CannotCarry as error:
        raise refuse(what, error) from None
    except NameError as error:
        raise _unknown_name(what, str(error)) from None
    if is_dict:
        _check_takes_dicts(convert, annotation, what)
    return (lambda values: [convert(one) for one in values]) if is_list else convert


def _check_takes_dicts(convert: Callable[[Any], Any], annotation: Any, what: str) -> None:
    try:
        convert({})
    except FieldError as error:
        # of a record some field is missing in an empty dict
        if str(error).startswith("`$` must be"):
            name = getattr(annotation, "__name__", str(annotation))
            raise RegistrationError(
                f"The first parameter of the {what} is annotated with {name}, and what it is called with is a dict. "
                "Annotate it with dict, or with a type of records: a dataclass, a TypedDict, a NamedTuple."
            ) from None


def _annotation(function: Callable[..., Any], what: str) -> Any:
    """That of the first parameter, evaluated; Any if there is none."""
    while isinstance(function, partial):
        function = function.func
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        return Any
    if not parameters or parameters[0].annotation is inspect.Parameter.empty:
        return Any
    given = parameters[0].annotation
    if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL or not isinstance(given, str):
        return Any if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL else given
    if given.strip("'\"").rpartition(".")[2].partition("[")[0] in _PLAIN_NAMES:
        # as a rule it is imported for type checkers alone
        return Any if "|" not in given else _evaluated(given, function, what)
    return _evaluated(given, function, what)


def _evaluated(text: str, function: Any, what: str) -> Any:
    inner = inspect.unwrap(getattr(function, "__func__", function))
    if not hasattr(inner, "__globals__"):
        inner = type(function).__call__
    space = getattr(inner, "__globals__", vars(sys.modules.get(inner.__module__, typing)))
    names = inspect.getclosurevars(inner).nonlocals if hasattr(inner, "__code__") else {}
    try:
        return eval(text, space, dict(names))
    except NameError as error:
        raise _unknown_name(what, str(error)) from None
    except Exception as error:
        raise RegistrationError(
            f"The annotation {text!r} of the {what} cannot be evaluated: {type(error).__name__}: {error}."
        ) from None


def _unknown_name(what: str, said: str) -> RegistrationError:
    return RegistrationError(
        f"The first parameter of the {what} is annotated with a type that is not known where it is called: {said}. "
        "Import it at the top of its module, and not for type checkers alone, or define it there; or annotate it with "
        "dict."
    )
