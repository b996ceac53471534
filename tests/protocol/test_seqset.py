"""The set of ranges behaves like a plain set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, pairs, size, spans_of

NUMBERS = st.integers(0, 60)
RANGES = st.tuples(NUMBERS, NUMBERS)
PLAIN = st.sets(NUMBERS)


@given(st.lists(st.tuples(st.sampled_from(["add", "discard"]), NUMBERS, NUMBERS), max_size=30))
def test_adding_and_discarding_ranges_is_that_of_a_set(steps: list[tuple[str, int, int]]) -> None:
    """After any ranges were added and taken out, members, length and spans are those of a plain set."""
    ours, plain = RangeSet(), set[int]()
    for what, start, stop in steps:
        getattr(ours, what)(start, stop)
        plain = plain | set(range(start, stop)) if what == "add" else plain - set(range(start, stop))
        assert len(ours) == len(plain)
        assert ours.spans() == spans_of(list(plain))
        assert {number for number in range(-1, 62) if number in ours} == plain


@given(PLAIN, PLAIN)
def test_missing_and_common_are_difference_and_intersection(mine: set[int], asked: set[int]) -> None:
    """Of the spans asked for, missing gives those that are not in the set, common those that are."""
    ours = RangeSet(spans_of(list(mine)))
    spans = spans_of(list(asked))
    assert set(numbers_of(ours.missing(spans))) == asked - mine
    assert set(numbers_of(ours.common(spans))) == asked & mine
    assert size(ours.missing(spans)) + size(ours.common(spans)) == len(asked)


@given(PLAIN, PLAIN)
def test_update_and_difference_update_take_whole_spans(mine: set[int], others: set[int]) -> None:
    """Adding or taking out all ranges of some spans is union and difference."""
    more, less = RangeSet(spans_of(list(mine))), RangeSet(spans_of(list(mine)))
    more.update(spans_of(list(others)))
    less.difference_update(spans_of(list(others)))
    assert set(numbers_of(more.spans())) == mine | others
    assert set(numbers_of(less.spans())) == mine - others


@given(st.lists(NUMBERS))
def test_spans_of_any_order_are_ascending_and_apart(numbers: list[int]) -> None:
    """Spans list each number once, ascending, with a gap between neighbouring ranges."""
    spans = spans_of(numbers)
    assert numbers_of(spans) == sorted(set(numbers))
    assert all(spans[i] < spans[i + 1] for i in range(len(spans) - 1)), "ranges are empty, touch or descend"
    assert size(spans) == len(set(numbers))


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=17, max_size=40))
def test_many_ranges_at_once_are_the_same_as_one_by_one(steps: list[tuple[int, int]]) -> None:
    """Whether they touch, overlap, are empty or out of order, or are as messages have them."""
    at, flat, one_by_one = 5, list[int](), RangeSet()
    for gap, length in steps:
        start, at = at + gap, at + gap + length
        flat += (start, at)
        one_by_one.add(start, at)
    at_once = RangeSet(tuple(flat))
    assert at_once == one_by_one
    assert len(at_once) == len(one_by_one) == len(numbers_of(at_once.spans()))


@given(RANGES)
def test_an_empty_or_reversed_range_changes_nothing(given_range: tuple[int, int]) -> None:
    """A range that holds no number neither adds nor takes out."""
    start, stop = max(given_range), min(given_range)
    ours = RangeSet((10, 20, 30, 40))
    ours.add(start, stop)
    ours.discard(start, stop)
    assert ours.spans() == (10, 20, 30, 40)


def test_a_million_in_order_are_one_range() -> None:
    """Neighbours merge, so that what is collected in order costs two integers."""
    ours = RangeSet()
    for start in range(0, 1_000_000, 1000):
        ours.add(start, start + 1000)
    assert ours.spans() == (0, 1_000_000)
    assert repr(ours) == "RangeSet((0, 1000000))"


def test_sets_are_equal_by_their_numbers_and_not_hashable() -> None:
    """Equality looks at the numbers, whatever way they came in; a mutable set is no key of a dict."""
    ours = RangeSet((3, 5))
    other = RangeSet((4, 5))
    other.add(3, 4)
    assert ours == other
    assert ours != RangeSet((3, 4))
    with pytest.raises(TypeError):
        hash(ours)


def test_pairs_refuses_half_a_range() -> None:
    """Spans with an odd number of ends are an error, not a range cut short."""
    with pytest.raises(ValueError, match="zip"):
        list(pairs((1, 2, 3)))
