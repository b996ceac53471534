"""Calling the handlers of user classes with as many arguments as they take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def fitted(handler: Callable[..., Any], most: int) -> Callable[..., Any]:
    """A callable that takes `most` positional arguments and passes on the first ones that `handler` has room for.

    The signature is looked at once, here.

    Raises:
        TypeError: the handler needs more than `most`.
    """
    room, needed = _room(handler, most)
    if needed > most:
        name = getattr(handler, "__qualname__", repr(handler))
        raise TypeError(f"{name} needs {needed} arguments, but at most {most} are given. Take some away.")
    if room >= most:
        return handler
    return lambda *args: handler(*args[:room])


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


def is_overridden(instance: object, name: str, base: type) -> bool:
    """True if the instance's method is not the one of `base`; an attribute set on the instance counts, too."""
    return getattr(getattr(instance, name), "__func__", None) is not getattr(base, name)
