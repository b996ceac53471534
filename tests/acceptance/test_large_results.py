"""A short sample of `python -m tests.acceptance.large_results`: no role's memory follows a slow collector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.large_results import SMALL, watch

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = pytest.mark.processes


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_no_role_has_more_memory_than_is_allowed(workshop: Workshop, workers: int) -> None:
    """Results of 256 KiB for 4 s, 20 ms each in the collector: 300 MiB beyond `max_held_bytes`, and every item once."""
    watched = watch(workshop, seconds=4.0, workers=workers, bound=SMALL)
    assert not watched.problems, watched.line
    assert watched.collected > 20
