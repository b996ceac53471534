"""Turns of threads while roles run: short ones, and afterwards what was set before."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from zmqpipeline.runtime.tuning import TURN, short_turns


@pytest.fixture(autouse=True)
def interval() -> Iterator[float]:
    """The interval as it is outside; as it was before, whatever a test does."""
    before = sys.getswitchinterval()
    yield before
    sys.setswitchinterval(before)


def is_short() -> bool:
    """Whether turns are as long as they are to be while roles run."""
    return abs(sys.getswitchinterval() - TURN) < TURN / 10


def test_the_last_of_several_roles_sets_back_what_was_set(interval: float) -> None:
    """Roles of one process may overlap: turns are short as long as one of them runs."""
    with short_turns():
        with short_turns():
            assert is_short()
        assert is_short()
    assert sys.getswitchinterval() == interval


def test_many_threads_have_longer_turns_and_the_shortest_counts() -> None:
    """A worker's turns grow with its threads, up to what was set; beside a role with one thread that one's count."""
    with short_turns(10):
        assert abs(sys.getswitchinterval() - 10 * TURN) < TURN / 10
        with short_turns():
            assert is_short()
        assert abs(sys.getswitchinterval() - 10 * TURN) < TURN / 10
    sys.setswitchinterval(0.005)
    with short_turns(1000):
        assert sys.getswitchinterval() == 0.005


def test_shorter_turns_of_the_program_are_left_alone() -> None:
    """A program that wants its threads to change still oftener has its reasons."""
    sys.setswitchinterval(TURN / 20)
    shorter = sys.getswitchinterval()
    with short_turns():
        assert sys.getswitchinterval() == shorter
    assert sys.getswitchinterval() == shorter


def test_turns_that_are_too_short_to_be_told_keep_no_role_from_running() -> None:
    """Whoever hunts races sets as little as there is; the interpreter then names 0, which it does not take back."""
    sys.setswitchinterval(1e-9)
    for _ in range(2):
        with short_turns():
            assert sys.getswitchinterval() <= 1e-6
        assert sys.getswitchinterval() <= 1e-6


def test_what_the_program_sets_meanwhile_stays() -> None:
    """The last word is that of user code."""
    with short_turns():
        sys.setswitchinterval(0.02)
    assert abs(sys.getswitchinterval() - 0.02) < 1e-6


def test_what_was_set_is_set_back_after_an_error(interval: float) -> None:
    """A role that fails leaves the process as it found it."""
    with pytest.raises(ValueError, match="the role fails"), short_turns():
        raise ValueError("the role fails")
    assert sys.getswitchinterval() == interval
