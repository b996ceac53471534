"""Records as plain dicts and back, by annotation: what fits arrives as it was, what does not is said."""

from __future__ import annotations

import enum
import timeit
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict
from uuid import UUID

import attrs
import msgspec
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import NotRequired

from zmqpipeline.errors import FieldError, SerializeError
from zmqpipeline.serialization.convert import converter
from zmqpipeline.serialization.pack import item_packer, pack_item, unpack
from zmqpipeline.serialization.records import plain
from zmqpipeline.serialization.shapes import CannotCarry, CannotEvaluate, is_plain


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Size(NamedTuple):
    width: int
    height: int = 7


class Row(TypedDict):
    n: int
    note: NotRequired[str]


@dataclass
class Point:
    x: int
    y: int


@dataclass(frozen=True)
class Shape:
    name: str
    corners: list[Point]
    colour: Colour = Colour.RED
    size: Size | None = None
    where: Path = Path("here")
    tags: frozenset[str] = frozenset()
    by_name: dict[str, Point] = field(default_factory=dict)
    pair: tuple[int, str] = (0, "")
    inner: Shape | None = None


class Struct(msgspec.Struct, rename="camel"):
    first_name: str
    points: list[int] = []


@attrs.define
class Thing:
    n: int
    _hidden: str = "h"


class Model(pydantic.BaseModel):
    n: int
    when: datetime
    kind: Colour = Colour.BLUE


def there_and_back(value: Any, annotation: Any) -> Any:
    """Packed, opened and converted."""
    return converter(annotation)(unpack(pack_item(value, "f")))


NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
SHAPE = Shape(
    "s",
    [Point(1, 2), Point(3, 4)],
    Colour.BLUE,
    Size(1, 2),
    Path("/a/b"),
    frozenset({"x", "y"}),
    {"p": Point(5, 6)},
    (3, "three"),
    Shape("inner", []),
)


@pytest.mark.parametrize(
    "value",
    [Point(1, 2), SHAPE, Size(3, 4), Struct("a", [1]), Thing(1, "x"), Model(n=1, when=NOW)],
    ids=lambda value: type(value).__name__,
)
def test_a_record_arrives_as_it_was_sent(value: Any) -> None:
    """Of each sort, with all that is in it."""
    back = there_and_back(value, type(value))
    assert back == value
    assert type(back) is type(value)


@dataclass
class Natives:
    i: int
    f: float
    s: str
    b: bytes
    flag: bool
    none: None
    when: datetime
    day: date
    span: timedelta
    money: Decimal
    key: UUID
    level: Level
    path: PurePosixPath
    word: Literal["a", "b"]
    any: Any
    seq: Sequence[int]
    either: int | str
    noted: Annotated[int, "a note"]
    array: np.ndarray


def natives() -> Natives:
    return Natives(
        *(1, 2.5, "s", b"b", True, None, NOW, date(2024, 1, 2), timedelta(3), Decimal("1.5"), UUID(int=7), Level.HIGH),
        *(PurePosixPath("/x"), "a", {"any": [1]}, [1, 2], "text", 3, np.arange(3)),
    )


def test_all_that_is_carried_may_be_in_a_record() -> None:
    """Each type by its annotation."""
    back = there_and_back(natives(), Natives)
    assert back.array.tolist() == [0, 1, 2]
    back.array = None
    expected = natives()
    expected.array = None  # type: ignore[assignment]
    assert back == expected
    assert [type(back.level), type(back.path)] == [Level, PurePosixPath]


WRONG = {
    "i": (1.5, "`$.i` must be an int, and is 1.5 (a float)."),
    "f": ("2", "`$.f` must be a float, and is '2' (a str)."),
    "s": (1, "`$.s` must be a str, and is 1 (an int)."),
    "flag": (1, "`$.flag` must be a bool, and is 1 (an int)."),
    "when": (date(2024, 1, 1), "`$.when` must be a datetime, and is datetime.date(2024, 1, 1) (a date)."),
    "day": (NOW, "`$.day` must be a date, and is "),
    "level": (3, "`$.level` must be one of 1, 2 (Level), and is 3 (an int)."),
    "path": (3, "`$.path` must be a path, as text, and is 3 (an int)."),
    "word": ("c", "`$.word` must be one of 'a', 'b', and is 'c' (a str)."),
    "seq": ([1, "two"], "`$.seq[1]` must be an int, and is 'two' (a str)."),
    "either": (1.5, "`$.either` must be int | str, and is 1.5 (a float)."),
    "array": ([1], "`$.array` must be a ndarray, and is [1] (a list)."),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_said_with_field_wanted_and_found(name: str) -> None:
    """Nothing is guessed: a float is no int, and a text no number."""
    value, said = WRONG[name]
    data = {**unpack(pack_item(natives(), "f")), name: value}
    with pytest.raises(FieldError) as caught:
        converter(Natives)(data)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("annotation", "data", "said"),
    [
        (Point, {"x": 1}, "`$.y` is missing, and has no default."),
        (Point, [1, 2], "`$` must be a dict with the fields of Point, and is [1, 2] (a list)."),
        (Shape, {"name": "s", "corners": [{"x": 1, "y": "2"}]}, "`$.corners[0].y` must be an int, and is '2' (a str)."),
        (Shape, {"name": "s", "corners": [], "by_name": {"a": {"x": 1, "y": None}}}, "`$.by_name['a'].y` must be an"),
        (Shape, {"name": "s", "corners": [], "inner": {"name": 1, "corners": []}}, "`$.inner.name` must be a str"),
        (Row, {"note": "x"}, "`$.n` is missing"),
        (Size, {"width": 1, "height": 2.0}, "`$.height` must be an int"),
        (Thing, {"n": "1"}, "`$.n` must be an int"),
        (Struct, {"firstName": 1}, "`$.firstName` is 1 (an int), and does not fit Struct: Expected `str`, got `int`."),
        (
            Model,
            {"n": "x", "when": NOW},
            "`$.n` is 'x' (a str), and does not fit Model: Input should be a valid integer",
        ),
    ],
)
def test_where_it_does_not_fit_is_said(annotation: Any, data: Any, said: str) -> None:
    """However deep it is."""
    with pytest.raises(FieldError) as caught:
        converter(annotation)(data)
    assert str(caught.value).startswith(said)


def test_what_has_a_default_may_be_missing_and_what_is_unknown_is_left_out() -> None:
    """So that fields may be added on one side first."""
    assert converter(Size)({"width": 1}) == Size(1, 7)
    assert converter(Row)({"n": 1}) == {"n": 1}
    assert converter(Row)({"n": 1, "note": "x", "more": 2}) == {"n": 1, "note": "x"}
    assert converter(Point)({"x": 1, "y": 2, "z": 3}) == Point(1, 2)
    assert converter(Shape)({"name": "s", "corners": []}) == Shape("s", [])


class Plain:
    """No record."""


@dataclass
class Holds:
    it: Plain


@pytest.mark.parametrize(("annotation", "where"), [(Plain, "`$` is"), (Holds, "`$.it` is"), (list[Plain], "`$[...]`")])
def test_what_is_never_sent_is_refused_when_the_converter_is_made(annotation: Any, where: str) -> None:
    """With its place."""
    with pytest.raises(CannotCarry) as caught:
        converter(annotation)
    assert str(caught.value).startswith(where)
    assert "Plain" in str(caught.value)


Number = NewType("Number", int)


def test_other_forms_of_annotations() -> None:
    """New types, type variables, optional ones, containers without parameters."""
    assert converter(Number)(3) == 3
    assert converter(Point | None)(None) is None
    assert converter(list)([1, "a"]) == [1, "a"]
    assert converter(tuple[int, ...])([1, 2]) == (1, 2)
    assert converter(float)(3) == 3.0
    assert type(converter(float)(3)) is float


@pytest.mark.parametrize("annotation", [Any, dict, dict[str, int], None, dict[str, Any] | None, object])
def test_a_plain_dict_is_not_looked_at(annotation: Any) -> None:
    """It costs nothing."""
    assert is_plain(annotation)


class Out(TypedDict):
    colour: Colour
    path: Path
    size: Size
    points: list[Point]


Odd = TypedDict("Odd", {"content-type": str, "class": int})
OddOptional = TypedDict("OddOptional", {"content-type": str, "class": int}, total=False)


def test_a_plain_dict_may_hold_enums_paths_and_records() -> None:
    """As a TypedDict does; a named tuple in it is a tuple, and arrives as what is wanted."""
    out = Out(colour=Colour.RED, path=Path("a"), size=Size(1, 2), points=[Point(1, 2)])
    expected = {"colour": "red", "path": "a", "size": (1, 2), "points": [{"x": 1, "y": 2}]}
    assert unpack(pack_item(out, "f")) == unpack(item_packer("f")(out)) == expected
    assert there_and_back(out, Out) == out
    with pytest.raises(TypeError, match=r"`\$\.it` is a Plain"):
        pack_item({"it": Plain()}, "f")


def test_keys_of_a_typed_dict_that_are_no_names() -> None:
    """They are keys of a dict."""
    data = {"content-type": "x", "class": 1}
    assert there_and_back(data, Odd) == there_and_back(data, OddOptional) == data
    assert there_and_back({"class": 1}, OddOptional) == {"class": 1}
    with pytest.raises(FieldError, match=r"is missing"):
        converter(Odd)({"class": 1})


@dataclass
class Seeded:
    x: int
    seed: InitVar[int]


@dataclass(frozen=True)
class Frozen:
    x: int


@dataclass
class InSet:
    s: set[Frozen]


@dataclass
class AsKey:
    s: dict[Frozen, int]


class OfPoints(enum.Enum):
    A = Point(1, 2)


class Array(msgspec.Struct, array_like=True):
    n: int


class PlainStruct(msgspec.Struct):
    a: Point | Five


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Seeded, "`$.seed` is an InitVar"),
        (InSet, "`$.s[...]` is Frozen, which is sent as a dict"),
        (AsKey, "`a key of $.s` is Frozen, which is sent as a dict"),
        (OfPoints, "`$` is OfPoints, and the value of A is Point(x=1, y=2)"),
        (Array, "`$` is Array, an array"),
        (PlainStruct, "the fields of PlainStruct: TypeError: "),
    ],
)
def test_what_would_fail_each_item_is_refused_when_the_converter_is_made(annotation: Any, said: str) -> None:
    """By its type."""
    with pytest.raises((CannotCarry, CannotEvaluate)) as caught:
        converter(annotation)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("value", [InSet({Frozen(1)}), AsKey({Frozen(1): 1}), {"s": {Frozen(1)}}])
def test_a_record_where_no_dict_can_be_is_refused_with_a_letter(value: Any) -> None:
    """On the side that sends it."""
    with pytest.raises(SerializeError, match="A Frozen cannot be packed"):
        pack_item(value, "f")


@dataclass
class Tuples:
    any: tuple[Any, ...]
    size: Size
    some: set[Size]


class Files(msgspec.Struct):
    path: Path
    size: Size = Size(1)


def test_named_tuples_and_paths_within_records() -> None:
    """They arrive as they are wanted."""
    assert there_and_back(Tuples(Size(1, 2), Size(3), {Size(5)}), Tuples) == Tuples((1, 2), Size(3), {Size(5)})
    assert there_and_back(Files(Path("a")), Files) == Files(Path("a"))
    with pytest.raises(FieldError, match="path"):
        converter(Files)({"path": 1})


@pytest.mark.parametrize("value", [True, 1.0])
def test_an_enum_of_ints_takes_ints_alone(value: Any) -> None:
    """True and 1.0 equal 1."""
    with pytest.raises(FieldError, match="must be one of 1, 2"):
        converter(Level)(value)


@pytest.mark.slow
@given(st.recursive(st.integers() | st.text() | st.none(), lambda inner: st.lists(inner) | st.tuples(inner, inner)))
def test_plain_values_are_plain_already(value: Any) -> None:
    """Making them plain changes nothing."""
    assert plain(value) == value


@dataclass
class Five:
    a: int
    b: int
    c: str
    d: float
    e: bool


@pytest.mark.alone
def test_a_small_record_costs_little_more_than_a_dict() -> None:
    """Converted, handed back and packed: below 3 us beyond the dict."""
    data = {"a": 1, "b": 2, "c": "three", "d": 4.0, "e": True}
    convert, pack_one = converter(Five), item_packer("f")
    typed = untyped = 1.0
    for tries in range(100):
        typed = min(typed, timeit.timeit(lambda: pack_one(convert(data)), number=20000) / 20000)
        untyped = min(untyped, timeit.timeit(lambda: pack_one(data), number=20000) / 20000)
        if tries >= 4 and typed - untyped < 3e-6:
            return
    raise AssertionError(f"{typed * 1e6:.2f} us, a dict {untyped * 1e6:.2f} us")
