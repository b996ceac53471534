"""What `examples.checksums` does, without zmqpipeline: a plain loop, or a Pool with chunks of 100.

Start it with ``python -m examples.benchmarks.plain_checksums FOLDER MANIFEST [WORKERS]``; without workers, it loops.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
from pathlib import Path

from examples.checksums import manifest

CHUNK = 100


def row(root: str, data: dict[str, str]) -> tuple[str, str]:
    """One line of the manifest: the path and the digest."""
    return data["path"], manifest.digest(root, data["path"])


def main(root: Path, out: Path, workers: int) -> None:
    """Hash all files below the root, and write the manifest; with no workers, in this process."""
    execute, files = functools.partial(row, str(root)), manifest.walk(root, leave_out=out)
    if not workers:
        manifest.write(out, map(execute, files))
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        manifest.write(out, pool.imap_unordered(execute, files, CHUNK))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
