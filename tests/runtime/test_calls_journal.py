"""CollectorThread with a journal: what is said is on the disk by then."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.collecting import Make, command, made_for, total
from tests.support.transports import Posts
from zmqpipeline.errors import JournalError
from zmqpipeline.protocol.commands import CallFailed, CallFinished, SetRun
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of
from zmqpipeline.protocol.events import Collected, FailedCalled, FinishedCalled, JournalFailed
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem, TaskCounts
from zmqpipeline.runtime.journal import Journal, dead_items, peek
from zmqpipeline.runtime.threads.collecting import CollectorThread


@pytest.fixture
def posts() -> Posts:
    """Where the gatherer answers."""
    return Posts()


@pytest.fixture
def make(posts: Posts) -> Iterator[Make]:
    """Makes gatherers, closes them, and sees to it that none of their threads is left."""
    yield from made_for(posts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "run.db"


@pytest.fixture
def journal(path: Path) -> Journal:
    """A journal in which a run has begun; the gatherer closes it."""
    made = Journal(path, pipeline="squares")
    made.begin(SetRun("run-1", b""))
    return made


def done(path: Path) -> RangeSet:
    """The numbers that are marked in the file."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        found = db.execute("SELECT start, stop FROM zmqpipeline_done ORDER BY start").fetchall()
    return RangeSet(tuple(value for pair in found for value in pair))


def commits_of(journal: Journal) -> list[str]:
    """A list that grows by each commit."""
    said: list[str] = []
    journal._db.set_trace_callback(lambda sql: said.append(sql) if sql.startswith("COMMIT") else None)
    return said


def test_what_is_said_is_on_the_disk_by_then(journal: Journal, path: Path) -> None:
    """Each answer is looked up in the file, by another connection, when it is posted."""
    said: list[Any] = []
    missing: list[Any] = []
    over = threading.Event()

    def post(event: Any) -> None:
        said.append(event)
        if isinstance(event, Collected) and done(path).missing(event.spans):
            missing.append(event)
        if isinstance(event, FailedCalled) and event.spans[0] not in {one.number for one in dead_items(path)}:
            missing.append(event)
        if total(said) == 100:
            over.set()

    slow = lambda *part: ((lambda value: time.sleep(0.001)), False)  # noqa: E731
    gatherer = CollectorThread(slow, lambda item: None, lambda command: None, post, journal=journal)
    for number in range(0, 100, 5):
        gatherer.collect(command("C", 1, (number, number + 4), [b""] * 4))
        gatherer.call_failed(CallFailed([FailedItem("C", number + 4, 1, "worker", ErrorInfo("E", "m"), b"")]))
    assert over.wait(60)
    gatherer.close(60)
    assert missing == []
    assert [number for event in said for number in numbers_of(event.spans)] == list(range(100))


def test_what_waits_goes_into_one_commit(make: Make, posts: Posts, journal: Journal) -> None:
    """Fifty commands that queue behind a slow call cost a commit or two, and are answered in order."""
    release = threading.Event()
    commits = commits_of(journal)
    gatherer = make(lambda task, attempt, number, payload: (number == 0 and release.wait(60)) * b"", journal=journal)
    for number in range(51):
        gatherer.collect(command("C", 1, (number, number + 1), [b""]))
    began = time.monotonic()
    release.set()
    events = posts.until(lambda events: len(events) == 51)
    assert [event.spans for event in events] == [(number, number + 1) for number in range(51)]
    # a busy machine may take longer for them than one commit waits
    assert 1 <= len(commits) <= 6 + (time.monotonic() - began) / 0.01


def test_slow_calls_are_committed_every_10_ms(make: Make, posts: Posts, journal: Journal, path: Path) -> None:
    """They are not kept until the command is over."""
    commits = commits_of(journal)
    gatherer = make(lambda *call: time.sleep(0.003) or b"", journal=journal)
    gatherer.collect(command("C", 1, (0, 20), [b""] * 20))
    parts = posts.until(lambda parts: total(parts) >= 20)
    assert len(parts) == len(commits) >= 4
    assert done(path).spans() == (0, 20)


def test_a_raising_item_is_not_marked_and_its_failure_is_written_when_it_is_told(
    make: Make, posts: Posts, journal: Journal, path: Path
) -> None:
    """Numbers and keys of the others stay together."""

    def collect(task: str, attempt: int, number: int, payload: bytes) -> bytes:
        if number in (1, 3):
            raise ValueError
        return b""

    gatherer = make(collect, journal=journal)
    gatherer.collect(command("C", 1, (0, 4, 9, 10), [b"x"] * 5, b"".join(bytes([n]) * 16 for n in range(5))))
    # in one part, or in two if the first failure took long to log
    parts = posts.until(lambda parts: total(parts) + sum(len(one.failures) for one in parts) >= 5)
    assert [number for one in parts for number, _, _ in one.failures] == [1, 3]
    assert done(path).spans() == (0, 1, 2, 3, 9, 10)
    assert dead_items(path) == []
    gatherer.call_failed(CallFailed([FailedItem("C", 1, 1, "collector", ErrorInfo("E", "m"), b"x", bytes([1]) * 16)]))
    assert posts.next() == FailedCalled("C", (1, 2), None)
    assert [(one.number, one.stage, one.payload) for one in dead_items(path)] == [(1, "collector", b"x")]
    gatherer.close(60)
    with contextlib.closing(Journal(path, pipeline="squares")) as again:
        assert again.restored is not None
        assert again.restored.keys == {"C": {bytes([n]) * 16 for n in (0, 2, 4)}}
        assert again.restored.failed_keys == {"C": {1: bytes([1]) * 16}}


def test_begin_and_finish_are_on_the_disk_in_their_turn(make: Make, posts: Posts, path: Path) -> None:
    """The run before its first item; that all is done, with the counts, before `finished` is called; its return."""
    held: list[Any] = []
    counts = [TaskCounts("C", "complete", sent=1, collected=1)]
    gatherer = make(
        lambda *call: held.append(peek(path)) or b"",
        finished=lambda command: held.append(peek(path)),
        journal=Journal(path, pipeline="squares"),
    )
    gatherer.begin(SetRun("run-1", b"metadata"))
    gatherer.collect(command("C", 1, (0, 1), [b""]))
    gatherer.call_finished(CallFinished(True, counts))
    assert isinstance(posts.next(), Collected)
    assert posts.next() == FinishedCalled(None, b"")
    first, second = held
    assert (first.run, first.finished, first.metadata) == ("run-1", False, b"metadata")
    assert (second.over, second.finished, second.ok, second.counts) == (True, False, True, counts)
    third = peek(path)
    assert third is not None
    assert (third.over, third.finished) == (True, True)


def test_finished_that_raises_leaves_no_mark_and_no_row(make: Make, posts: Posts, path: Path, journal: Journal) -> None:
    """What it wrote through the journal is undone, also if what it returned was refused after it had returned."""

    def finished(command: CallFinished) -> None:
        with journal.item() as transaction:
            transaction.execute("CREATE TABLE reports (text TEXT)")
        raise ValueError("it returned what cannot be sent")

    gatherer = make(lambda *call: b"", finished=finished, journal=journal)
    gatherer.begin(SetRun("run-1", b""))
    gatherer.call_finished(CallFinished(True, []))
    assert posts.next().trouble.error == "ValueError"
    held = peek(path)
    assert held is not None
    assert (held.over, held.finished) == (True, False)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'reports'").fetchall() == []


def test_a_journal_that_cannot_be_written_is_told_once_and_ends_all_calls(
    make: Make, posts: Posts, journal: Journal, path: Path
) -> None:
    """What is not committed is not said, and nothing more is called; the letter says what to do."""
    calls: list[int] = []
    gatherer = make(lambda task, attempt, number, payload: calls.append(number) or b"", journal=journal)
    gatherer.collect(command("C", 1, (0, 1), [b""]))
    assert posts.next() == Collected("C", (0, 1), [], b"")
    full = threading.Event()

    def fill() -> None:
        (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        full.wait(60)

    gatherer.submit(fill)
    for start in range(2, 20_000, 100):
        gatherer.collect(
            command("C", 1, tuple(n for at in range(start, start + 100, 2) for n in (at, at + 1)), [b""] * 50)
        )
    full.set()
    events = posts.until(lambda events: isinstance(events[-1:] and events[-1], JournalFailed))
    gatherer.submit(lambda: calls.append(-1))
    gatherer.call_failed(CallFailed([FailedItem("C", 1, 1, "worker", ErrorInfo("E", "m"), b"")]))
    gatherer.call_finished(CallFinished(ok=True))
    gatherer.close(60)
    assert posts.arrived.empty()
    trouble = events.pop().trouble
    assert trouble.error == "JournalError"
    assert all(
        part in trouble.message for part in (str(path), "disk is full. ", "nothing that was acknowledged is lost")
    )
    assert calls[-1] != -1
    said = RangeSet((0, 1))
    for event in events:
        said.update(event.spans)
    assert done(path) == said
    assert isinstance(gatherer.lost, JournalError)


def test_a_fault_of_ours_on_the_way_to_the_disk_does_not_hang(make: Make, posts: Posts, journal: Journal) -> None:
    """Whatever comes out of the journal ends the role with what it was."""
    gatherer = make(lambda *call: b"", journal=journal)
    gatherer.collect(command("\udcff", 1, (0, 1), [b""]))
    trouble = posts.next().trouble
    assert trouble.error == "UnicodeEncodeError"


def test_a_call_that_goes_on_keeps_its_journal(make: Make, posts: Posts, journal: Journal, path: Path) -> None:
    """The gatherer does not close it while the thread may use it; when the call is over it is closed."""
    inside, release = threading.Event(), threading.Event()

    def collect(*call: Any) -> bytes:
        inside.set()
        release.wait(60)
        return b""

    gatherer = make(collect, journal=journal)
    gatherer.collect(command("C", 1, (0, 1), [b""]))
    assert inside.wait(60)
    gatherer.close(0.01)
    with pytest.raises(JournalError, match="is in use"):
        Journal(path, pipeline="squares")
    release.set()
    assert posts.next() == Collected("C", (0, 1), [], b"")
    gatherer.close(60)
    assert done(path).spans() == (0, 1)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_was_asked_for_before_the_end_is_said(make: Make, posts: Posts, journal: Journal, path: Path) -> None:
    """Closing is waiting behind it: it goes into a last commit."""
    inside, release = threading.Event(), threading.Event()

    def collect(task: str, attempt: int, number: int, payload: bytes) -> bytes:
        if number == 0:
            inside.set()
            release.wait(60)
        return b""

    gatherer = make(collect, journal=journal)
    for number in range(3):
        gatherer.collect(command("C", 1, (number, number + 1), [b""]))
    assert inside.wait(60)
    gatherer.close(0.01)
    release.set()
    assert [posts.next().spans for _ in range(3)] == [(0, 1), (1, 2), (2, 3)]
    gatherer.close(60)
    assert done(path).spans() == (0, 3)


@pytest.mark.parametrize("where", ["collect", "failed"])
def test_a_full_disk_in_a_users_statement_is_the_journals_and_no_failed_item(
    make: Make, posts: Posts, journal: Journal, path: Path, where: str
) -> None:
    """The rows of the items before it are gone with the transaction: then no mark may be written either."""

    def call(*arguments: Any) -> bytes:
        with journal.item() as transaction:
            transaction.execute("CREATE TABLE IF NOT EXISTS mine (content BLOB)")
            transaction.execute("INSERT INTO mine VALUES (zeroblob(?))", (1 if arguments[2:3] == (0,) else 10_000_000,))
        return b""

    (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
    journal._db.execute(f"PRAGMA max_page_count = {pages + 100}")
    gatherer = make(call, call, journal=journal)
    if where == "collect":
        gatherer.collect(command("C", 1, (0, 3), [b""] * 3))
    else:
        gatherer.call_failed(CallFailed([FailedItem("C", 1, 1, "worker", ErrorInfo("E", "m"), b"")]))
    *before, event = posts.until(lambda events: any(isinstance(one, JournalFailed) for one in events))
    assert "sqlite says: database or disk is full" in event.trouble.message
    gatherer.close(60)
    assert posts.arrived.empty()
    # a machine with other work may take so long for the first item that it was committed by itself
    assert [one.spans for one in before] in ([], [(0, 1)])
    assert (done(path).spans(), dead_items(path)) == ((0, 1) if before else (), [])


def test_what_a_list_of_several_messages_wrote_is_committed_with_all_of_its_marks(
    posts: Posts, journal: Journal, path: Path
) -> None:
    """Its call takes longer than a transaction is to last: no commit comes between the marks of its messages."""
    seen: list[tuple[int, int]] = []
    blocked, waiting = threading.Event(), threading.Event()

    def write(results: list[Any]) -> None:
        if len(results) == 1:
            blocked.set()
            assert waiting.wait(60)
            return
        with journal.item() as transaction:
            transaction.execute("CREATE TABLE IF NOT EXISTS seen (n INTEGER)")
            transaction.executemany("INSERT INTO seen VALUES (?)", [(n,) for n in range(len(results))])
        time.sleep(0.03)

    def look(event: Any) -> None:
        posts(event)
        with contextlib.closing(sqlite3.connect(path)) as db:
            try:
                (rows,) = db.execute("SELECT count(*) FROM seen").fetchone()
            except sqlite3.OperationalError:
                return
        # the first one was alone, and is marked
        seen.append((rows, len(done(path)) - 1))

    def one(begin: int, end: int) -> Any:
        return command("C", 1, (begin, end), [{"n": n} for n in range(begin, end)])

    thread = CollectorThread(
        lambda task, attempt: (lambda numbers, data: write(data), True),
        lambda item: None,
        lambda command: None,
        look,
        journal=journal,
        batch=lambda task: 1000,
    )
    thread.collect(one(0, 1))
    assert blocked.wait(60)
    for begin in range(1, 31, 10):
        thread.collect(one(begin, begin + 10))
    waiting.set()
    posts.until(lambda events: total(events) == 31)
    thread.close(60)
    assert seen
    assert all(rows == marks for rows, marks in seen), seen
