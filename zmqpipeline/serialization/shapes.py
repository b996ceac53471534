"""What annotations stand for, decided by the types alone: nothing of a user is called."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import sys
import types
import typing
from typing import Any, TypeVar, Union

from zmqpipeline.serialization.records import NATIVES, is_model, is_struct

MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


class CannotCarry(Exception):
    """An annotation stands for values that are never sent, or not without a guess; its text says which, and where."""


class CannotEvaluate(Exception):
    """The annotations of a type's fields cannot be evaluated; its text says of which type, and why."""


def bare(annotation: Any) -> Any:
    """Without ``Annotated``, new types and aliases; of a type variable its bound."""
    while True:
        if isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, TypeVar):
            if annotation.__constraints__:
                return Union[annotation.__constraints__]  # noqa: UP007 - they are known only now
            annotation = Any if annotation.__bound__ is None else annotation.__bound__
        elif typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif not isinstance(annotation, type) and hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation


def is_union(annotation: Any) -> bool:
    """Whether it is ``A | B`` or ``Optional[A]``."""
    return typing.get_origin(annotation) in (Union, types.UnionType)


def is_plain(annotation: Any) -> bool:
    """Whether a parameter with this annotation takes the dict as it arrived."""
    annotation = bare(annotation)
    if annotation in (Any, object, None, dict) or isinstance(annotation, (str, typing.ParamSpecArgs)):
        return True
    if is_union(annotation):
        return all(one is type(None) or is_plain(one) for one in typing.get_args(annotation))
    return (typing.get_origin(annotation) or annotation) in MAPPINGS


def takes_dicts(annotation: Any) -> bool:
    """Whether some dict fits it."""
    annotation = bare(annotation)
    if is_plain(annotation):
        return annotation is not None
    if is_union(annotation):
        return any(takes_dicts(one) for one in typing.get_args(annotation))
    kind = typing.get_origin(annotation) or annotation
    if not isinstance(kind, type):
        return False
    if is_model(kind):
        model: Any = kind
        return not model.__pydantic_root_model__ or takes_dicts(model.model_fields["root"].annotation)
    return is_record(kind)


def is_record(kind: type) -> bool:
    """Whether its values are sent as dicts of their fields."""
    return (
        dataclasses.is_dataclass(kind)
        or typing.is_typeddict(kind)
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
        or hasattr(kind, "__attrs_attrs__")
        or is_struct(kind)
        or is_model(kind)
    )


def holds_record(annotation: Any) -> bool:
    """Whether it is a type of records, or a list, a union or the like of them."""
    annotation = bare(annotation)
    kind = typing.get_origin(annotation) or annotation
    return (isinstance(kind, type) and is_record(kind)) or any(map(holds_record, typing.get_args(annotation)))


def hints_of(kind: type) -> dict[str, Any]:
    """The annotations of a type's fields, evaluated.

    Raises:
        CannotEvaluate: they cannot be.
    """
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception as error:
        raise CannotEvaluate(f"the fields of {kind.__qualname__}: {type(error).__name__}: {error}") from error


def fields_to_take(wanted: Any) -> list[tuple[str, bool]] | None:
    """Name of each field, and whether it is required; None if it is no type of records."""
    if dataclasses.is_dataclass(wanted):
        return [(one.name, _is_required(one)) for one in dataclasses.fields(wanted) if one.init]
    if typing.is_typeddict(wanted):
        return [(name, _is_required_key(wanted, name, hint)) for name, hint in hints_of(wanted).items()]
    if issubclass(wanted, tuple) and hasattr(wanted, "_fields"):
        defaults = getattr(wanted, "_field_defaults", {})
        return [(name, name not in defaults) for name in wanted._fields]
    attributes = getattr(wanted, "__attrs_attrs__", None)
    if attributes is None:
        return None
    nothing = getattr(sys.modules.get("attr"), "NOTHING", None)
    return [(one.alias, one.default is nothing) for one in attributes if one.init]


def _is_required_key(wanted: Any, name: str, hint: Any) -> bool:
    # of annotations that are text Python itself has not seen what they say
    said = str(typing.get_origin(hint)).rpartition(".")[2]
    return said != "NotRequired" and (said == "Required" or name in wanted.__required_keys__)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def unwrapped(hint: Any) -> Any:
    """Without ``Required[...]`` and its like."""
    while typing.get_origin(hint) is not None and str(typing.get_origin(hint)).rpartition(".")[2] in (
        "Required",
        "NotRequired",
        "ReadOnly",
        "Final",
    ):
        hint = typing.get_args(hint)[0]
    return hint


def check_initvars(wanted: type, path: str) -> None:
    """Raise CannotCarry for a dataclass that is made of more than it keeps."""
    if not dataclasses.is_dataclass(wanted):
        return
    kept = {one.name for one in dataclasses.fields(wanted)}
    for name, hint in hints_of(wanted).items():
        if name not in kept and isinstance(hint, dataclasses.InitVar):
            raise CannotCarry(f"`{path}.{name}` is an InitVar, which a record does not keep")


def check_enum(wanted: type[enum.Enum], path: str) -> None:
    """Raise CannotCarry for an enum whose members are no plain values."""
    for member in wanted:
        if not _arrives_as_it_is(member.value):
            raise CannotCarry(f"`{path}` is {wanted.__qualname__}, and the value of {member.name} is {member.value!r}")


def _arrives_as_it_is(value: Any) -> bool:
    if type(value) in (tuple, list, set, frozenset):
        return all(map(_arrives_as_it_is, value))
    return isinstance(value, NATIVES) and not isinstance(value, enum.Enum)


def check_hashable(annotation: Any, path: str) -> None:
    """Raise CannotCarry for a record as a key or within a set: it travels as a dict."""
    annotation = bare(annotation)
    if is_union(annotation) or typing.get_origin(annotation) in (tuple, frozenset):
        for one in typing.get_args(annotation):
            check_hashable(one, path)
    kind = typing.get_origin(annotation) or annotation
    if isinstance(kind, type) and is_record(kind) and not issubclass(kind, tuple):
        raise CannotCarry(f"`{path}` is {kind.__qualname__}, which is sent as a dict, and no dict can be there")
