"""For all tests of the protocol: a broker."""

from __future__ import annotations

import pytest

from tests.support.services import Broker


@pytest.fixture
def broker() -> Broker:
    """A broker that has been up for a while."""
    return Broker()
