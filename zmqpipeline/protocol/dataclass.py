"""The `dataclass` of what each role has, messages and events first: frozen for who checks, and cheap to make.

A frozen dataclass sets each field by a call, and so costs four times what another one does to make; a single item makes
two dozen of them on its way. Nothing changes one after it is made: mypy reads ``frozen=True`` and refuses it, and in
Python's development mode (``python -X dev``), in which the simulation is run, too, they refuse it themselves.

Each process makes some 170 of these classes as it starts, which was a quarter of its start, and most of them have no
instance in most processes. So the ``__init__`` of a class is compiled when it is called first; what they compare, hash
and show by is the same for all, and reads the fields by name: nothing on an item's way does these. So fields that do
not compare, or hash otherwise, are not for these classes, nor is `InitVar`; what is public is made by the standard one.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

Kind = TypeVar("Kind")


def _dataclass(
    cls: type[Kind] | None = None,
    /,
    *,
    frozen: bool = False,
    eq: bool = True,
    slots: bool = False,
    kw_only: bool = False,
) -> type[Kind] | Callable[[type[Kind]], type[Kind]]:
    """Like that of the standard library."""

    def make(cls: type[Kind]) -> type[Kind]:
        if frozen and sys.flags.dev_mode:
            return dataclasses.dataclass(frozen=True, eq=eq, slots=slots, kw_only=kw_only)(cls)
        own = set(cls.__dict__)
        made = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
        given: dict[str, Any] = {"__repr__": _repr, "__init__": _first_init(made, slots=slots)}
        if eq:
            given |= {"__eq__": _eq, "__hash__": _hash if frozen else None}
        for name, method in given.items():
            # a class that defines __eq__ alone has an empty __hash__ by that
            if name not in own or cls.__dict__[name] is None:
                setattr(made, name, method)
        return made

    return make if cls is None else make(cls)


def _first_init(cls: type, *, slots: bool) -> Callable[..., None]:
    """What makes the real one, and is replaced by it. Threads that come at once each make one; they are the same."""

    def init(self: Any, /, *values: Any, **named: Any) -> None:
        made = _init(cls, slots=slots)
        cls.__init__ = made  # type: ignore[misc]
        made(self, *values, **named)

    return init


def _init(cls: Any, *, slots: bool) -> Callable[..., None]:
    """What the standard library would make of the fields of this class, in a quarter of the time of a whole class."""
    values: list[str] = []
    named: list[str] = []
    body: list[str] = []
    known: dict[str, Any] = {"_new": object()}
    for one in dataclasses.fields(cls):
        name = one.name
        default, made = f"_default_{name}", ""
        if one.default_factory is not dataclasses.MISSING:
            default, made = "_new", f"_make_{name}()"
            known[f"_make_{name}"] = one.default_factory
        elif one.default is not dataclasses.MISSING:
            known[default] = one.default
        else:
            default = ""
        if one.init:
            (named if one.kw_only else values).append(f"{name}={default}" if default else name)
            body.append(f"self.{name} = {made} if {name} is _new else {name}" if made else f"self.{name} = {name}")
        elif made or (default and slots):
            body.append(f"self.{name} = {made or default}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    given = ", ".join(["self", *values, *(["*", *named] if named else [])])
    lines = "\n ".join(body or ["pass"])
    exec(compile(f"def __init__({given}):\n {lines}", f"<fields of {cls.__qualname__}>", "exec"), known)
    init: Callable[..., None] = known["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    return init


def _values(one: Any) -> tuple[Any, ...]:
    return tuple([getattr(one, name) for name in one.__dataclass_fields__])


def _eq(self: Any, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return _values(self) == _values(other)


def _hash(self: Any) -> int:
    return hash(_values(self))


def _repr(self: Any) -> str:
    shown = [name for name, one in self.__dataclass_fields__.items() if one.repr]
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
    return f"{self.__class__.__qualname__}({fields})"


if TYPE_CHECKING:
    # what checks types knows it by this name only
    from dataclasses import dataclass as dataclass
else:
    dataclass = _dataclass
