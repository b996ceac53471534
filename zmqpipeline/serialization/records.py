"""Typed values as plain dicts, before they are packed: dataclasses, named tuples, msgspec, attrs and pydantic.

What a function yields or returns may be such a record; its fields may hold others, and enums and paths. A record goes
as a dict of its fields, an enum as its value, a path as its text; `convert` makes them again where they are wanted.
What is a plain dict is packed as it is, if it can be; a named tuple within other values goes as a tuple.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import sys
import typing
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

from zmqpipeline.errors import SerializeError

_OF_PYDANTIC = ("pydantic.networks", "pydantic_core._pydantic_core")
Encoder = Callable[[Any], dict[str, Any]]

_encoders: dict[type, Encoder | None] = {}
_PLAIN = frozenset((type(None), bool, int, float, str, bytes))
NATIVES = (*_PLAIN, datetime, date, timedelta, Decimal, UUID)
"""They are packed as they are, and arrive so."""


def fields_of(kind: Any) -> dict[str, str] | None:
    """Of a type of records whose values have their fields as attributes, what each is called when it is sent."""
    if dataclasses.is_dataclass(kind):
        return {one.name: one.name for one in dataclasses.fields(kind)}
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return {name: name for name in kind._fields}
    if is_struct(kind):
        return dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else {one.name: one.alias for one in attributes}


def is_model(kind: type) -> bool:
    """Whether it is a model of pydantic."""
    model = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return model is not None and issubclass(kind, model)


def is_struct(kind: type) -> bool:
    """Whether it is a Struct of msgspec."""
    struct = getattr(sys.modules.get("msgspec"), "Struct", None)
    return struct is not None and issubclass(kind, struct)


def encoder_of(kind: type) -> Encoder | None:
    """What makes plain dicts of records of this type; None if it is none."""
    try:
        return _encoders[kind]
    except KeyError:
        made = _encoders[kind] = _make(kind)
        return made


def _make(kind: Any) -> Encoder | None:
    if is_model(kind):
        # as its validation takes it: by alias, and without fields that are computed
        return lambda value: plain(value.model_dump(by_alias=True, round_trip=True))
    names = fields_of(kind)
    if names is None:
        return None
    # written out, since a loop over the fields would take three times as long
    parts = ", ".join(
        f"{sent!r}: v.{name} if type(v.{name}) in simple else plain(v.{name})" for name, sent in names.items()
    )
    made: Encoder = eval(f"lambda v: {{{parts}}}", {"simple": _PLAIN, "plain": plain})
    tag = kind.__struct_config__.tag if is_struct(kind) else None
    if tag is not None:
        field = kind.__struct_config__.tag_field
        return lambda value: {field: tag, **made(value)}
    return _by_its_dict(made, len(names)) if _is_simple(kind) else made


def _is_simple(kind: type) -> bool:
    """Whether it is a dataclass whose fields are all of types that are packed as they are."""
    if not dataclasses.is_dataclass(kind) or not hasattr(kind, "__dict__"):
        return False
    try:
        hints = typing.get_type_hints(kind)
    except (NameError, TypeError):
        return False
    return all(hints.get(one.name) in NATIVES for one in dataclasses.fields(kind))


def _by_its_dict(slowly: Encoder, count: int) -> Encoder:
    """The attributes as they stand, if there are no others beside the fields: nothing is copied before it is packed."""

    def encode(value: Any) -> dict[str, Any]:
        attributes: dict[str, Any] = getattr(value, "__dict__", {})
        return attributes if len(attributes) == count else slowly(value)

    return encode


def plain(value: Any) -> Any:
    """The value with all records, enums and paths in it made plain."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, tuple):
        # a named one too: as it goes within a plain dict
        return tuple(plain(one) for one in value)
    encode = encoder_of(kind)
    if encode is not None:
        return encode(value)
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, PurePath):
        return os.fspath(value)
    if kind.__module__ in _OF_PYDANTIC and kind.__name__.endswith(("Url", "Dsn")):
        return str(value)
    if isinstance(value, dict):
        return {_hashable(plain(key), key, "a key"): plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, (set, frozenset)):
        base = set if isinstance(value, set) else frozenset
        return base(_hashable(plain(one), one, "within a set") for one in value)
    return value


def _hashable(made: Any, value: Any, where: str) -> Any:
    if type(made) is dict:
        raise SerializeError(
            f"A {type(value).__qualname__} cannot be packed {where}: it is sent as a dict. Send a list of them."
        )
    return made
