"""Reading the fields of a message at once: the same values, and the same refusals, as one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqpipeline.errors import WireError
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.codec import _CODES
from zmqpipeline.protocol.fields import MAX_NAME, MAX_NUMBER, SPANS, at_once, plan

Read = Callable[[Any], Any]
PLANS = [plan(cls, SPANS)[0] for cls in _CODES]
ODD = (
    *(None, True, -1, 0, 1, MAX_NUMBER, MAX_NUMBER + 1, 0.0, -0.5, float("inf"), float("nan")),
    *("", "name", "\u00e9", "\ud800", "x" * (MAX_NAME + 1), b"", b"bytes", bytes(16)),
    *([], [0, 1], [1, 0], [0, 1, 1], ["a"], {}, (0, 1), [[0, 1], 0.5]),
)
"""Values of which each field takes some, and refuses others."""


def one_by_one(readers: Sequence[Read], values: list[Any]) -> Any:
    """What reading each by itself gives: the values, or the words of the refusal."""
    try:
        return [read(value) for read, value in zip(readers, values, strict=True)]
    except WireError as error:
        return str(error)


def all_at_once(readers: Sequence[Read], values: list[Any]) -> Any:
    """The same, of the function that is made for them."""
    try:
        return at_once(readers)(values)
    except WireError as error:
        return str(error)


@given(st.sampled_from([one for one in PLANS if one]), st.data())
def test_all_at_once_is_the_same_as_one_by_one(readers: list[Read], data: st.DataObject) -> None:
    """Whatever the values of a message are, it is read, or refused in the same words."""
    values = [data.draw(st.sampled_from(ODD)) for _ in readers]
    assert repr(all_at_once(readers, values)) == repr(one_by_one(readers, values))


@pytest.mark.parametrize("cls", [m.Work, m.Results, m.Ack, m.WorkerReport, m.Requests, m.Replies])
def test_each_field_alone_is_checked(cls: type) -> None:
    """Of a good message one value is replaced by an odd one, each in turn: no field is read without its check."""
    readers = plan(cls, SPANS)[0]
    good = [next(value for value in ODD[1:] if not isinstance(one_by_one([read], [value]), str)) for read in readers]
    refused = 0
    for at in range(len(readers)):
        for odd in ODD:
            values = [*good[:at], odd, *good[at + 1 :]]
            expected = one_by_one(readers, values)
            refused += isinstance(expected, str)
            assert repr(all_at_once(readers, values)) == repr(expected)
    assert refused >= len(readers)


def test_a_message_without_fields() -> None:
    """There is nothing to read, and nothing to refuse."""
    assert at_once([])([]) == []
