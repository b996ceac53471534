"""Memory that is freed stays with a role's process, unless the user has decided otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

PROGRAM = """
import resource, sys
from zmqpipeline.runtime.tuning import keep_freed_memory

kept = sys.argv[1] == "keep" and keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    held = [bytearray(1 << 20) for _ in range(6)]
    held.clear()

use()
before = faults()
for _ in range(50):
    use()
print(int(kept), faults() - before)
"""


def outcome(how: str, **variables: str) -> tuple[bool, int]:
    """Whether memory was kept, and how many pages the system made for fifty times six buffers of a megabyte."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], env={**environ, **variables}, capture_output=True, text=True, check=True
    )
    kept, pages = done.stdout.split()
    return kept == "1", int(pages)


def test_buffers_of_a_megabyte_are_made_of_what_was_freed() -> None:
    """The system makes a tenth of the pages at most, where the C library is glibc; elsewhere all is as it was."""
    kept, pages = outcome("keep")
    assert kept == (platform.libc_ver()[0] == "glibc")
    assert not kept or 10 * pages < outcome("leave")[1]


def test_the_users_word_counts() -> None:
    """Who has set how memory is handled has it so."""
    kept, _ = outcome("keep", MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
