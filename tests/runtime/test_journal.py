"""The journal: what is written is there again, and users' rows with their marks."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.journals import BIG, RUN, Open, again, failure, insert, key, rows
from zmqpipeline.errors import JournalError
from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.protocol.data.ranges import RangeSet, spans_of
from zmqpipeline.protocol.events import Restored
from zmqpipeline.protocol.messages import TaskCounts, TaskPause, TaskProgress
from zmqpipeline.runtime.journal import (
    MEMORY,
    DeadItem,
    Held,
    Journal,
    JournalLost,
    Transaction,
    dead_items,
    peek,
    retry,
)

# what is written is there again ---------------------------------------------------------------------------------------


def test_a_new_journal_holds_nothing_and_leaves_one_file(open_journal: Open, path: Path) -> None:
    """Until a run has begun there is nothing to restore; no lock, log or scratch file is left beside a closed one."""
    assert peek(path) is None
    journal = open_journal()
    assert journal.restored is None
    assert peek(path) is None
    journal.close()
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_was_committed_is_restored_and_nothing_else(journal: Journal, open_journal: Open, path: Path) -> None:
    """Ranges are merged over commits, keys and failures kept by task; the last marks were never committed."""
    journal.collected("C", [5, 6, 8], b"")
    journal.collected("D", [BIG, BIG + 1], key(1) + key(2))
    journal.commit()
    journal.collected("C", [7], b"")
    journal.failed([failure(1), failure(BIG + 2, "D", key(3))])
    journal.commit()
    journal.collected("C", [0], b"")
    journal.failed([failure(2)])
    assert again(journal, open_journal) == Restored(
        "run-1",
        b"metadata",
        [
            TaskProgress("C", (5, 9), (1, 2)),
            TaskProgress("D", (BIG, BIG + 2), (BIG + 2, BIG + 3), keys=2, failed_keys=1),
        ],
        {"D": {key(1), key(2)}},
        {"D": {BIG + 2: key(3)}},
        ack_task="D",
    )
    assert peek(path) == Held("squares", "run-1", b"metadata", False, False, False, [])


def test_a_finished_run_says_so(journal: Journal, open_journal: Open, path: Path) -> None:
    """With its counts; what is not committed is not finished."""
    counts = [TaskCounts("C", "complete", 3, 2, 1), TaskCounts("D", "aborted", aborted=4)]
    journal.over(True, counts)
    journal.finish()
    assert not peek(path).finished  # type: ignore[union-attr]
    journal.commit()
    restored = again(journal, open_journal)
    assert (restored.finished, restored.ok, restored.counts) == (True, True, counts)
    assert peek(path) == Held("squares", "run-1", b"metadata", True, True, True, counts)


def test_pauses_are_kept_less_the_time_that_has_passed(journal: Journal, open_journal: Open, path: Path) -> None:
    """The last ones that were told; a clock that was set back makes none longer."""
    journal.pause([TaskPause("C", 100.0), TaskPause("D", 0.001)])
    journal.commit()
    time.sleep(0.01)
    restored = again(journal, open_journal)
    ((task, seconds),) = [(one.task, one.seconds) for one in restored.pauses]
    assert task == "C"
    assert 90 < seconds < 100
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE zmqpipeline_run SET pauses = ?", (json.dumps([["C", 5.0, time.time() + 3600]]),))
    second = open_journal()
    assert second.restored is not None
    assert second.restored.pauses == [TaskPause("C", 5.0)]
    second.pause([])
    second.commit()
    assert again(second, open_journal).pauses == []


def test_a_run_that_goes_on_is_taken_over_with_what_is_known(open_journal: Open, path: Path) -> None:
    """A distributor knows what an earlier collector did: it is on the disk when `begin` returns, told twice or once."""
    known = TaskProgress("C", (0, 3, 7, 8), (3, 5), keys=2, failed_keys=1, repeated=1)
    command = SetRun("run-1", b"", [known], {"C": {key(1), key(2)}}, {"C": {3: key(3)}})
    journal = open_journal()
    journal.begin(command)
    journal.begin(command)
    assert [(one.number, one.stage, one.retrying) for one in dead_items(path)] == [
        (3, "unknown", False),
        (4, "unknown", False),
    ]
    restored = again(journal, open_journal)
    assert restored.progress == [known]
    assert (restored.keys, restored.failed_keys) == (command.keys, command.failed_keys)


def test_a_run_from_the_journal_is_not_begun_again(journal: Journal, open_journal: Open) -> None:
    """Nothing is written for it; another run cannot begin in the same journal."""
    journal.collected("C", [1], b"")
    journal.commit()
    journal.begin(SetRun("other", b"", restored=True))
    with pytest.raises(JournalLost, match="holds the run run-1, not run-2"):
        journal.begin(SetRun("run-2", b""))
    journal.rollback()
    assert again(journal, open_journal).run == "run-1"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.one_of(st.integers(0, 40), st.integers(BIG, BIG + 9)), min_size=1, max_size=12), max_size=12)
)
def test_ranges_merge_as_a_set_of_numbers_does(batches: list[list[int]]) -> None:
    """Whatever comes in whatever order: the ranges are those of the set, as few as can be."""
    expected = RangeSet()
    journal = Journal(MEMORY, pipeline="squares")
    journal.begin(RUN)
    for batch in batches:
        journal.collected("C", batch, b"")
        journal.commit()
        expected.update(spans_of(batch))
    found = journal._db.execute("SELECT start, stop FROM zmqpipeline_done ORDER BY start").fetchall()
    journal.close()
    assert tuple(value for pair in found for value in pair) == expected.spans()


# fresh ----------------------------------------------------------------------------------------------------------------


def test_a_fresh_run_forgets_an_earlier_one_but_as_late_as_it_begins(
    journal: Journal, open_journal: Open, path: Path
) -> None:
    """Marks, keys and failures; a collector that never hears of a run changes nothing, and users' tables stay."""
    insert(journal, 1)
    journal.collected("D", [1], key(1))
    journal.failed([failure(2)])
    journal.over(False, [])
    journal.finish()
    journal.commit()
    journal.close()
    unused = open_journal(fresh=True)
    assert unused.restored is None
    unused.close()
    assert (peek(path), len(dead_items(path))) == (Held("squares", "run-1", b"metadata", True, True, False, []), 1)
    second = open_journal(fresh=True)
    second.begin(SetRun("run-2", b""))
    second.collected("C", [7], b"")
    second.commit()
    second.begin(SetRun("run-2", b""))
    assert again(second, open_journal) == Restored("run-2", b"", [TaskProgress("C", (7, 8), ())], ack_task="C")
    assert dead_items(path) == []
    assert rows(path) == [1]


# users' rows ----------------------------------------------------------------------------------------------------------


def test_a_raising_call_undoes_its_own_rows_alone(journal: Journal, path: Path) -> None:
    """Those before and after it in the same transaction stay; so does nothing of a table that it made."""
    insert(journal, 1)

    def call() -> None:
        with journal.item() as transaction:
            transaction.execute("INSERT INTO numbers VALUES (2)")
            transaction.execute("CREATE TABLE gone (n)")
            raise KeyError

    with pytest.raises(KeyError):
        call()
    insert(journal, 3)
    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'numbers'") == []
    journal.commit()
    assert rows(path) == [1, 3]
    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'gone'") == []
    assert rows(path, "SELECT stop - start FROM zmqpipeline_done") == [1, 1]


def test_tables_of_other_sorts_work(journal: Journal, path: Path) -> None:
    """A full-text index reads pragmas of its own; what shows the tables is allowed, too."""
    with journal.item() as transaction:
        transaction.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
        transaction.execute("INSERT INTO words VALUES ('a word')")
        transaction.execute("CREATE TEMP TABLE some (n)")
        assert transaction.execute("SELECT text FROM words WHERE words MATCH 'word'").fetchone() == ("a word",)
        assert [row[1] for row in transaction.execute("PRAGMA table_info(words)")] == ["text"]
    journal.commit()
    assert rows(path, "SELECT text FROM words") == ["a word"]


def test_rows_are_those_of_sqlite(journal: Journal) -> None:
    """Iterated or fetched, with rowcount, lastrowid and description; they outlive the call."""
    with journal.item() as transaction:
        transaction.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, name TEXT)")
        done = transaction.executemany(
            "INSERT INTO t VALUES (:n, :name)", ({"n": n, "name": f"x{n}"} for n in range(6))
        )
        assert done.rowcount == 6
        assert transaction.execute("INSERT INTO t (name) VALUES ('last')").lastrowid == 6
        found = transaction.execute("SELECT n, name FROM t WHERE n < ? ORDER BY n", (6,))
    assert [column[0] for column in found.description] == ["n", "name"]
    assert found.fetchone() == (0, "x0")
    assert found.fetchmany(2) == [(1, "x1"), (2, "x2")]
    assert next(iter(found)) == (3, "x3")
    assert found.fetchall() == [(4, "x4"), (5, "x5")]
    assert (found.fetchone(), found.fetchmany(3), list(found)) == (None, [], [])


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("COMMIT", "COMMIT"),
        ("END", "COMMIT"),
        ("ROLLBACK", "ROLLBACK"),
        ("BEGIN IMMEDIATE", "BEGIN"),
        ("SAVEPOINT mine", "SAVEPOINT"),
        ("RELEASE zmqpipeline_item", "RELEASE"),
        ("ROLLBACK TO zmqpipeline_item", "SAVEPOINT"),
        ("ATTACH ':memory:' AS other", "ATTACH"),
        ("DETACH main", "DETACH"),
        ("PRAGMA journal_mode = DELETE", "PRAGMA journal_mode"),
        ("PRAGMA user_version = 7", "PRAGMA user_version"),
        ("PRAGMA wal_checkpoint", "PRAGMA wal_checkpoint"),
        ("PRAGMA writable_schema = 1", "PRAGMA writable_schema"),
        ("DELETE FROM zmqpipeline_done", "zmqpipeline_"),
        ("UPDATE ZMQPIPELINE_RUN SET run = 'x'", "zmqpipeline_"),
        ("INSERT INTO zmqpipeline_keys VALUES (1, x'00')", "zmqpipeline_"),
        ("DROP TABLE zmqpipeline_failed", "zmqpipeline_"),
        ("ALTER TABLE zmqpipeline_done ADD COLUMN x", "zmqpipeline_"),
        ("CREATE TABLE zmqpipeline_mine (n)", "zmqpipeline_"),
        ("ALTER TABLE other RENAME TO zmqpipeline_other", "zmqpipeline_"),
        ("ALTER TABLE other RENAME TO [ZMQPIPELINE_other]", "zmqpipeline_"),
        ("CREATE TABLE ZMQPipeline_mine (n)", "zmqpipeline_"),
        ("CREATE INDEX mine ON zmqpipeline_done (stop)", "zmqpipeline_"),
        ("CREATE TRIGGER mine AFTER INSERT ON zmqpipeline_done BEGIN SELECT 1; END", "zmqpipeline_"),
    ],
)
def test_what_would_end_the_transaction_or_change_the_marks_is_refused(
    journal: Journal, path: Path, sql: str, named: str
) -> None:
    """Also a second time, when the statement is known already; the call may go on, and the next ones, too."""
    with journal.item() as transaction:
        transaction.execute("CREATE TABLE other (n)")
        for _ in range(2):
            with pytest.raises(JournalError, match=rf"(?i){named}.*is not for the functions.*Take it out"):
                transaction.execute(sql)
        assert transaction.execute("SELECT run FROM zmqpipeline_run").fetchall() == [("run-1",)]
        transaction.execute("ALTER TABLE other RENAME TO another")
        transaction.execute("INSERT INTO another VALUES (2)")
    insert(journal, 1)
    journal.commit()
    assert rows(path) == [1]
    assert rows(path, "SELECT n FROM another") == [2]


def test_a_trigger_of_the_user_cannot_change_the_marks_either(journal: Journal, path: Path) -> None:
    """It is refused when it would fire."""
    insert(journal, 1)
    with journal.item() as transaction:
        transaction.execute("CREATE TRIGGER bad AFTER INSERT ON numbers BEGIN DELETE FROM zmqpipeline_run; END")
        with pytest.raises(JournalError, match="zmqpipeline_"):
            transaction.execute("INSERT INTO numbers VALUES (2)")
    journal.commit()
    assert rows(path) == [1]
    assert peek(path) is not None


@pytest.mark.parametrize(
    "name", ["commit", "rollback", "close", "cursor", "executescript", "isolation_level", "set_authorizer", "backup"]
)
def test_methods_of_a_connection_are_refused_with_a_sentence(journal: Journal, name: str) -> None:
    """Reading and setting them; what no connection has is no attribute."""
    with journal.item() as transaction:
        with pytest.raises(JournalError, match=rf"journal\.{name} is not for the functions"):
            getattr(transaction, name)
        with pytest.raises(JournalError, match=rf"journal\.{name} is not for the functions"):
            setattr(transaction, name, None)
        assert not hasattr(transaction, "comit")


def test_outside_a_call_the_transaction_is_refused(journal: Journal) -> None:
    """Kept beyond the call, or used from another thread meanwhile."""
    kept: list[Transaction] = []
    raised: list[BaseException] = []

    def use() -> None:
        try:
            kept[0].execute("SELECT 1")
        except BaseException as error:
            raised.append(error)

    with journal.item() as transaction:
        kept.append(transaction)
        other = threading.Thread(target=use)
        other.start()
        other.join(60)
    use()
    assert [type(error) for error in raised] == [JournalError, JournalError]
    assert all("outside a call" in str(error) for error in raised)
    assert kept[0] is journal.transaction


def test_a_statement_that_rolls_everything_back_loses_the_journal_not_the_marks(journal: Journal, path: Path) -> None:
    """OR ROLLBACK undoes what other items wrote: then their marks must not be written, even if the function goes on."""
    insert(journal, 1)
    journal.commit()
    insert(journal, 2)

    def call() -> None:
        with journal.item() as transaction:
            transaction.execute("CREATE UNIQUE INDEX one ON numbers (n)")
            with pytest.raises(sqlite3.IntegrityError):
                transaction.execute("INSERT OR ROLLBACK INTO numbers VALUES (1)")
            with pytest.raises(JournalError, match="was rolled back"):
                transaction.execute("INSERT INTO numbers VALUES (9)")

    with pytest.raises(JournalLost, match=r"rolled back its whole transaction.*OR ABORT"):
        call()
    journal.rollback()
    assert rows(path) == [1]
    assert rows(path, "SELECT start FROM zmqpipeline_done") == [1]


# dead items -----------------------------------------------------------------------------------------------------------


def test_dead_items_tell_all_that_is_known(journal: Journal, path: Path) -> None:
    """In the order of their failure, read while the journal is open."""
    before = time.time()
    journal.failed([failure(7), failure(2, "D", message="later")])
    journal.commit()
    first, second = dead_items(path)
    assert before <= first.failed_at <= second.failed_at <= time.time()
    assert first == DeadItem(
        "C", 7, 3, "worker", "ValueError", "no", "its traceback", b"payload", first.failed_at, False
    )
    assert (second.task, second.number, second.message) == ("D", 2, "later")


def test_retried_items_are_failed_no_more_and_a_finished_run_goes_on(
    journal: Journal, open_journal: Open, path: Path
) -> None:
    """Those that are named, or all; a second time there is nothing left to do, and a run without any stays finished."""
    journal.failed([failure(1), failure(2), failure(2, "D"), failure(3, "D", key(3))])
    journal.over(False, [TaskCounts("C", "complete", failed=2)])
    journal.finish()
    journal.commit()
    journal.close()
    assert retry(path, [("X", 1), ("C", 9)]) == 0
    assert peek(path).finished  # type: ignore[union-attr]
    assert retry(path, {("C", 2), ("D", 9)}) == 1
    assert not peek(path).finished  # type: ignore[union-attr]
    assert [(one.task, one.number, one.retrying) for one in dead_items(path)] == [
        ("C", 1, False),
        ("C", 2, True),
        ("D", 2, False),
        ("D", 3, False),
    ]
    assert [retry(path, None), retry(path, None)] == [3, 0]
    restored = again(open_journal(), open_journal)
    assert [one.failed for one in restored.progress] == [(), ()]
    assert restored.failed_keys == {}
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_retried_item_goes_when_it_is_collected_and_is_replaced_when_it_fails_again(
    journal: Journal, open_journal: Open, path: Path
) -> None:
    """Found by its number, or by its key if it came with another number."""
    keyed = [failure(number, "D", key(number)) for number in (10, 11, 12)]
    journal.failed([failure(1), failure(2), failure(3), *keyed])
    journal.commit()
    journal.close()
    assert retry(path, None) == 6
    second = open_journal()
    second.collected("C", [1], b"")
    second.collected("D", [BIG], key(10))
    second.commit()
    second.failed([failure(2, message="again"), failure(BIG + 1, "D", key(11), "again")])
    second.commit()
    assert sorted((one.task, one.number, one.message, one.retrying) for one in dead_items(path)) == [
        ("C", 2, "again", False),
        ("C", 3, "no", True),
        ("D", 12, "no", True),
        ("D", BIG + 1, "again", False),
    ]
    assert rows(path, "SELECT count(*) FROM zmqpipeline_failed") == [4]


def test_what_a_run_did_not_send_again_may_be_retried_once_more(
    journal: Journal, open_journal: Open, path: Path
) -> None:
    """Its source did not yield it: the run finished without it, and is opened anew."""
    journal.failed([failure(1)])
    journal.commit()
    journal.close()
    assert retry(path, None) == 1
    second = open_journal()
    second.over(True, [])
    second.finish()
    second.commit()
    second.close()
    assert retry(path, None) == 1
    assert not peek(path).finished  # type: ignore[union-attr]


def test_an_item_whose_key_was_collected_later_is_not_dead(journal: Journal, path: Path) -> None:
    """Its source sent it once more in the same run."""
    journal.failed([failure(1, "D", key(1)), failure(2, "D", key(2))])
    journal.collected("D", [5], key(1))
    journal.commit()
    journal.close()
    assert [one.number for one in dead_items(path)] == [2]
    assert retry(path, None) == 1


@pytest.mark.parametrize("content", [None, b""])
def test_where_there_is_no_journal_there_are_no_dead_items(path: Path, content: bytes | None) -> None:
    """No file is made by asking."""
    if content is not None:
        path.write_bytes(content)
    for ask in (dead_items, lambda path: retry(path, None)):
        with pytest.raises(JournalError, match="There is no journal"):
            ask(path)
    assert [one.name for one in path.parent.iterdir()] == ([] if content is None else [path.name])


def test_the_last_ack_is_kept_with_its_task_and_data(journal: Journal, open_journal: Open) -> None:
    """With the commit that it is sent after, and not before; a failure's has no data. A new journal takes them over."""
    journal.collected("C", [1], b"", b"of 1")
    journal.commit()
    journal.collected("C", [2], b"", b"of 2")
    journal.rollback()
    journal.collected("C", [], b"", b"of none")
    journal.commit()
    restored = again(journal, open_journal)
    assert (restored.ack_task, restored.ack_data) == ("C", b"of 1")
    journal = open_journal()
    journal.collected("C", [3], b"", b"of 3")
    journal.failed([failure(1, "D")])
    journal.commit()
    restored = again(journal, open_journal)
    assert (restored.ack_task, restored.ack_data) == ("D", b"")
    journal = open_journal(fresh=True)
    journal.begin(SetRun("run-2", b"", ack_task="C", ack_data=b"told"))
    restored = again(journal, open_journal)
    assert (restored.ack_task, restored.ack_data) == ("C", b"told")


@pytest.mark.parametrize("state", ["failed", "aborted"])
def test_a_run_whose_source_raised_is_not_finished(
    state: str, journal: Journal, open_journal: Open, path: Path
) -> None:
    """It goes on when it is started again; if the metadata function raised, nothing was begun: a new run begins."""
    journal.over(False, [TaskCounts("C", state), TaskCounts("D", "aborted")])
    journal.finish()
    journal.commit()
    journal.close()
    held = peek(path)
    assert held == (Held("squares", "run-1", b"metadata", False, False, False, []) if state == "failed" else None)
    second = open_journal()
    second.begin(SetRun("run-1" if state == "failed" else "run-2", b"", restored=state == "failed"))
