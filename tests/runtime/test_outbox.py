"""The outboxes of a journal: what results give, in pieces, once, and until it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from zmqpipeline.protocol.commands import Fetch, SetRun
from zmqpipeline.protocol.data.ranges import numbers_of
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem
from zmqpipeline.runtime.journal import Journal
from zmqpipeline.runtime.journal.outbox import PIECE_BYTES, PIECE_ITEMS, Outboxes
from zmqpipeline.serialization.pack import pack

ALL = 1 << 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "run.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """A journal of a run in which A feeds B, and B feeds C."""
    with opened(path) as made:
        made.begin(SetRun("run", b""))
        yield made


@contextlib.contextmanager
def opened(path: Path, **keywords: bool) -> Iterator[Journal]:
    """The journal, for another collector."""
    made = Journal(path, pipeline="stages", fed=("B", "C"), **keywords)
    try:
        yield made
    finally:
        made.close()


def item(number: int) -> bytes:
    """A packed item."""
    return pack({"n": number})


def give(outboxes: Outboxes, *numbers: int, task: str = "B") -> None:
    """One result gives these."""
    for number in numbers:
        outboxes.give(task, item(number))
    outboxes.accept()


def fetched(journal: Journal, start: int = 0, stop: int = ALL, max_bytes: int = ALL, task: str = "B") -> list[int]:
    """The numbers of what comes, whose packed items are what they should be."""
    answer = journal.outboxes.fetch(Fetch(task, start, stop, max_bytes))
    numbers = numbers_of(answer.spans)
    assert list(answer.payloads) == [item(number) for number in numbers]
    return numbers


def rows(journal: Journal, table: str = "zmqpipeline_outbox") -> int:
    """How many rows the table has."""
    return int(journal._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def collected(journal: Journal, *numbers: int) -> None:
    """These items of B are collected, and that is written down."""
    journal.collected("B", numbers, b"")
    journal.commit()


def count_of(journal: Journal) -> tuple[int, int]:
    """How many items B has, and how many bytes of them are not done."""
    told = {one.task: one for one in journal.outboxes.told(())}
    return told["B"].count, told["B"].waiting


def test_what_results_give_comes_in_order(journal: Journal) -> None:
    """By the numbers in which it was given, from any of them on, no more than asked for."""
    give(journal.outboxes, 0, 1, 2)
    give(journal.outboxes, 3)
    give(journal.outboxes, 0, task="C")
    journal.commit()
    assert count_of(journal)[0] == 4
    assert fetched(journal) == [0, 1, 2, 3]
    assert fetched(journal, 2) == [2, 3]
    assert fetched(journal, 1, 3) == [1, 2]
    assert fetched(journal, 0, max_bytes=1) == [0]
    assert fetched(journal, 0, max_bytes=2 * len(item(0))) == [0, 1]
    assert fetched(journal, task="C") == [0]
    assert rows(journal) == 2


def test_many_come_in_pieces(journal: Journal) -> None:
    """Whole ones as they are; the rest is asked for next."""
    many = 2 * PIECE_ITEMS + 5
    give(journal.outboxes, *range(many))
    journal.commit()
    assert rows(journal) == 3
    found: list[int] = []
    while len(found) < many:
        found += fetched(journal, len(found), len(found) + 1500)
    assert found == list(range(many))


def test_large_items_are_pieces_of_their_own(journal: Journal) -> None:
    """Or few together: a row is no larger than a piece, but for a single item."""
    outboxes = journal.outboxes
    large = [pack({"n": b"x" * size}) for size in (PIECE_BYTES // 2, PIECE_BYTES // 2, 3 * PIECE_BYTES, 10)]
    for one in large:
        outboxes.give("B", one)
    outboxes.accept()
    journal.commit()
    assert rows(journal) == 4
    assert count_of(journal) == (4, sum(map(len, large)))
    answer = outboxes.fetch(Fetch("B", 0, ALL, PIECE_BYTES))
    assert (answer.spans, list(answer.payloads)) == ((0, 1), large[:1])
    answer = outboxes.fetch(Fetch("B", 2, ALL, PIECE_BYTES))
    assert (answer.spans, list(answer.payloads)) == ((2, 3), large[2:3])


@pytest.mark.parametrize("many", [3, PIECE_ITEMS - 1, PIECE_ITEMS, 3 * PIECE_ITEMS + 7])
def test_a_call_that_raises_leaves_nothing(many: int, journal: Journal) -> None:
    """However much it gave before, to however many tasks; what came before it stays."""
    give(journal.outboxes, 0, 1)
    for number in range(many):
        journal.outboxes.give("B", item(number))
        journal.outboxes.give("C", item(number), b"k" * 15 + b"%d" % (number % 10))
    journal.outboxes.undo()
    give(journal.outboxes, 2)
    journal.outboxes.give("C", item(0), b"k" * 15 + b"1")
    journal.outboxes.accept()
    journal.commit()
    assert fetched(journal) == [0, 1, 2]
    assert fetched(journal, task="C") == [0]


def test_a_key_is_an_item_once(journal: Journal, path: Path) -> None:
    """Whoever gives it, in this life or the next."""
    outboxes = journal.outboxes
    for number, digest in ((0, b"a" * 16), (1, b"b" * 16), (5, b"a" * 16)):
        outboxes.give("B", item(number), digest)
    outboxes.accept()
    journal.commit()
    journal.close()
    with opened(path) as again:
        again.outboxes.give("B", item(7), b"b" * 16)
        again.outboxes.give("B", item(2), b"c" * 16)
        again.outboxes.accept()
        again.commit()
        assert fetched(again) == [0, 1, 2]


def test_what_is_done_is_deleted_by_the_piece(journal: Journal) -> None:
    """In any order; what waits counts until the last item of its piece is done."""
    give(journal.outboxes, *range(PIECE_ITEMS))
    journal.commit()
    give(journal.outboxes, PIECE_ITEMS, PIECE_ITEMS + 1)
    journal.commit()
    whole = count_of(journal)[1]
    collected(journal, *range(1, PIECE_ITEMS))
    assert (rows(journal), count_of(journal)[1]) == (2, whole)
    collected(journal, 0)
    assert rows(journal) == 1
    assert fetched(journal) == [PIECE_ITEMS, PIECE_ITEMS + 1]
    collected(journal, PIECE_ITEMS, PIECE_ITEMS + 1)
    assert (rows(journal), count_of(journal)) == (0, (PIECE_ITEMS + 2, 0))


def failure(number: int) -> FailedItem:
    """An item of B that is given up."""
    return FailedItem("B", number, 1, "worker", ErrorInfo("ValueError", "no"), item(number))


def test_one_that_failed_stays_and_holds_up_nothing(journal: Journal, path: Path) -> None:
    """It is there to be tried again; when that is collected, it goes."""
    give(journal.outboxes, 0, 1, 2)
    journal.commit()
    journal.failed([failure(1)])
    collected(journal, 0, 2)
    assert (rows(journal), count_of(journal)[1]) == (1, 0)
    assert fetched(journal, 1) == [1, 2]
    with contextlib.closing(journal):
        journal._db.execute("UPDATE zmqpipeline_failed SET retrying = 1")
    with opened(path) as again:
        assert again.restored is not None
        assert [(one.task, one.count, one.waiting > 0) for one in again.restored.outboxes] == [
            ("B", 3, True),
            ("C", 0, False),
        ]
        collected(again, 1)
        assert (rows(again), count_of(again)[1]) == (0, 0)


def test_what_is_not_committed_was_not_given(journal: Journal, path: Path) -> None:
    """The mark of a result and its items are one transaction."""
    give(journal.outboxes, 0)
    journal.collected("A", [0], b"")
    journal.commit()
    give(journal.outboxes, *range(1, 3 * PIECE_ITEMS))
    journal.collected("A", [1], b"")
    journal.outboxes.flush()
    journal.close()
    with opened(path) as again:
        assert again.restored is not None
        assert [(one.task, one.collected) for one in again.restored.progress if one.task == "A"] == [("A", (0, 1))]
        assert (count_of(again)[0], fetched(again)) == (1, [0])


def test_depths_are_kept(journal: Journal) -> None:
    """Neighbours of one depth are one piece."""
    for number, depth in enumerate([0, 0, 1, 1, 2, 1]):
        journal.outboxes.give("B", item(number), depth=depth)
    journal.outboxes.accept()
    journal.commit()
    assert [journal.outboxes.depth_of("B", number) for number in (5, 0, 1, 2, 3, 4)] == [1, 0, 0, 1, 1, 2]
    assert (rows(journal), fetched(journal)) == (4, list(range(6)))


def test_a_scratch_counts_for_its_own_run(journal: Journal, path: Path) -> None:
    """What it holds of another one is gone when a run begins; what it holds of this one is told as set aside."""
    journal.close()
    with opened(path, scratch=True) as scratch:
        assert scratch.restored is not None
        assert scratch.restored.aside
        scratch.begin(SetRun("run", b"", restored=True))
        give(scratch.outboxes, 0)
        scratch.commit()
        scratch.begin(SetRun("another", b""))
        assert (count_of(scratch), rows(scratch)) == ((0, 0), 0)
