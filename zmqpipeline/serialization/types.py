"""The extension types of `pack`: for each Python type that msgpack does not know, its code, dumper and loader.

The codes are part of the format: never change the meaning of one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgpack import ExtType

from zmqpipeline.serialization import arrays

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

TUPLE, SET, FROZENSET, INT, DATETIME, DATE, TIMEDELTA, DECIMAL, UUID_, ARRAY, SCALAR, RAW_ARRAY = range(1, 13)

CONTAINERS = (dict, list, tuple, set, frozenset)
"""The containers: their subclasses are packed as the first of these that they belong to."""


class Mark:
    """What the first element of a marked array is loaded as: `build` makes the container of the others."""

    __slots__ = ("build",)

    def __init__(self, build: Callable[[list[Any]], Any]) -> None:
        """`build` is one of the types tuple, set and frozenset."""
        self.build = build


_MARKS = {TUPLE: Mark(tuple), SET: Mark(set), FROZENSET: Mark(frozenset)}
MARK_OF_TUPLE, _SET, _FROZENSET = (ExtType(code, b"") for code in (TUPLE, SET, FROZENSET))


def _dump_int(value: int) -> Any:
    plain = int.__index__(value)
    if -(1 << 63) <= plain < 1 << 64:
        return plain
    return ExtType(INT, plain.to_bytes(plain.bit_length() // 8 + 1, "big", signed=True))


def _load_int(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _dump_datetime(value: datetime) -> ExtType:
    text = datetime.isoformat(value)
    zone = _name_of_zone(value)
    if zone:
        text += f"|{value.fold}|{zone}"
    elif value.fold:
        text += f"|{value.fold}"
    return ExtType(DATETIME, text.encode())


@cache
def _zone_info() -> type[ZoneInfo]:
    """The class, imported by the first value that has a zone."""
    from zoneinfo import ZoneInfo

    return ZoneInfo


def _name_of_zone(value: datetime) -> str:
    """The key of its ZoneInfo, or "" if it has none, or another kind of zone."""
    if value.tzinfo is None:
        return ""
    return (value.tzinfo.key or "") if isinstance(value.tzinfo, _zone_info()) else ""


def _load_datetime(data: bytes) -> datetime:
    text, *rest = data.decode().split("|", 2)
    value = datetime.fromisoformat(text)
    if not rest:
        return value
    value = value.replace(fold=int(rest[0]))
    if len(rest) == 1:
        return value
    try:
        return value.replace(tzinfo=_zone_info()(rest[1]))
    except (LookupError, OSError):
        # This machine does not know the zone: the same moment, with the offset that the sender saw.
        return value


def _dump_timedelta(value: timedelta) -> ExtType:
    return ExtType(TIMEDELTA, f"{value.days},{value.seconds},{value.microseconds}".encode())


def _load_timedelta(data: bytes) -> timedelta:
    days, seconds, microseconds = data.decode().split(",")
    return timedelta(int(days), int(seconds), int(microseconds))


_DUMPERS: dict[type, Callable[[Any], Any]] = {
    tuple: lambda value: [MARK_OF_TUPLE, *value],
    set: lambda value: [_SET, *value],
    frozenset: lambda value: [_FROZENSET, *value],
    dict: dict,
    list: list,
    str: str.__str__,
    int: _dump_int,
    float: float.__float__,
    bytes: lambda value: bytes(memoryview(value)),
    datetime: _dump_datetime,
    date: lambda value: ExtType(DATE, date.isoformat(value).encode()),
    timedelta: _dump_timedelta,
    Decimal: lambda value: ExtType(DECIMAL, Decimal.__str__(value).encode()),
    UUID: lambda value: ExtType(UUID_, value.bytes),
}


def find_dumper(kind: type) -> Callable[[Any], Any] | None:
    """Return what makes a value of this type, or of a subclass of a known one, packable; None for an unknown one."""
    dump = _DUMPERS.get(kind)
    if dump is None:
        for base in kind.__mro__[1:-1]:
            if base in _DUMPERS:
                return _DUMPERS[base]
    return dump


def dump_numpy(numpy: Any, value: Any) -> ExtType:
    """Return an array or a scalar of numpy. Raises ValueError for one that holds objects."""
    if not arrays.is_plain(numpy, value):
        return ExtType(ARRAY if type(value) is numpy.ndarray else SCALAR, arrays.in_file_format(numpy, value))
    header, memory = arrays.split(numpy, value)
    return ExtType(RAW_ARRAY, b"".join((header, memory)))


LOADERS: dict[int, Callable[[bytes], Any]] = {
    TUPLE: lambda _: _MARKS[TUPLE],
    SET: lambda _: _MARKS[SET],
    FROZENSET: lambda _: _MARKS[FROZENSET],
    INT: _load_int,
    DATETIME: _load_datetime,
    DATE: lambda data: date.fromisoformat(data.decode()),
    TIMEDELTA: _load_timedelta,
    DECIMAL: lambda data: Decimal(data.decode()),
    UUID_: lambda data: UUID(bytes=data),
    ARRAY: arrays.load_file_format,
    SCALAR: lambda data: arrays.load_file_format(data)[()],
    RAW_ARRAY: arrays.load,
}
"""What makes the value again, by the code of the extension."""
