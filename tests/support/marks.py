"""No test is run twice: a pytest plugin. A test has at most one of the marks that the steps of `.ci/run` choose by."""

from __future__ import annotations

import pytest

SETS = ("slow", "alone")
"""The marks that pyproject.toml deselects; each is a step of `.ci/run`."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test that would be run twice."""
    for item in items:
        if len([name for name in SETS if item.get_closest_marker(name)]) > 1:
            raise pytest.UsageError(f"{item.nodeid} is marked as {' and as '.join(SETS)}: choose one.")
