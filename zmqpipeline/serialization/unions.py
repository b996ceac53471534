"""Which member of a union a value belongs to, as it arrived: told by its type, of a dict by its fields. Never guessed.

A union of which some values would fit two members is refused when its converter is made.
"""

from __future__ import annotations

import collections.abc
import enum
import sys
import typing
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from zmqpipeline.serialization.records import fields_of, is_model, is_struct
from zmqpipeline.serialization.shapes import MAPPINGS, bare, fields_to_take, hints_of, is_record, is_union, unwrapped

_NATIVES = (type(None), bool, int, float, str, bytes, datetime, date, timedelta, Decimal, UUID)
_CONTAINERS: tuple[tuple[type, tuple[Any, ...]], ...] = (
    (dict, MAPPINGS),
    (list, (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Iterable)),
    (set, (set, collections.abc.Set)),
    (tuple, (tuple,)),
    (frozenset, (frozenset,)),
)


class Member(NamedTuple):
    """One member of a union: what it looks like when it arrives."""

    kinds: frozenset[type]
    """The exact types that its values have; empty if these are any."""
    as_it_is: bool
    """A value is given as it arrived."""
    record: Record | None = None
    values: tuple[Any, ...] | None = None
    """The only ones that there are, of an enum or a Literal."""


class Record(NamedTuple):
    """Of a type of records what its dicts hold."""

    required: frozenset[str]
    sent: frozenset[str]
    tags: dict[str, tuple[Any, ...]]
    """Of fields of which there are only these values."""

    def may_be(self, value: dict[Any, Any]) -> bool:
        """Whether this dict has the fields that it must have, and values that are possible where there are few."""
        return value.keys() >= self.required and all(
            _is_one_of(value[name], values) for name, values in self.tags.items() if name in value
        )


def members_of(args: tuple[Any, ...]) -> list[Member]:
    """The members of a union, in their order, those of unions within it too."""
    return [_member(bare(one)) for one in args]


def ambiguity(args: tuple[Any, ...], members: list[Member]) -> str | None:
    """Which two members some value would fit, and None if there are none."""
    for (a, one), (b, other) in combinations(zip(args, members, strict=True), 2):
        if _overlap(one, other):
            return f"{_name(a)} and {_name(b)}, which are not told apart when they arrive"
    return None


def _name(annotation: Any) -> str:
    return str(getattr(annotation, "__qualname__", annotation))


def _overlap(one: Member, other: Member) -> bool:
    if one.as_it_is and other.as_it_is:
        return False
    if one.kinds and other.kinds and not one.kinds & other.kinds:
        return False
    if one.values is not None and other.values is not None:
        return any(_is_one_of(value, other.values) for value in one.values)
    if one.record is not None and other.record is not None and one.kinds == other.kinds:
        return _confusable(one.record, other.record)
    return True


def _confusable(one: Record, other: Record) -> bool:
    for name in one.tags.keys() & other.tags.keys():
        if not any(_is_one_of(value, other.tags[name]) for value in one.tags[name]):
            return False
    return one.required <= other.sent or other.required <= one.sent


def _is_one_of(value: Any, values: tuple[Any, ...]) -> bool:
    return any(type(one) is type(value) and one == value for one in values)


def _member(wanted: Any) -> Member:
    origin = typing.get_origin(wanted)
    if wanted is None or wanted in _NATIVES:
        return Member(frozenset({type(None) if wanted is None else wanted}), as_it_is=True)
    if origin is typing.Literal:
        values = typing.get_args(wanted)
        return Member(frozenset(map(type, values)), as_it_is=True, values=values)
    if is_union(wanted):
        inner = members_of(typing.get_args(wanted))
        is_known = all(one.kinds for one in inner)
        kinds = frozenset(kind for one in inner for kind in one.kinds) if is_known else frozenset()
        return Member(kinds, as_it_is=all(one.as_it_is for one in inner))
    # an int becomes a float
    is_bare = all(arg in (Any, ..., *_NATIVES) and arg is not float for arg in typing.get_args(wanted))
    return _of_type(origin or wanted, is_bare=is_bare)


def _of_type(kind: Any, *, is_bare: bool) -> Member:
    if not isinstance(kind, type) or kind in (Any, object):
        return Member(frozenset(), as_it_is=True)
    for container, known in _CONTAINERS:
        if kind in known:
            return Member(frozenset({container}), as_it_is=is_bare)
    if issubclass(kind, enum.Enum):
        values = tuple(one.value for one in kind)
        return Member(frozenset(map(type, values)), False, values=None if issubclass(kind, enum.Flag) else values)
    if issubclass(kind, PurePath):
        return Member(frozenset({str}), as_it_is=False)
    if is_record(kind):
        return _of_record(kind)
    is_numpy = kind.__module__ == "numpy"
    return Member(frozenset({kind}) if is_numpy else frozenset(), as_it_is=is_numpy)


def _of_record(kind: Any) -> Member:
    if is_model(kind) and kind.__pydantic_root_model__:
        root = _member(bare(kind.model_fields["root"].annotation))
        return Member(root.kinds, as_it_is=False)
    kinds: set[type] = {dict, tuple} if issubclass(kind, tuple) else {dict}
    return Member(frozenset(kinds), as_it_is=False, record=_record(kind))


def _record(kind: Any) -> Record | None:
    """None if its fields have names that cannot be told, as some of pydantic's."""
    if is_model(kind):
        fields = kind.model_fields
        if any(one.validation_alias for one in fields.values()):
            return None
        required = {name for name, one in fields.items() if one.is_required()}
        return Record(
            frozenset(required), frozenset(fields), _tags(required, {n: f.annotation for n, f in fields.items()})
        )
    if is_struct(kind):
        msgspec: Any = sys.modules["msgspec"]
        structs = msgspec.structs.fields(kind)
        required = {one.encode_name for one in structs if one.required}
        hints = {one.encode_name: one.type for one in structs}
        tag, name = kind.__struct_config__.tag, kind.__struct_config__.tag_field
        tagged = {} if tag is None else {name: (tag,)}
        return Record(frozenset(required), frozenset(hints), {**_tags(required, hints), **tagged})
    hints = hints_of(kind)
    taken = fields_to_take(kind) or []
    required = {name for name, is_required in taken if is_required}
    sent = set(hints if typing.is_typeddict(kind) else (fields_of(kind) or {}).values())
    return Record(frozenset(required), frozenset(sent | {name for name, _ in taken}), _tags(required, hints))


def _tags(required: set[str], hints: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    found = {name: _member(bare(unwrapped(hint))).values for name, hint in hints.items() if _is_few(hint)}
    return {name: values for name, values in found.items() if values is not None}


def _is_few(hint: Any) -> bool:
    """Whether there are few values of it: an enum, or a Literal."""
    inner = bare(unwrapped(hint))
    return typing.get_origin(inner) is typing.Literal or (isinstance(inner, type) and issubclass(inner, enum.Enum))
