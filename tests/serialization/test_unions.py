"""What a union, a validator, a model or a tag makes of a record: told apart, refused, or said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import attrs
import msgspec
import pydantic
import pytest

from tests.serialization.test_convert import Colour, Level, there_and_back
from zmqpipeline.errors import FieldError
from zmqpipeline.serialization.convert import converter
from zmqpipeline.serialization.pack import pack, pack_item, unpack
from zmqpipeline.serialization.records import plain
from zmqpipeline.serialization.shapes import CannotCarry


@dataclass
class Cat:
    name: str


@dataclass
class Dog:
    name: str
    breed: str


@dataclass
class Circle:
    radius: float
    kind: Literal["circle"] = "circle"


@dataclass
class Disc:
    radius: float
    height: int = 1
    kind: Literal["disc"] = "disc"


@dataclass
class Car:
    wheels: int


@pytest.mark.parametrize(
    "annotation",
    [Cat | Dog, list[Cat | Dog], list[Cat] | list[Dog], dict[str, Any] | Cat, str | Path, str | Colour, int | Level],
)
def test_a_union_that_would_be_guessed_is_refused(annotation: Any) -> None:
    """The first member that fits is not the one that was sent."""
    with pytest.raises(CannotCarry, match="not told apart when they arrive"):
        converter(annotation)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Cat | Car, Car(3)),
        (Cat | Car | None, Cat("x")),
        (Circle | Disc, Disc(1.0)),
        (Disc | Circle, Circle(1.0)),
        (Colour | Level, Level.HIGH),
        (Literal["a"] | Level, "a"),
        (list[int] | Cat, Cat("x")),
    ],
)
def test_a_union_gives_what_was_sent(annotation: Any, value: Any) -> None:
    """By the required fields that others have not, or by a tag."""
    back = converter(annotation)(unpack(pack(plain(value))))
    assert (type(back), back) == (type(value), value)


def test_of_numbers_the_very_type_goes_first() -> None:
    """An int is a float only where no int is wanted."""
    for annotation in (float | int, int | float):
        assert type(converter(annotation)(3)) is int
        assert type(converter(annotation)(3.0)) is float
    assert type(converter(float | None)(3)) is float


def test_a_dict_that_fits_two_members_is_a_misfit() -> None:
    """It was not sent by a function that is typed."""
    with pytest.raises(FieldError, match=r"`\$` must be just one of .*Cat \| .*Car, and is \{"):
        converter(Cat | Car)({"name": "x", "wheels": 3})
    with pytest.raises(FieldError, match=r"`\$` must be .*Cat \| .*Car, and is \{\}"):
        converter(Cat | Car)({})


@dataclass
class Checked:
    n: int
    more: str = ""

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("negative")


class CheckedStruct(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError("negative")


@attrs.define
class CheckedThing:
    n: int = attrs.field(validator=attrs.validators.ge(0))


@pytest.mark.parametrize("annotation", [Checked, CheckedStruct, CheckedThing])
@pytest.mark.parametrize("data", [{"n": -1}, {"n": -1, "more": "x"}])
def test_what_a_type_itself_refuses_is_a_misfit(annotation: Any, data: Any) -> None:
    """Of each package, with what it said, and so not tried again."""
    with pytest.raises(FieldError, match=r"^`\$` is \{'n': -1.*\} \(a dict\), and does not fit Checked\w*: ") as caught:
        converter(annotation)(data)
    assert isinstance(caught.value.__cause__, ValueError)


class Aliased(pydantic.BaseModel, extra="forbid"):
    user: str = pydantic.Field(alias="userName")
    page: pydantic.HttpUrl
    inner: Aliased | None = None
    other: int = pydantic.Field(0, validation_alias="in", serialization_alias="out")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def length(self) -> int:
        """It is not sent."""
        return len(self.user)


def test_a_model_takes_what_it_sends() -> None:
    """By its aliases, without what is computed, and addresses as text; a name does, too."""
    inner = Aliased.model_validate({"userName": "b", "page": "http://b/"})
    value = Aliased.model_validate({"userName": "a", "page": "http://a/", "in": 3})
    assert there_and_back(value, Aliased) == value
    assert unpack(pack_item(value, "f"))["userName"] == "a"
    assert converter(Aliased)({"user": "b", "page": "http://b/"}) == inner


class TagA(msgspec.Struct, tag=True):
    n: int


class TagB(msgspec.Struct, tag="b", tag_field="kind"):
    n: int


class TagC(msgspec.Struct, tag=True):
    n: int


def test_tags_of_structs_are_sent() -> None:
    """They tell the members of a union apart."""
    for value in (TagA(1), TagC(1)):
        back = there_and_back(value, TagA | TagC)
        assert (type(back), back) == (type(value), value)
    assert unpack(pack_item(TagB(1), "f")) == {"kind": "b", "n": 1}
    assert there_and_back(TagB(1), TagB) == TagB(1)
