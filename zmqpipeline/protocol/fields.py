"""The fields of messages: how each kind is checked, read and written. The plan is made from the annotations.

One call a field is what most of a short message costs to read. So the first message of a type makes a function that
checks what is plain, names, numbers and flags, in one expression, as `dataclasses` makes an ``__init__``; what it does
not take goes the long way, field by field, which says what is wrong.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

from zmqpipeline.errors import WireError
from zmqpipeline.protocol import messages as m

MAX_NUMBER = 1 << 62
"""The largest number that is read: what is counted together from several of them still fits into a message."""

MAX_NAME = 4096
"""The most characters of a name: of a task, a run, a host. Texts for people may be longer."""

MAX_TEXT = 128 * 1024
"""The most characters of those texts; this library cuts a traceback at half of it."""

_FOR_PEOPLE = frozenset(("error", "message", "traceback", "reason", "why"))

_INTS = {int}

Codec: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""The reader and the writer of a field."""


Reader: TypeAlias = Callable[[Any], Any]
"""Checks a value, and returns it as it is kept; raises WireError."""


def same(value: Any) -> Any:
    """The writer of what is written as it is."""
    return value


def _text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise WireError(f"a text field holds something else, or more than {MAX_TEXT} characters")
    return value if value.isascii() else _encodable(value)


def _name(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_NAME:
        raise WireError(f"a name that is no text, or longer than {MAX_NAME} characters")
    return value if value.isascii() else _encodable(value)


def _encodable(text: str) -> str:
    """With each lone surrogate as its escape: no journal, terminal or file of UTF-8 takes one."""
    return text.encode("utf-8", "backslashreplace").decode()


def _digest(value: Any) -> bytes:
    if type(value) is not bytes or len(value) not in (0, m.KEY_BYTES):
        raise WireError(f"a key that is no digest of {m.KEY_BYTES} bytes")
    return value


def blob(value: Any) -> bytes:
    """Read bytes."""
    if type(value) is not bytes:
        raise WireError("a bytes field holds something else")
    return value


def count(value: Any) -> int:
    """Read a number that is not negative."""
    if type(value) is not int or not 0 <= value <= MAX_NUMBER:
        raise WireError("a number field holds something else, is negative, or too large")
    return value


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise WireError("a yes-or-no field holds something else")
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        raise WireError("a field of seconds holds something else")
    return float(value)


def _spans(value: Any) -> m.Spans:
    if type(value) is not list or len(value) % 2:
        raise WireError("spans are not a list of pairs")
    if not value:
        return ()
    if len(value) == 2:
        start, stop = value
        if type(start) is int is type(stop) and 0 <= start < stop <= MAX_NUMBER:
            return start, stop
    last = -1
    for i in range(0, len(value), 2):
        start, stop = value[i], value[i + 1]
        if type(start) is not int or type(stop) is not int or not last < start < stop:
            raise WireError("spans are not ascending ranges of numbers")
        last = stop - 1
    if last > MAX_NUMBER:
        raise WireError(f"spans beyond {MAX_NUMBER}")
    return tuple(value)


def _differences(spans: m.Spans) -> list[int]:
    return [second - first for first, second in zip((0, *spans), spans, strict=False)]


def _spans_of_differences(value: Any) -> m.Spans:
    """What `_differences` made. Nothing is built before it is known to be spans."""
    if type(value) is not list or len(value) % 2 or not set(map(type, value)) <= _INTS:
        raise WireError("spans are not a list of pairs")
    if value and (min(value) < 0 or min(value[1::2]) < 1 or sum(value) > MAX_NUMBER):
        raise WireError("spans are not ascending ranges of numbers")
    return tuple(accumulate(value))


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _many(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    def read_list(value: Any) -> list[Any]:
        if type(value) is not list:
            raise WireError("a list field holds something else")
        return [read(one) for one in value]

    return read_list


def _record(cls: type, spans: Codec) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The reader and the writer of a nested dataclass, which travels as the list of its fields."""
    readers, writers = plan(cls, spans)
    names = [one.name for one in dataclasses.fields(cls)]

    def read(value: Any) -> Any:
        if type(value) is not list or len(value) != len(readers):
            raise WireError(f"a {cls.__name__} has the wrong number of fields")
        return cls(*[reader(one) for reader, one in zip(readers, value, strict=True)])

    def write(value: Any) -> list[Any]:
        return [writer(getattr(value, name)) for writer, name in zip(writers, names, strict=True)]

    return read, write


def _codec(annotation: str, spans: Codec) -> Codec:
    """Reader and writer of one annotated field."""
    if annotation.endswith(" | None"):
        read, write = _codec(annotation.removesuffix(" | None"), spans)
        return _optional(read), write if write is same else _optional(write)
    if annotation.startswith("list["):
        read, write = _codec(annotation[5:-1], spans)
        return _many(read), lambda values: [write(one) for one in values]
    if annotation == "Spans":
        return spans
    simple: dict[str, Callable[[Any], Any]] = {
        "str": _text, "name": _name, "bytes": blob, "int": count, "bool": _flag, "float": _seconds,
        "key": _digest,
    }  # fmt: skip
    if annotation in simple:
        return simple[annotation], same
    return _record(getattr(m, annotation), spans)


def plan(cls: type, spans: Codec) -> tuple[list[Reader], list[Callable[[Any], Any]]]:
    """The readers and the writers of the fields of a message, but for its payloads, in order."""
    pairs = [_codec(_kind(one), spans) for one in dataclasses.fields(cls) if one.type != "Blobs"]
    return [read for read, _ in pairs], [write for _, write in pairs]


def _kind(one: dataclasses.Field[Any]) -> str:
    """The annotation of a field; of those that are text, names are told from what people are told."""
    if one.type == "bytes" and one.name == "key":
        return "key"
    return "name" if one.type == "str" and one.name not in _FOR_PEOPLE else str(one.type)


SPANS: Codec = (_spans, same)
"""How spans travel in a header."""

LONG_SPANS: Codec = (_spans_of_differences, _differences)
"""How they travel in a frame of their own."""

_PLAIN: dict[Reader, str] = {
    _name: "type({0}) is str and len({0}) <= MAX_NAME and {0}.isascii()",
    count: "type({0}) is int and 0 <= {0} <= MAX_NUMBER",
    blob: "type({0}) is bytes",
    _flag: "type({0}) is bool",
    _seconds: "type({0}) is float and 0.0 <= {0} < inf",
}
"""What a reader gives back as it is, as an expression of its value."""


def at_once(readers: Sequence[Reader]) -> Callable[[list[Any]], list[Any]]:
    """A function that reads as many values as there are readers, each by its own, and raises what they raise."""
    names = [f"value{at}" for at in range(len(readers))]
    if not names:
        return lambda values: []
    plain = [_PLAIN[read].format(name) for name, read in zip(names, readers, strict=True) if read in _PLAIN]
    made = [
        name if read in _PLAIN else f"readers[{at}]({name})"
        for at, (name, read) in enumerate(zip(names, readers, strict=True))
    ]
    source = f"""
def read_all(values):
    {", ".join(names)}, = values
    if {" and ".join(plain) or True}:
        return [{", ".join(made)}]
    return [read(value) for read, value in zip(readers, values)]
"""
    known = {"readers": readers, "MAX_NAME": MAX_NAME, "MAX_NUMBER": MAX_NUMBER, "inf": math.inf}
    exec(source, known)
    return known["read_all"]  # type: ignore[return-value]
