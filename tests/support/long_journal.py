"""A journal of a run that is far on.

    python -m tests.support.long_journal run.db --pipeline NAME --task T --items 2000000

It is written as a collector writes it, in batches, so that a resume of millions of items can be tried in seconds.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path

from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.runtime.journal import Journal
from zmqpipeline.serialization.pack import pack_identity

BATCH = 3000


def digest(value: object) -> bytes:
    """The digest of a key, as `@app.task(key=...)` makes it."""
    return hashlib.blake2b(pack_identity(value), digest_size=16).digest()


def write(path: Path, pipeline: str, task: str, items: int, key: Callable[[int], bytes] | None = None) -> None:
    """Make the journal of an unfinished run of which so many items, from the first on, are collected."""
    journal = Journal(path, pipeline=pipeline, durable=False)
    journal.begin(SetRun("run-1", b""))
    for start in range(0, items, BATCH):
        numbers = range(start, min(start + BATCH, items))
        journal.collected(task, numbers, b"".join(map(key, numbers)) if key is not None else b"")
        journal.commit()
    journal.close()


def main() -> None:
    """Read the command line, and write the journal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--items", type=int, default=2_000_000)
    given = parser.parse_args()
    write(given.path, given.pipeline, given.task, given.items)


if __name__ == "__main__":
    main()
