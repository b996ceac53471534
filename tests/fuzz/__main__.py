"""``python -m tests.fuzz --frames 1000000 --seed 1``: hostile frames to each socket of real roles, beside a real run.

It checks that no role raises, that none grows by 50 MB, and that every item comes back once, with the right value.
``--atheris SECONDS`` looks for bytes that the decoder stumbles over instead, led by its coverage.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.course import course


def main() -> int:
    """The command; 0 if nothing went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--frames", type=int, default=1_000_000, help="how many messages are sent (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--atheris", type=int, metavar="SECONDS", help="feed the decoder, led by coverage, instead")
    given = parser.parse_args()
    if given.atheris is not None:
        from tests.fuzz.coverage import look

        return look(given.atheris, given.seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        found = course(given.frames, given.seed, Path(folder))
    print(found)
    for one in found.wrong:
        print(one, file=sys.stderr)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
