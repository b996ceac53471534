"""From plain values to those that a function is annotated with: made once for each annotation, checked at each value.

A converter takes a value as it arrived and gives it as the annotation wants it, or raises `FieldError`, which says
which field, what was wanted, and what was found. Nothing is guessed: a float is no int, and a text no number.
"""

from __future__ import annotations

import collections.abc
import enum
import re
import sys
import typing
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from uuid import UUID

from zmqpipeline.errors import FieldError, RegistrationError
from zmqpipeline.serialization.records import is_model, is_struct
from zmqpipeline.serialization.shapes import (
    MAPPINGS,
    CannotCarry,
    CannotEvaluate,
    bare,
    check_enum,
    check_hashable,
    check_initvars,
    fields_to_take,
    hints_of,
    is_union,
    unwrapped,
)
from zmqpipeline.serialization.unions import Member, ambiguity, members_of

Convert = Callable[[Any], Any]
"""From a value as it arrived to what is wanted there."""

_AS_IT_IS = (bool, int, str, bytes, date, timedelta, Decimal, UUID)
_LISTS = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Iterable)
_SETS = (set, frozenset, collections.abc.Set)
_MISSING = object()


class _Misfit(Exception):
    """A value does not fit; `path` is where, from the record inwards, and grows on the way out."""

    def __init__(self, wanted: str, found: object = _MISSING) -> None:
        self.path = ""
        self.wanted, self.found = wanted, found

    def letter(self) -> str:
        """Which field, what was wanted, what was found."""
        if self.found is _MISSING:
            return f"`${self.path}` {self.wanted}."
        return f"`${self.path}` must be {self.wanted}, and is {_shown(self.found)}."


def converter(annotation: Any) -> Convert:
    """What converts values for this annotation; it raises `FieldError` for one that does not fit.

    Raises:
        CannotCarry: such values are never sent.
        CannotEvaluate: the annotations of some fields cannot be evaluated.
    """
    convert = _Maker().make(annotation, "$")

    def converted(value: Any) -> Any:
        try:
            return convert(value)
        except _Misfit as misfit:
            letter, cause = misfit.letter(), misfit.__cause__
        raise FieldError(letter) from cause

    return converted


class _Maker:
    """Makes the converters of one annotation; a type that holds itself is made once."""

    def __init__(self) -> None:
        self._made: dict[Any, Convert] = {}

    def make(self, wanted: Any, path: str) -> Convert:
        wanted = bare(wanted)
        if wanted in (Any, object, typing.Hashable):
            return _anything
        if wanted is None or wanted is type(None):
            return _exactly(type(None), "None")
        origin = typing.get_origin(wanted)
        if origin is not None:
            return self._make_generic(wanted, origin, typing.get_args(wanted), path)
        if not isinstance(wanted, type):
            raise CannotCarry(f"`{path}` is {wanted!r}")
        if wanted not in self._made:
            # what holds itself finds this one, which is filled in below
            made: list[Convert] = []
            self._made[wanted] = lambda value: made[0](value)  # noqa: PLW0108 - it is not there yet
            made.append(self._make_type(wanted, path))
            self._made[wanted] = made[0]
        return self._made[wanted]

    def _make_type(self, wanted: type, path: str) -> Convert:
        if wanted is float:
            return _float
        if wanted is datetime:
            return _instance(datetime, "a datetime")
        if wanted in _AS_IT_IS:
            return _exactly(wanted, _named(wanted))
        if issubclass(wanted, enum.Enum):
            check_enum(wanted, path)
            return _enum(wanted)
        if issubclass(wanted, PurePath):
            return _path(Path if wanted is PurePath else wanted)
        if wanted in (*MAPPINGS, *_LISTS, *_SETS, tuple):
            return self._make_generic(wanted, wanted, (), path)
        if getattr(wanted, "__module__", "") == "numpy":
            return _instance(wanted, f"a {wanted.__name__}")
        return self._make_record(wanted, path)

    def _make_record(self, wanted: type, path: str) -> Convert:
        if is_model(wanted):
            return _model(wanted)
        if is_struct(wanted):
            return _struct(sys.modules["msgspec"], wanted, path)
        fields = fields_to_take(wanted)
        if fields is None:
            raise CannotCarry(f"`{path}` is {wanted.__module__}.{wanted.__qualname__}")
        check_initvars(wanted, path)
        hints = hints_of(wanted)
        made = [
            _Field(name, hint, self.make(hint, f"{path}.{name}"), is_required)
            for name, is_required in fields
            for hint in [unwrapped(hints.get(name, Any))]
        ]
        convert = _record(wanted.__qualname__, made, dict if typing.is_typeddict(wanted) else wanted)
        return _named_tuple(wanted, convert) if issubclass(wanted, tuple) else convert

    def _make_generic(self, wanted: Any, origin: Any, args: tuple[Any, ...], path: str) -> Convert:
        if is_union(wanted):
            made = [self.make(one, path) for one in args]
            members = members_of(args)
            if (told := ambiguity(args, members)) is not None:
                raise CannotCarry(f"`{path}` is {told}: give each a required field that the others have not, or a tag")
            return _either(list(zip(members, made, strict=True)), str(wanted).replace("typing.", ""))
        if origin is typing.Literal:
            return _literal(args)
        if origin in MAPPINGS:
            key, value = args or (Any, Any)
            check_hashable(key, f"a key of {path}")
            return _mapping(self.make(key, f"a key of {path}"), self.make(value, f"{path}[...]"))
        if origin is tuple and args and args[-1] is not Ellipsis:
            return _tuple([self.make(one, f"{path}[{at}]") for at, one in enumerate(args)])
        if origin in (*_LISTS, *_SETS, tuple):
            element = self.make(args[0] if args else Any, f"{path}[...]")
            if origin is tuple:
                return _several(tuple, (tuple, list), element, "a tuple")
            if origin in _SETS:
                check_hashable(args[0] if args else Any, f"{path}[...]")
                kind = frozenset if origin is frozenset else set
                return _several(kind, (set, frozenset), element, f"a {kind.__name__}")
            return _several(list, (list, tuple), element, "a list")
        if isinstance(origin, type):
            # a record with parameters: its fields are checked as far as they are known without these
            return self.make(origin, path)
        raise CannotCarry(f"`{path}` is {wanted!r}")


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else f'{text[:57]}...'} ({_named(type(value))})"


def _refused(value: Any, name: str, said: str, path: str = "") -> _Misfit:
    """A value that the type itself does not take, by a validator or its `__post_init__`."""
    misfit = _Misfit(f"is {_shown(value)}, and does not fit {name}: {said.rstrip('.')}")
    misfit.path = path
    return misfit


def _named(kind: type) -> str:
    name = kind.__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _anything(value: Any) -> Any:
    return value


def _exactly(kind: type, name: str) -> Convert:
    def exactly(value: Any) -> Any:
        if type(value) is kind:
            return value
        raise _Misfit(name, value)

    return exactly


def _instance(kind: type, name: str) -> Convert:
    def instance(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        raise _Misfit(name, value)

    return instance


def _float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    raise _Misfit("a float", value)


def _enum(kind: type[enum.Enum]) -> Convert:
    def member(value: Any) -> Any:
        try:
            made = kind(value)
            # Python takes True and 1.0 for 1
            if made.value != value or isinstance(made.value, type(value)):
                return made
        except ValueError:
            pass
        known = ", ".join(repr(one.value) for one in list(kind)[:10])
        raise _Misfit(f"one of {known} ({kind.__qualname__})", value)

    return member


def _path(kind: type[PurePath]) -> Convert:
    def path(value: Any) -> Any:
        if type(value) is str:
            return kind(value)
        raise _Misfit("a path, as text", value)

    return path


def _literal(values: tuple[Any, ...]) -> Convert:
    def literal(value: Any) -> Any:
        if any(type(one) is type(value) and one == value for one in values):
            return value
        raise _Misfit(f"one of {', '.join(map(repr, values))}", value)

    return literal


def _either(pairs: list[tuple[Member, Convert]], name: str) -> Convert:
    kinds = {kind for member, _ in pairs for kind in member.kinds}
    # those that take what has this very type, as an int in the place of float; else all are tried
    by_kind = {kind: [(one, convert) for one, convert in pairs if not one.kinds or kind in one.kinds] for kind in kinds}

    def either(value: Any) -> Any:
        candidates = by_kind.get(type(value), pairs)
        if len(candidates) == 1:
            return candidates[0][1](value)
        if type(value) is dict and all(one.record is not None for one, _ in candidates):
            candidates = [pair for pair in candidates if pair[0].record is not None and pair[0].record.may_be(value)]
            if len(candidates) == 1:
                return candidates[0][1](value)
            raise _Misfit(f"just one of {name}" if candidates else name, value)
        for _, convert in candidates:
            try:
                return convert(value)
            except _Misfit:
                continue
        raise _Misfit(name, value)

    return either


def _inside(convert: Convert, value: Any, step: str) -> Any:
    try:
        return convert(value)
    except _Misfit as misfit:
        misfit.path = step + misfit.path
        raise


def _mapping(key: Convert, value: Convert) -> Convert:
    def mapping(given: Any) -> Any:
        if type(given) is not dict:
            raise _Misfit("a dict", given)
        if key is _anything and value is _anything:
            return given
        return {
            _inside(key, name, f"[the key {name!r}]"): _inside(value, one, f"[{name!r}]") for name, one in given.items()
        }

    return mapping


def _several(kind: type, accepted: tuple[type, ...], element: Convert, name: str) -> Convert:
    def several(given: Any) -> Any:
        if type(given) not in accepted:
            raise _Misfit(name, given)
        if element is _anything:
            return given if type(given) is kind else kind(given)
        try:
            return kind(map(element, given))
        except _Misfit:
            # again, to say where
            return kind(_inside(element, one, f"[{index}]") for index, one in enumerate(given))

    return several


def _tuple(elements: list[Convert]) -> Convert:
    def several(given: Any) -> Any:
        if type(given) not in (tuple, list) or len(given) != len(elements):
            raise _Misfit(f"a tuple of {len(elements)}", given)
        both = enumerate(zip(elements, given, strict=True))
        return tuple(_inside(convert, one, f"[{index}]") for index, (convert, one) in both)

    return several


class _Field(NamedTuple):
    """One field of a record."""

    name: str
    hint: Any
    convert: Convert
    is_required: bool

    def slowly(self, value: Any) -> Any:
        """Of a value that has not the very type that is wanted, or that is missing."""
        if value is not _MISSING:
            return _inside(self.convert, value, f".{self.name}")
        if self.is_required:
            misfit = _Misfit("is missing, and has no default")
            misfit.path = f".{self.name}"
            raise misfit
        return _MISSING


def _record(name: str, fields: list[_Field], build: Callable[..., Any]) -> Convert:
    """Written out for each type: what is checked most, that a field has its very type, costs no call."""
    space: dict[str, Any] = {"Misfit": _Misfit, "missing": _MISSING, "build": build, "refused": _refused}
    # what its `__post_init__` or a validator raises
    refused = f"except (ValueError, TypeError) as error: raise refused(value, {name!r}, str(error)) from error"
    names = ", ".join(f"{field.name!r}: x{at}" for at, field in enumerate(fields))
    # a TypedDict may have keys that are no names
    built = f"{{{names}}}" if build is dict else f"build({', '.join(f'{f.name}=x{at}' for at, f in enumerate(fields))})"
    lines = [
        "def record(value):",
        *_at_once(fields, built, refused),
        f"    if type(value) is not dict: raise Misfit({f'a dict with the fields of {name}'!r}, value)",
        "    get = value.get",
    ]
    for at, field in enumerate(fields):
        space[f"c{at}"], space[f"t{at}"] = field.slowly, field.hint
        lines.append(f"    x{at} = get({field.name!r}, missing)")
        exact = field.hint in (*_AS_IT_IS, float)
        condition = f"type(x{at}) is not t{at}" if exact else f"x{at} is missing" if field.convert is _anything else ""
        lines.append(f"    {f'if {condition}: ' if condition else ''}x{at} = c{at}(x{at})")
    optional = [f"x{at} is missing" for at, field in enumerate(fields) if not field.is_required]
    if optional:
        lines.append(f"    if {' or '.join(optional)}:")
        lines.append(f"        given = {{{names}}}")
        lines.append("        given = {name: one for name, one in given.items() if one is not missing}")
        lines.extend(("        try: return build(**given)", f"        {refused}"))
    lines.extend((f"    try: return {built}", f"    {refused}"))
    exec("\n".join(lines), space)
    made: Convert = space["record"]
    return made


def _at_once(fields: list[_Field], built: str, refused: str) -> list[str]:
    """The lines for a record of which all fields are there, and of the very types that are wanted."""
    if not fields or not all(field.hint in (*_AS_IT_IS, float) for field in fields):
        return []
    taken = "; ".join(f"x{at} = value[{field.name!r}]" for at, field in enumerate(fields))
    fit = " and ".join(f"type(x{at}) is t{at}" for at in range(len(fields)))
    return [
        "    try:",
        f"        {taken}",
        "    except (KeyError, TypeError, IndexError): pass",
        "    else:",
        f"        if {fit}:",
        f"            try: return {built}",
        f"            {refused}",
    ]


def _named_tuple(wanted: Any, convert: Convert) -> Convert:
    """Within other values it travels as a tuple; one that is alone as a dict of its fields."""
    names = [name for name, _ in fields_to_take(wanted) or ()]
    most = len(names)

    def named_tuple(value: Any) -> Any:
        if type(value) in (tuple, list) and len(value) <= most:
            value = dict(zip(names, value, strict=False))
        return convert(value)

    return named_tuple


def _struct(msgspec: Any, wanted: Any, path: str) -> Convert:
    natives = (bytes, bytearray, datetime, date, timedelta, UUID, Decimal)

    def other(kind: Any, value: Any) -> Any:
        # what msgspec does not know itself
        if issubclass(kind, PurePath) and type(value) is str:
            return (Path if kind is PurePath else kind)(value)
        if isinstance(value, kind):
            return value
        raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")

    try:
        # it tells what it does not take, such as a union of two Structs without tags
        msgspec.msgpack.Decoder(wanted, dec_hook=other)
    except (TypeError, NameError, SyntaxError) as error:
        raise CannotEvaluate(f"the fields of {wanted.__qualname__}: {type(error).__name__}: {error}") from error
    if wanted.__struct_config__.array_like:
        raise CannotCarry(f"`{path}` is {wanted.__qualname__}, an array (array_like=True): it is sent as a dict")

    def struct(value: Any) -> Any:
        try:
            return msgspec.convert(value, wanted, builtin_types=natives, dec_hook=other)
        except msgspec.ValidationError as error:
            said, _, path = str(error).partition(" - at `$")
            cause = error.__cause__
        path = path.rstrip("`")
        raise _refused(_at(value, path), wanted.__qualname__, said, path) from cause

    return struct


def _at(value: Any, path: str) -> Any:
    """What is found there, as far as the path says where that is."""
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        try:
            value = value[name or int(index)]
        except (LookupError, TypeError):
            return value
    return value


def _model(wanted: Any) -> Convert:
    # a field may come by its name, too, or as it is called when it is sent
    aliases = {
        other: one.validation_alias
        for name, one in wanted.model_fields.items()
        if isinstance(one.validation_alias, str)
        for other in (name, one.serialization_alias)
        if other != one.validation_alias and other is not None
    }

    def model(value: Any) -> Any:
        pydantic = sys.modules["pydantic"]
        if aliases and type(value) is dict:
            value = {name if (to := aliases.get(name)) is None or to in value else to: value[name] for name in value}
        try:
            return wanted.model_validate(value)
        except pydantic.ValidationError as error:
            first, cause = error.errors()[0], error
        path = "".join(f"[{one}]" if isinstance(one, int) else f".{one}" for one in first["loc"])
        if first["type"] == "missing":
            misfit = _Misfit("is missing, and has no default")
            misfit.path = path
            raise misfit from cause
        raise _refused(first["input"], wanted.__qualname__, first["msg"], path) from cause

    return model


def refuse(what: str, error: CannotCarry) -> RegistrationError:
    """The letter about an annotation that cannot be carried."""
    return RegistrationError(
        f"The {what} is annotated with what is never sent: {error}. Values that are sent are dicts, and records of "
        "them: dataclasses, TypedDicts, NamedTuples, enums, Path, datetime, date, timedelta, Decimal, UUID, numpy "
        "arrays; Structs of msgspec, attrs classes and models of pydantic. Annotate it with one of these, or with dict."
    )
