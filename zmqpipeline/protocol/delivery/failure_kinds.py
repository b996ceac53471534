"""Failures that are alike, counted: a thousand items that fail of one bug are one thing to say, not a thousand.

The law:

* A **kind** is: of which task or function, which type of error, raised where (file, line and function).
* The first failure of a kind is told at once. The next ones are counted, and told as a sum at most once in
  `SUM_SECONDS`, and at the end.
* At most `MAX_KINDS` kinds are told apart; all others count as one.

Nothing here writes: whoever counts is told what is due. Time is an argument.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.delivery.failures import in_a_line, printable
from zmqpipeline.protocol.messages import ErrorInfo, FailedItem, FailedKind, TaskError

SUM_SECONDS = 10.0
"""How long the next failures of a kind are counted before their number is told."""

MAX_KINDS = 100
"""So many kinds are told apart."""

MAX_KEPT, MAX_KEPT_SIZE = 1000, 16 * 1024 * 1024
"""So many failed items are kept to be looked at, of so many bytes and characters in all."""

MAX_SENT = 20
"""So many troubles are told to another role, each with texts of at most SENT_TEXT characters."""

SENT_TEXT = 8192

First = TypeVar("First")


@dataclass
class Kind(Generic[First]):
    """One kind. `trouble` and `first` are those of its first failure; `count` is how many there were."""

    what: str
    trouble: ErrorInfo
    first: First
    count: int = 1
    unit: str = "items"
    untold: int = 0
    """How many of them came since their number was told."""
    due: float | None = None
    """When it is to be told again."""
    told_at: float = 0.0

    def said(self) -> str:
        """``KeyError: 'm' in boom.py:14 collect: 1,000 items``."""
        unit = self.unit if self.count != 1 else self.unit.removesuffix("s")
        return f"{said(self.trouble).rstrip('.')}: {self.count:,} {unit}"


def by_count(kinds: Iterable[Kind[First]]) -> list[Kind[First]]:
    """The most frequent kind first."""
    return sorted(kinds, key=lambda kind: -kind.count)


class Kinds(Generic[First]):
    """See the module."""

    def __init__(self) -> None:
        """No failure has been counted."""
        self._kinds: dict[tuple[str, ...], Kind[First]] = {}

    def __iter__(self) -> Iterator[Kind[First]]:
        """The kinds, in the order in which they first came."""
        return iter(list(self._kinds.values()))

    def __len__(self) -> int:
        """How many kinds there are."""
        return len(self._kinds)

    def add(
        self,
        what: str,
        trouble: ErrorInfo,
        first: Callable[[], First],
        now: float,
        unit: str = "items",
        count: int = 1,
        stage: str = "",
    ) -> bool:
        """Count failures; True if they are the first of their kind. `first` is called then, for what is kept of it."""
        key: tuple[str, ...] = (what, stage, trouble.error, trouble.place)
        if key not in self._kinds and len(self._kinds) >= MAX_KINDS:
            key = ("",)
            trouble = ErrorInfo("other errors", f"of more than {MAX_KINDS} kinds")
        kind = self._kinds.get(key)
        if kind is None:
            self._kinds[key] = Kind(what, trouble, first(), count, unit, told_at=now)
            return True
        kind.count += count
        kind.untold += count
        if unit == "attempts":
            kind.unit = unit
        if kind.due is None:
            kind.due = kind.told_at + SUM_SECONDS
        return False

    def next_time(self) -> float | None:
        """When the next sum is to be told."""
        return min((kind.due for kind in self._kinds.values() if kind.due is not None), default=None)

    def overdue(self, now: float) -> list[Kind[First]]:
        """The kinds whose sum is to be told now; they count as told."""
        return self._told([kind for kind in self._kinds.values() if kind.due is not None and now >= kind.due], now)

    def rest(self, now: float) -> list[Kind[First]]:
        """The kinds with failures that were never told, at the end; they count as told."""
        return self._told([kind for kind in self._kinds.values() if kind.untold], now)

    @staticmethod
    def _told(kinds: list[Kind[First]], now: float) -> list[Kind[First]]:
        for kind in kinds:
            kind.untold, kind.due, kind.told_at = 0, None, now
        return kinds


class FailedItems:
    """What a role remembers of the items that were given up: their kinds, and the first of them themselves."""

    def __init__(self) -> None:
        """None was."""
        self.kinds: Kinds[FailedItem] = Kinds()
        self.first: list[FailedItem] = []
        self._size = 0

    def add(self, item: FailedItem, now: float = 0.0, count: int = 1) -> bool:
        """One more, or so many alike; True if it is the first of its kind. Who says no sums needs no time."""
        self._size += len(item.payload) + len(item.trouble.message) + len(item.trouble.traceback)
        if len(self.first) < MAX_KEPT and self._size <= MAX_KEPT_SIZE:
            self.first.append(item)
        return self.kinds.add(item.task, item.trouble, lambda: brief_item(item), now, count=count, stage=item.stage)

    def of_stage(self, *stages: str) -> list[FailedKind]:
        """The kinds of these stages, as they are sent."""
        return [FailedKind(kind.count, kind.first) for kind in self.kinds if kind.first.stage in stages][:MAX_SENT]

    def troubles(self) -> dict[str, ErrorInfo]:
        """By task, what the first of its failed items failed of."""
        return {kind.what: kind.trouble for kind in reversed(list(self.kinds))}


def said(trouble: ErrorInfo) -> str:
    """``KeyError: 'm' in boom.py:14 collect``, in one line."""
    return f"{in_a_line(trouble)} in {printable(trouble.place)}" if trouble.place else in_a_line(trouble)


def traceback_of(trouble: ErrorInfo) -> str:
    """Its traceback, from the next line on; empty if it has no frames, so that it says no more than `said` does."""
    return f"\n{trouble.traceback.rstrip()}" if "Traceback" in trouble.traceback else ""


def brief(trouble: ErrorInfo) -> ErrorInfo:
    """The same with shorter texts, of a traceback its end."""
    if len(trouble.message) <= SENT_TEXT and len(trouble.traceback) <= SENT_TEXT:
        return trouble
    return dataclasses.replace(trouble, message=trouble.message[:SENT_TEXT], traceback=trouble.traceback[-SENT_TEXT:])


def brief_item(item: FailedItem) -> FailedItem:
    """The same with shorter texts, and without a large payload."""
    payload = item.payload if len(item.payload) <= 2 * SENT_TEXT else b""
    return dataclasses.replace(item, trouble=brief(item.trouble), payload=payload)


def told(troubles: dict[str, ErrorInfo]) -> list[TaskError]:
    """Troubles by task as they are sent, the first of them."""
    return [TaskError(task, brief(trouble)) for task, trouble in list(troubles.items())[:MAX_SENT]]
