"""What user code raised, as text: also where there is no memory left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HUNGRY = """
import resource
from pathlib import Path
from zmqpipeline.runtime.error_text import trouble_of

def eat():
    eaten, size = [], 1 << 20
    while True:
        try:
            eaten.append(bytearray(size))
        except MemoryError:
            if size < 64:
                raise
            size //= 2

def fail():
    try:
        eat()
    except MemoryError as error:
        return trouble_of(error)

pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + (32 << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
for _ in range(20):
    print(fail().place)
"""


@pytest.mark.processes
def test_want_of_memory_is_told_when_there_is_none_left(tmp_path: Path) -> None:
    """A function took all memory of its process, to the last bytes: what it took is let go of before a word is made."""
    (tmp_path / "with_credit.py").write_text(HUNGRY)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "with_credit.py"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    line = HUNGRY[: HUNGRY.index("eaten.append")].count("\n") + 1
    assert done.stdout.splitlines() == [f"with_credit.py:{line} eat"] * 20
