"""The dataclass of messages: equal and hashed by its fields; frozen in the development mode."""

from __future__ import annotations

import subprocess
import sys

import pytest

from zmqpipeline.protocol import messages as m

CHANGE = """
from zmqpipeline.protocol import messages as m
said = m.RunEnded("run")
said.run = "another"
"""


def test_messages_are_equal_and_hashed_by_their_fields() -> None:
    """Two that say the same are one in a set; two that differ, or are of different kinds, are not."""
    assert m.Bye("a") == m.Bye("a") != m.Bye("b")
    assert {m.Bye("a"), m.Bye("a"), m.Bye("b"), m.Recall("a", "A", 1)} == {
        m.Bye("a"),
        m.Bye("b"),
        m.Recall("a", "A", 1),
    }


@pytest.mark.processes
def test_the_development_mode_refuses_changes() -> None:
    """With -X dev a message is truly frozen; without, it is as cheap to make as any object."""
    strict = subprocess.run([sys.executable, "-X", "dev", "-c", CHANGE], capture_output=True, text=True, timeout=60)
    assert "FrozenInstanceError" in strict.stderr
    assert subprocess.run([sys.executable, "-c", CHANGE], capture_output=True, timeout=60).returncode == 0
