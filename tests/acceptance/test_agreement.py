"""What the page, `/metrics` and the summary say after kills: `tests.acceptance.agreement`, some seeds of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.acceptance.agreement import one_run

if TYPE_CHECKING:
    from tests.acceptance.conftest import Workshop

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_page_metrics_and_summary_agree_after_kills(workshop: Workshop, seed: int) -> None:
    """In the fourth one the distributor is killed while `finished` is at work, too."""
    one_run(workshop, seed)
