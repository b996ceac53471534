"""The order of the tests: another one each time, the same one in all processes, and again by its seed."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest

TESTS = """
import pytest

@pytest.mark.parametrize("n", range(30))
def test_it(n):
    pass
"""
NAMES = ("test_one", "test_three", "test_two")
AS_WRITTEN = [f"{name}.py::test_it[{n}]" for name in NAMES for n in range(30)]
SEED = re.compile(r"order of the tests: --order-seed (\d+)")
TEST = re.compile(r"\S+::\S+")

Order = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def order_of(pytester: pytest.Pytester) -> Order:
    """Runs three modules of thirty tests with these arguments: the seed, and the order."""
    for name in NAMES:
        pytester.makepyfile(**{name: TESTS})

    def run(*arguments: str) -> tuple[int, list[str]]:
        done = pytester.runpytest("-v", "-p", "tests.support.order", *arguments)
        done.assert_outcomes(passed=90)
        seed = SEED.search(done.stdout.str())
        assert seed is not None
        return int(seed[1]), [test[0] for line in done.outlines if "PASSED" in line and (test := TEST.search(line))]

    return run


def test_the_order_is_another_each_time(order_of: Order) -> None:
    """Two runs differ; each has all tests, and those of a module follow each other."""
    (one, first), (other, second) = order_of(), order_of()
    assert one != other
    assert AS_WRITTEN not in (first, second)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(AS_WRITTEN)
    for order in (first, second):
        modules = [test.partition("::")[0] for test in order]
        assert sum(here != there for here, there in pairwise(modules)) == len(NAMES) - 1


@pytest.mark.slow
def test_a_seed_repeats_an_order(order_of: Order) -> None:
    """Also in a process of xdist; 0 is the order in which they are written."""
    seed, order = order_of()
    assert order_of("--order-seed", str(seed)) == (seed, order)
    assert order_of("--order-seed", str(seed), "-n", "1") == (seed, order)
    assert order_of("--order-seed", "0") == (0, AS_WRITTEN)


@pytest.mark.slow
def test_all_processes_have_the_same_order(order_of: Order) -> None:
    """Without a seed, too: xdist refuses processes that differ."""
    assert sorted(order_of("-n", "2")[1]) == sorted(AS_WRITTEN)
