"""What the tests of the journal share: its sample run, keys and failures, and what is found in a file afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.protocol.events import Restored
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem
from zmqpipeline.runtime.journal import Journal

Open = Callable[..., Journal]
RUN = SetRun("run-1", b"metadata")
BIG = 2**62


def key(number: int) -> bytes:
    """A digest."""
    return number.to_bytes(16, "big")


def failure(number: int, task: str = "C", digest: bytes = b"", message: str = "no") -> FailedItem:
    """A failed item."""
    return FailedItem(task, number, 3, "worker", ErrorInfo("ValueError", message, "its traceback"), b"payload", digest)


def again(journal: Journal, open_journal: Open, **options: Any) -> Restored:
    """What the journal holds when it is opened anew; it is closed afterwards."""
    journal.close()
    second = open_journal(**options)
    second.close()
    assert second.restored is not None
    return second.restored


def insert(journal: Journal, number: int) -> None:
    """One call of a user's function that keeps the number, and its mark."""
    with journal.item() as transaction:
        transaction.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER)")
        transaction.execute("INSERT INTO numbers VALUES (?)", (number,))
    journal.collected("C", [number], b"")


def rows(path: Path, sql: str = "SELECT n FROM numbers ORDER BY n") -> list[Any]:
    """What a table of the file holds, as another program sees it; one value a row."""
    with sqlite3.connect(path) as db:
        found = [row[0] for row in db.execute(sql)]
    db.close()
    return found
