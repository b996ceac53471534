"""An API with limits, scaled down; `python -m tests.acceptance.api_limits` is the whole of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.api_limits import run

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop


@pytest.mark.processes
@pytest.mark.slow
def test_none_is_refused_after_the_first_pause_though_everything_is_killed(workshop: Workshop) -> None:
    """And it is paid for the prompts and what was in flight."""
    run(workshop, 1500, 300).check()
