"""How many files a role may have open: each worker is one more."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = """
import resource
from zmqpipeline.runtime.tuning import raise_file_limit

resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
raise_file_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "then"), [(256, 1024, 1024), (1024, 1024, 1024)], ids=["raised to what it may", "as it is"]
)
def test_a_role_asks_for_the_files_that_it_may_have(soft: int, hard: int, then: int) -> None:
    """The limit of the process, not that of the system."""
    program = LOOK.format(soft=soft, hard=hard)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(then), str(hard)]
