"""The journal: one run's marks in one sqlite file, so that all of its processes may die and the run goes on.

It holds the run's id and metadata, which items are collected (ranges of numbers; with keys, their digests) and the
failed ones with what is known of them. Marks are written before the collector says them, one transaction for at most
10 ms of calls. A function that takes ``journal`` writes its own tables of the same file in the same transaction: its
rows and the mark are there both, or neither.

The file is in WAL mode: others may read it meanwhile. One process at a time writes it, and holds the lock on
``FILE.lock`` as long. A file that is no sound journal is refused, and left as it is. The shape follows SQLite's advice
on application files (sqlite.org/appfileformat.html); the mark beside the effect is what an idempotent consumer keeps
for a transactional outbox.

``sqlite3`` is imported in this folder and nowhere else: `database` knows the tables and what can be wrong with a file,
`transaction` is what users' functions get, `writer` is the collector's side, `failed` that of the command ``dead``.
"""

from __future__ import annotations

from zmqpipeline.runtime.journal.database import Held, peek
from zmqpipeline.runtime.journal.failed import DeadItem, dead_items, retry
from zmqpipeline.runtime.journal.transaction import Rows, Transaction
from zmqpipeline.runtime.journal.writer import MEMORY, Journal, JournalLost

__all__ = ["MEMORY", "DeadItem", "Held", "Journal", "JournalLost", "Rows", "Transaction", "dead_items", "peek", "retry"]
