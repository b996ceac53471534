"""Tests in another order each time: a pytest plugin. The seed is said at the end, and `--order-seed` repeats it.

Modules are shuffled, and the tests in each, so that what a module sets up for all of its tests is set up once.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest

_KEY = "order_seed"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--order-seed N`."""
    parser.addoption(
        "--order-seed",
        type=int,
        metavar="N",
        help="shuffle the tests by this seed, as an earlier run said it; 0 leaves them as they are written",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed, unless one is given: on the command line, or by the process that hands out the tests."""
    if config.option.order_seed is None:
        handed = getattr(config, "workerinput", {}).get(_KEY)
        config.option.order_seed = handed or random.SystemRandom().randrange(1, 1_000_000)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of xdist, which must have the same order as the others."""
    node.workerinput[_KEY] = node.config.option.order_seed


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Shuffle."""
    seed = config.option.order_seed
    if seed:
        items[:] = shuffled(items, seed)


def shuffled(items: list[pytest.Item], seed: int) -> list[pytest.Item]:
    """The same tests in the order of this seed."""
    modules = defaultdict(list)
    for item in items:
        modules[item.nodeid.partition("::")[0]].append(item)
    draw = random.Random(seed)
    names = sorted(modules)
    draw.shuffle(names)
    for name in names:
        draw.shuffle(modules[name])
    return [item for name in names for item in modules[name]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what repeats this order."""
    terminalreporter.write_line(f"order of the tests: --order-seed {config.option.order_seed}")
