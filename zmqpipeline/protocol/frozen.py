"""The `dataclass` of what each role has, messages and events first: frozen for who checks, and cheap to make.

A frozen dataclass sets each field by a call, and so costs four times what another one does to make; a single item makes
two dozen of them on its way. Nothing changes one after it is made: mypy reads ``frozen=True`` and refuses it, and in
Python's development mode (``python -X dev``), in which the simulation is run, too, they refuse it themselves.

Each process makes more than a hundred of these classes as it starts, which was a fifth of its start. Only their
``__init__`` is made for each of them; what they compare, hash and show by is the same for all, and reads the fields by
name: nothing on an item's way does these.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

Kind = TypeVar("Kind")


def _dataclass(*, frozen: bool, slots: bool = False, kw_only: bool = False) -> Callable[[type[Kind]], type[Kind]]:
    """Like that of the standard library; whatever is `frozen` compares and hashes by its fields."""
    is_strict = frozen and sys.flags.dev_mode
    if is_strict or not frozen:
        return dataclasses.dataclass(frozen=is_strict, slots=slots, kw_only=kw_only)

    def make(cls: type[Kind]) -> type[Kind]:
        made = dataclasses.dataclass(repr=False, eq=False, slots=slots, kw_only=kw_only)(cls)
        for name, method in (("__eq__", _eq), ("__hash__", _hash), ("__repr__", _repr)):
            if name not in cls.__dict__ or cls.__dict__[name] is None:
                setattr(made, name, method)
        return made

    return make


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
