"""The groups in a journal: the same as in memory, whatever is undone, written late, or opened again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.staged import Groups as InMemory
from zmqpipeline.protocol.collection.gathering import Gathering, Parent, Span
from zmqpipeline.protocol.commands import SetRun
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.gathers import Gather, gathers
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem
from zmqpipeline.runtime.journal import Journal, groups
from zmqpipeline.runtime.journal.failed import retry

SPECS = {
    one.task_type: one
    for one in (
        TaskSpec("A"),
        TaskSpec("B", for_each=("A",)),
        TaskSpec("D", for_each=("A", "B")),
        TaskSpec("C", for_each=("D",), gather="A"),
        TaskSpec("E", for_each=("D", "B"), gather="A"),
        TaskSpec("F", for_each=("D",), gather="B"),
    )
}
FED = ("B", "D", "C", "E", "F")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a journal is."""
    return tmp_path / "run.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """One in which a run has begun."""
    made = opened(path)
    made.begin(SetRun("run", b""))
    yield made
    made.close()


def opened(path: Path) -> Journal:
    """That file, for these tasks."""
    return Journal(path, pipeline="groups", fed=FED, durable=False)


class Told:
    """Groups as they are given."""

    def __init__(self, store: groups.Groups | InMemory) -> None:
        self.store = store
        self.given: list[tuple[str, int, tuple[tuple[str, int, bool], ...]]] = []
        self.machine = Gathering(gathers(SPECS), store, self.give)
        self.count = 0

    def give(self, gather: Gather, group: int) -> Span:
        """Note what it has."""
        if isinstance(self.store, InMemory):
            had = sorted(self.store.kept[gather.task, group])
        else:
            had = [(item.task, item.number, False) for item in self.store.failures(gather.task, group)]
            for task in gather.results:
                had += [(*named(one), True) for one in self.store.results(gather.task, group, task)]
            assert self.store.parent(gather.task, group).result == b"%s %d" % (gather.of.encode(), group)
        self.given.append((gather.task, group, tuple(sorted(had))))
        return 0, 0


def named(result: bytes) -> tuple[str, int]:
    """Of which item it is."""
    task, number = result.decode().split()
    return task, int(number)


def failure(task: str, number: int) -> FailedItem:
    """Some failure."""
    return FailedItem(task, number, 1, "worker", ErrorInfo("ValueError", "no"), b"item")


@pytest.mark.parametrize("unwritten", [1, 3, 1000])
@pytest.mark.parametrize("seed", range(8))
def test_they_are_the_same_as_in_memory(
    seed: int, unwritten: int, path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items come in any order, are undone and done again, and the journal is closed and opened on the way."""
    monkeypatch.setattr(groups, "MAX_UNWRITTEN", unwritten)
    monkeypatch.setattr(groups, "MAX_KNOWN", 5)
    rng = random.Random(seed)
    counts = dict.fromkeys("BD", 0)
    ready = [("A", number) for number in range(12)]
    plain, real = Told(InMemory()), Told(journal.groups)
    while ready:
        task, number = ready.pop(rng.randrange(len(ready)))
        given = {}
        for child in ("B", "D"):
            if task in SPECS[child].for_each and (many := rng.randrange(4)):
                given[child] = (counts[child], counts[child] + many)
        if task != "A" and rng.random() < 0.2:
            plain.machine.failed(task, number)
            journal.failed([failure(task, number)])
            do(journal, real, rng, lambda real, one=(task, number): real.machine.failed(*one))
            given = {}
        else:
            parent = Parent(b"%s %d" % (task.encode(), number))
            expected = {name: stop - start for name, (start, stop) in given.items()}
            is_last = plain.machine.completes(task, number, expected)
            before = len(plain.given)
            plain.machine.collected(task, number, parent, given)
            assert is_last or len(plain.given) == before
            do(journal, real, rng, lambda real, one=(task, number, parent, given): real.machine.collected(*one))
        for child, (start, stop) in given.items():
            counts[child] = stop
            ready += [(child, at) for at in range(start, stop)]
        assert real.given == plain.given
        if rng.random() < 0.3:
            journal.commit()
        if rng.random() < 0.1:
            journal.commit()
            journal.close()
            journal.__init__(path, pipeline="groups", fed=FED, durable=False)  # type: ignore[misc]
            real.store = journal.groups
            real.machine = Gathering(gathers(SPECS), journal.groups, real.give)
    assert not plain.store.open  # type: ignore[union-attr]
    assert len(plain.given) > 24
    assert {len(rows(journal, table)) for table in ("groups", "parents", "members", "gathered")} == {0}


def do(journal: Journal, real: Told, rng: random.Random, step: object) -> None:
    """Some steps are done within a savepoint, undone, and done again."""
    assert callable(step)
    outboxes, before = journal.outboxes, len(real.given)
    if rng.random() < 0.3:
        outboxes.begin()
        step(real)
        outboxes.undo()
        del real.given[before:]
    if rng.random() < 0.5:
        outboxes.begin()
    step(real)
    outboxes.accept()


def rows(journal: Journal, table: str) -> list[object]:
    """What is in one of the tables."""
    journal.commit()
    with journal.item() as transaction:
        return transaction.execute(f"SELECT * FROM zmqpipeline_{table}").fetchall()


def test_a_failed_member_that_is_to_be_sent_again_is_waited_for_again(path: Path, journal: Journal) -> None:
    """If its group was not given; it is so however often the journal is opened before it comes."""
    real = Told(journal.groups)
    real.machine.collected("A", 0, Parent(b"A 0"), {"D": (0, 2)})
    journal.collected("A", [0], b"")
    journal.failed([failure("D", 0)])
    real.machine.failed("D", 0)
    journal.commit()
    journal.close()
    assert retry(path, None) == 1
    for _ in range(2):
        journal = opened(path)
        journal.close()
    journal = opened(path)
    real = Told(journal.groups)
    real.machine.collected("D", 1, Parent(b"D 1"), {})
    assert real.given == []
    real.machine.collected("D", 0, Parent(b"D 0"), {})
    journal.collected("D", [0, 1], b"")
    journal.commit()
    assert sorted(task for task, _, _ in real.given) == ["C", "E"]
    assert {had for _, _, had in real.given} == {(("D", 0, True), ("D", 1, True))}
    journal.close()
