"""Journals for the tests of the ground floor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.journals import RUN, Open
from zmqpipeline.runtime.journal import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a journal may be; its name has what an address would not take as it is."""
    return tmp_path / "a run's #1? 100%.db"


@pytest.fixture
def open_journal(path: Path) -> Iterator[Open]:
    """Opens the journal at `path`, and closes what is left open."""
    opened: list[Journal] = []

    def open_it(fresh: bool = False, pipeline: str = "squares") -> Journal:
        opened.append(Journal(path, pipeline=pipeline, fresh=fresh))
        return opened[-1]

    yield open_it
    for journal in opened:
        journal.close()


@pytest.fixture
def journal(open_journal: Open) -> Journal:
    """A new journal in which a run has begun."""
    made = open_journal()
    made.begin(RUN)
    return made
