"""What a run left behind, read back: who executed what and when, what was collected, and what was done to whom."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

Item = tuple[str, int]
"""A task's name, or a client's, and a number."""


@dataclass(frozen=True)
class Line:
    """One line of a file of the run: something happened to an item, at a time, in a process."""

    item: Item
    attempt: int
    at: float
    """Seconds of `time.monotonic`, which is one clock for all processes of a machine."""
    pid: int


@dataclass
class Hit:
    """One thing that was done to the run."""

    what: str
    at: float
    pids: frozenset[int] = frozenset()
    """The workers that it struck; none if it struck somebody else."""
    healed: float | None = None
    """When it was over: continued, started again, connected again. For a worker that was killed it stays None."""
    costs: int = 1
    """How many further executions of an item it may be the reason for."""
    died: frozenset[int] = frozenset()
    """The processes of whatever role that it killed at once."""


@dataclass
class History:
    """All that a checker needs to know of one run."""

    expected: set[Item]
    executions: list[Line]
    collected: list[Line]
    failures: list[Line] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    may_fail: set[Item] = field(default_factory=set)
    """The items that are to end as failed ones; no others may."""
    journal: bool = False
    """Whether what was collected is in the journal, where even a crash of the collector repeats nothing."""
    ordered: bool = True
    """Whether nothing of B may be executed before all of A is collected."""
    parents: Callable[[Item], set[Item]] | None = None
    """The items whose results may give this one, if results become items; one without any is there from the start."""


def read_lines(path: Path) -> list[Line]:
    """The complete lines of a file that the processes wrote; none if it was never written."""
    if not path.exists():
        return []
    return [_line(text.split()) for text in path.read_text().split("\n")[:-1]]


def _line(words: list[str]) -> Line:
    task, n, attempt, at, pid = words
    return Line((task, int(n)), int(attempt), float(at), int(pid))


def read_rows(path: Path) -> list[Line]:
    """What the collector's function wrote through the journal."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows: Iterable[tuple[str, int, float, int]] = database.execute("SELECT task, n, at, pid FROM collected")
        return [Line((task, n), 0, at, pid) for task, n, at, pid in rows]
