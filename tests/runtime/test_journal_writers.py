"""One process at a time writes a journal; others may read it, and make it wait."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.journals import RUN, Open, again, insert, rows
from tests.support.transports import peer_process
from zmqpipeline.errors import JournalError
from zmqpipeline.protocol.events import Restored
from zmqpipeline.protocol.messages import TaskProgress
from zmqpipeline.runtime.journal import Journal, JournalLost, database, dead_items, peek, retry

HOLDS = """
import sys
from zmqpipeline.runtime.journal import Journal
from zmqpipeline.protocol.commands import SetRun
journal = Journal(sys.argv[1], pipeline="squares")
journal.begin(SetRun("run-1", b""))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_writer_is_refused_with_the_process_that_is_in_its_way(path: Path, open_journal: Open) -> None:
    """Whether it would collect or retry; a killed one is in nobody's way, and readers are in nobody's at any time."""
    with peer_process(HOLDS, str(path)) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        for use in (open_journal, lambda: retry(path, None)):
            with pytest.raises(JournalError, match=rf"100%\.db is in use by the process {holder.pid}:"):
                use()
        assert peek(path) is not None
        assert dead_items(path) == []
        holder.kill()
        holder.wait()
    assert open_journal().restored == Restored("run-1", b"", [])


def test_a_second_writer_in_the_same_process_is_refused_by_any_name(journal: Journal, path: Path) -> None:
    """Also through a link to the file."""
    link = path.parent / "link"
    link.symlink_to(path)
    for name in (path, link, path.parent / "x" / ".." / path.name):
        with pytest.raises(JournalError, match="is in use by the process"):
            Journal(name, pipeline="squares")
    insert(journal, 1)
    journal.commit()
    assert rows(path) == [1]


WRITES = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    db.execute("BEGIN IMMEDIATE")
    print("it is free", flush=True)
except sqlite3.OperationalError as error:
    print(error, flush=True)
"""


def test_readers_in_the_same_process_do_not_drop_the_writers_locks(journal: Journal, path: Path) -> None:
    """A system lock is gone when its process closes any other descriptor of the file: nobody may open it but sqlite."""
    insert(journal, 1)
    assert peek(path) is not None
    assert dead_items(path) == []
    with pytest.raises(JournalError):
        Journal(path, pipeline="squares")
    with peer_process(WRITES, str(path)) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "database is locked\n"
    journal.commit()
    assert rows(path) == [1]


def test_another_program_that_writes_is_waited_for_and_then_named(
    path: Path, open_journal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the disk is to blame; nothing that was not committed is kept."""
    monkeypatch.setattr(database, "LOCKED_SECONDS", 0.2)
    journal = open_journal()
    journal.begin(RUN)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        journal.collected("C", [1], b"")
        began = time.monotonic()
        with pytest.raises(JournalLost, match=r"another program has kept it locked .* End that program") as caught:
            journal.commit()
        assert time.monotonic() - began >= 0.2
        assert "disk is full" not in str(caught.value)
        journal.rollback()
        other.execute("ROLLBACK")
    journal.collected("C", [2], b"")
    journal.commit()
    assert again(journal, open_journal).progress == [TaskProgress("C", (2, 3), ())]
