"""Hostile peers at each socket of a real run over tcp: garbage, damaged and old messages, and lies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import ROOT
from tests.fuzz.course import course
from tests.fuzz.frames import KINDS

pytestmark = pytest.mark.processes


@pytest.mark.slow
def test_a_run_finishes_while_hostile_peers_talk_to_each_socket(tmp_path: Path) -> None:
    """Each item comes back once and right, each request is answered, nobody raises, grows or stays."""
    found = course(8000, 1, tmp_path)
    assert found.wrong == []
    assert found.sent.total() >= 8000
    assert set(found.sent) == set(KINDS)
    assert found.items > 300
    assert found.requests > 0


def test_the_longer_look_says_what_it_needs() -> None:
    """Without atheris it is one line, and the status 2."""
    command = [
        sys.executable,
        "-c",
        "import sys; sys.modules['atheris'] = None; from tests.fuzz.__main__ import main; sys.exit(main())",
    ]
    done = subprocess.run([*command, "--atheris", "1"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "pip install atheris" in done.stderr
