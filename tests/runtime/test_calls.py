"""Serial and CollectorThread: user code on one thread, in order."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.support import Posts
from zmqpipeline.errors import JournalError
from zmqpipeline.protocol.commands import CallFailed, CallFinished, Collect, SetRun
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of
from zmqpipeline.protocol.events import Collected, FailedCalled, FinishedCalled, JournalFailed
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem, TaskCounts
from zmqpipeline.runtime.error_text import TEXT_LIMIT, trouble_of
from zmqpipeline.runtime.journal import Journal, dead_items, peek
from zmqpipeline.runtime.threads import collecting
from zmqpipeline.runtime.threads.collecting import CollectorThread, SerialThread
from zmqpipeline.serialization.pack import pack

Make = Callable[..., CollectorThread]


@pytest.fixture
def posts() -> Posts:
    """Where the gatherer answers."""
    return Posts()


@pytest.fixture
def make(posts: Posts) -> Iterator[Make]:
    """Makes gatherers, closes them, and sees to it that none of their threads is left."""
    before = set(threading.enumerate())
    made: list[CollectorThread] = []

    def make_gatherer(
        collect: Any, failed: Any = lambda item: None, finished: Any = lambda command: None, **more: Any
    ) -> CollectorThread:
        def collecting(task: str, attempt: int) -> Any:
            return (lambda number, value: collect(task, attempt, number, value)), True

        made.append(CollectorThread(collecting, failed, finished, posts, **more))
        return made[-1]

    yield make_gatherer
    for gatherer in made:
        gatherer.close(5.0)
    assert set(threading.enumerate()) <= before


@pytest.fixture
def one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that are brief are one part, also where the machine is so busy that they take long."""
    monkeypatch.setattr(collecting, "PART_SECONDS", 60.0)


def command(task: str, attempt: int, spans: Any, values: list[bytes], keys: bytes = b"") -> Collect:
    """A Collect of these values."""
    return Collect(task, attempt, spans, [pack(one) for one in values], keys)


def total(events: list[Any]) -> int:
    """How many items these Collected speak of."""
    return sum(sum(one.spans[1::2]) - sum(one.spans[0::2]) for one in events)


def test_serial_keeps_order_and_survives_what_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    """Calls happen in order on one thread; an exception is logged and the next call happens; close ends the thread."""
    seen: list[object] = []
    serial = SerialThread("test-serial")
    with caplog.at_level(logging.ERROR):
        for number in range(100):
            serial.submit(lambda number=number: seen.append((number, threading.current_thread().name)))  # type: ignore[misc]
            serial.submit(lambda: 1 // 0)
        serial.close(5.0)
    assert seen == [(number, "test-serial") for number in range(100)]
    assert caplog.text.count("ZeroDivisionError") >= 100
    assert "test-serial" not in {thread.name for thread in threading.enumerate()}


def test_the_parts_of_a_call_come_before_what_was_submitted_since() -> None:
    """A call that returns another one goes on with it; one that raises in a later part ends there."""
    seen: list[str] = []
    serial = SerialThread("test-serial")

    def count(name: str, left: int) -> Callable[[], object] | None:
        seen.append(f"{name}{left}")
        if left == 1 and name == "b":
            raise ValueError(name)
        return (lambda: count(name, left - 1)) if left else None

    for name in "abc":
        serial.submit(lambda name=name: count(name, 2))  # type: ignore[misc]
    serial.close(5.0)
    assert seen == ["a2", "a1", "a0", "b2", "b1", "c2", "c1", "c0"]


def test_parts_of_one_message_come_before_those_of_the_next(make: Make, posts: Posts) -> None:
    """Slow calls of two messages, then failed items: in the order in which they were asked for."""
    seen: list[bytes] = []
    gatherer = make(lambda task, attempt, number, payload: time.sleep(0.004) or seen.append(payload) or b"")
    for name in (b"a", b"b"):
        gatherer.collect(command("C", 1, (0, 9), [name] * 9))
    gatherer.call_failed(CallFailed([FailedItem("C", 99, 1, "worker", ErrorInfo("E", "e"), b"")]))
    events = posts.until(lambda events: any(isinstance(one, FailedCalled) for one in events))
    assert total([one for one in events if isinstance(one, Collected)]) == 18
    assert seen == [b"a"] * 9 + [b"b"] * 9


@pytest.mark.usefixtures("one_part")
def test_items_are_collected_in_order_with_their_numbers(make: Make, posts: Posts) -> None:
    """Spans and payloads are matched; quick items come back as one part with the spans as they were."""
    seen: list[object] = []
    gatherer = make(lambda *call: seen.append(call) or b"")
    gatherer.collect(command("C", 2, (0, 3, 7, 8), [b"a", b"b", b"c", b"d"]))
    assert posts.next() == Collected("C", (0, 3, 7, 8), [], b"", 2)
    assert seen == [("C", 2, 0, b"a"), ("C", 2, 1, b"b"), ("C", 2, 2, b"c"), ("C", 2, 7, b"d")]


def test_slow_items_come_back_in_parts(make: Make, posts: Posts) -> None:
    """A part ends with the call by which it has lasted 10 ms; together the parts are the whole, in order."""
    gatherer = make(lambda task, attempt, number, payload: time.sleep(0.003) or b"")
    gatherer.collect(command("C", 1, (0, 20), [b""] * 20))
    parts = posts.until(lambda parts: total(parts) >= 20)
    assert 4 <= len(parts) <= 20
    assert [one.spans[0] for one in parts[1:]] == [one.spans[1] for one in parts[:-1]]


@pytest.mark.usefixtures("one_part")
def test_what_the_collector_raises_fails_the_item_alone(make: Make, posts: Posts) -> None:
    """SystemExit, too: the failure comes with trouble and payload, the others are collected."""

    def collect(task: str, attempt: int, number: int, payload: bytes) -> bytes:
        if number == 1:
            raise SystemExit("enough")
        return b"data%d" % number

    make(collect).collect(command("C", 1, (0, 3), [b"a", b"b", b"c"]))
    event = posts.next()
    ((number, trouble, payload),) = event.failures
    assert (number, trouble.error, trouble.message, payload) == (1, "SystemExit", "enough", pack(b"b"))
    assert (event.spans, event.data) == ((0, 1, 2, 3), b"data2")


@pytest.mark.usefixtures("one_part")
def test_ack_data_is_asked_once_a_part(make: Make, posts: Posts) -> None:
    """What ack_data returns goes before the items' data, unless it is empty; what it raises is the part's trouble."""
    answers: list[Any] = [b"all", b"", ValueError("no")]

    def ack_data() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bytes(answer)

    gatherer = make(lambda *call: b"item", ack_data=ack_data)
    for number in range(3):
        gatherer.collect(command("C", 1, (number, number + 1), [b""]))
    first, second, third = posts.next(), posts.next(), posts.next()
    assert [first.data, second.data, third.data] == [b"all", b"item", b"item"]
    assert [first.trouble, second.trouble] == [None, None]
    assert third.trouble.error == "ValueError"


def test_failed_is_told_of_each_item_and_answers_for_each_task(make: Make, posts: Posts) -> None:
    """Each failed item is shown once; the first exception of a task is its trouble; the others are told, too."""
    seen: list[tuple[str, int]] = []

    def failed(item: FailedItem) -> None:
        seen.append((item.task, item.number))
        if item.task == "B":
            raise ValueError(str(item.number))

    items = [FailedItem(task, number, 1, "worker", ErrorInfo("E", "m"), b"") for task, number in
             [("A", 5), ("B", 1), ("A", 4), ("B", 2)]]  # fmt: skip
    make(lambda *call: b"", failed).call_failed(CallFailed(items))
    first, second = posts.next(), posts.next()
    assert seen == [("A", 5), ("B", 1), ("A", 4), ("B", 2)]
    assert first == FailedCalled("A", (4, 6), None)
    assert (second.task, second.spans, second.trouble.message) == ("B", (1, 3), "1")


@pytest.mark.usefixtures("one_part")
def test_finished_is_called_after_what_was_collected_before(make: Make, posts: Posts) -> None:
    """`finished` comes in its turn and gets the command; what it raises is told."""
    calls: list[object] = []

    def finished(command: CallFinished) -> None:
        calls.append(command.ok)
        raise KeyboardInterrupt

    gatherer = make(lambda *call: calls.append("item") or b"", finished=finished)
    gatherer.collect(command("C", 1, (0, 2), [b"", b""]))
    gatherer.submit(lambda: calls.append("other"))
    gatherer.call_finished(CallFinished(ok=True))
    assert isinstance(posts.next(), Collected)
    event = posts.next()
    assert isinstance(event, FinishedCalled)
    assert event.trouble is not None
    assert event.trouble.error == "KeyboardInterrupt"
    assert calls == ["item", "item", "other", True]


@pytest.mark.parametrize(("returned", "data"), [(b"packed", b"packed"), (None, b"")])
def test_what_finished_returns_goes_with_the_answer(
    make: Make, posts: Posts, returned: bytes | None, data: bytes
) -> None:
    """The packed data of the run's last ACK; none for None."""
    make(lambda *call: b"", finished=lambda command: returned).call_finished(CallFinished(ok=True))
    assert posts.next() == FinishedCalled(None, data)


def test_a_trouble_has_its_bounds() -> None:
    """Messages and tracebacks of any size become texts that can be sent."""
    trouble = trouble_of(ValueError("x" * 1_000_000))
    assert len(trouble.message) == TEXT_LIMIT
    assert len(trouble.traceback) <= TEXT_LIMIT


# with a journal -------------------------------------------------------------------------------------------------------


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
    assert over.wait(10)
    gatherer.close(5)
    assert missing == []
    assert [number for event in said for number in numbers_of(event.spans)] == list(range(100))


def test_what_waits_goes_into_one_commit(make: Make, posts: Posts, journal: Journal) -> None:
    """Fifty commands that queue behind a slow call cost a commit or two, and are answered in order."""
    release = threading.Event()
    commits = commits_of(journal)
    gatherer = make(lambda task, attempt, number, payload: (number == 0 and release.wait(5)) * b"", journal=journal)
    for number in range(51):
        gatherer.collect(command("C", 1, (number, number + 1), [b""]))
    release.set()
    events = posts.until(lambda events: len(events) == 51)
    assert [event.spans for event in events] == [(number, number + 1) for number in range(51)]
    assert 1 <= len(commits) <= 6


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
    gatherer.close(5)
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
        full.wait(5)

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
    gatherer.close(5)
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
        release.wait(5)
        return b""

    gatherer = make(collect, journal=journal)
    gatherer.collect(command("C", 1, (0, 1), [b""]))
    assert inside.wait(5)
    gatherer.close(0.01)
    with pytest.raises(JournalError, match="is in use"):
        Journal(path, pipeline="squares")
    release.set()
    assert posts.next() == Collected("C", (0, 1), [], b"")
    gatherer.close(5)
    assert done(path).spans() == (0, 1)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_was_asked_for_before_the_end_is_said(make: Make, posts: Posts, journal: Journal, path: Path) -> None:
    """Closing is waiting behind it: it goes into a last commit."""
    inside, release = threading.Event(), threading.Event()

    def collect(task: str, attempt: int, number: int, payload: bytes) -> bytes:
        if number == 0:
            inside.set()
            release.wait(5)
        return b""

    gatherer = make(collect, journal=journal)
    for number in range(3):
        gatherer.collect(command("C", 1, (number, number + 1), [b""]))
    assert inside.wait(5)
    gatherer.close(0.01)
    release.set()
    assert [posts.next().spans for _ in range(3)] == [(0, 1), (1, 2), (2, 3)]
    gatherer.close(5)
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
    gatherer.close(5)
    assert posts.arrived.empty()
    # a machine with other work may take so long for the first item that it was committed by itself
    assert [one.spans for one in before] in ([], [(0, 1)])
    assert (done(path).spans(), dead_items(path)) == ((0, 1) if before else (), [])


def test_a_result_that_cannot_be_opened_fails_alone(make: Make, posts: Posts) -> None:
    """Its neighbours are collected, each with its own number."""
    seen: list[Any] = []
    gatherer = make(lambda task, attempt, number, value: seen.append((number, value)))
    gatherer.collect(Collect("C", 1, (0, 2, 5, 6), [pack(b"a"), b"\xc1", pack(b"c")]))
    events = [posts.next()]
    while sum(map(len, (event.spans for event in events))) < 4:
        # to say the failure may take longer than a part has
        events.append(posts.next())
    assert seen == [(0, b"a"), (5, b"c")]
    assert [one for event in events for one in event.spans] == [0, 1, 5, 6]
    ((number, trouble, payload),) = [one for event in events for one in event.failures]
    assert (number, trouble.error, payload) == (1, "zmqpipeline.errors.SerializeError", b"\xc1")
