"""The tests' own free ports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ports
from tests.support.ports import Ports, free_ports

HOLD = """
import sys
from pathlib import Path
from tests.support import ports

ports.FIRST, ports.LAST = map(int, sys.argv[2:])
print(len(ports.Ports(Path(sys.argv[1])).free(5, ["127.0.0.1"])), flush=True)
sys.stdin.read()
"""


def test_two_processes_are_never_given_the_same_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nine ports five are for one process alone, bound or not; when it has ended, they are free again."""
    first, pledges = free_ports(9)[0], tmp_path / "pledges"
    monkeypatch.setattr(ports, "FIRST", first)
    monkeypatch.setattr(ports, "LAST", first + 9)
    command = [sys.executable, "-c", HOLD, str(pledges), str(first), str(first + 9)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "5\n"
        with pytest.raises(RuntimeError, match="No 5 neighbouring ports"):
            Ports(pledges).free(5, ["127.0.0.1"])
        other.communicate(timeout=60)
    assert len(Ports(pledges).free(5, ["127.0.0.1"])) == 5


def test_a_process_is_given_no_port_twice() -> None:
    """A hundred times four ports are four hundred."""
    assert len({port for _ in range(100) for port in free_ports(4)}) == 400
