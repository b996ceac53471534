"""Journals and pools for the tests of the runtime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.journals import RUN, Open
from tests.support.patience import PATIENCE, await_threads
from tests.support.pools import Make
from tests.support.transports import Posts
from zmqpipeline.runtime.journal import Journal
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.pool import Pool


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


@pytest.fixture
def posts() -> Posts:
    """Where the pool answers."""
    return Posts()


@pytest.fixture
def make(posts: Posts) -> Iterator[Make]:
    """Makes pools, closes them, and sees to it that none of their threads is left."""
    before = set(threading.enumerate())
    pools: list[Pool] = []

    def make_pool(threads: int, execute: Callable[[int, bytes, int, int], bytes], **more: Any) -> Pool:
        def call(item: bytes, index: int, number: int, attempt: int) -> bytes:
            return execute(index, item, number, attempt)

        pools.append(Pool(threads, Execution(call, lambda: bytes, placed=True), posts, **more))
        return pools[-1]

    yield make_pool
    for pool in pools:
        pool.close(PATIENCE)
    await_threads(before)
