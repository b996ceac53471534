"""For all tests of the protocol: hypothesis without a time limit, since others share the machine; a broker."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.support.services import Broker

settings.register_profile("zmqpipeline", deadline=None)
settings.load_profile("zmqpipeline")


@pytest.fixture
def broker() -> Broker:
    """A broker that has been up for a while."""
    return Broker()
