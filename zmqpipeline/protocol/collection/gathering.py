"""Groups: what came of one result, until it is all there; then it is given to the task that gathers it, once.

The law:

* A collected result of a task by which is gathered begins a group. Its members are the items that came of it, of the
  tasks on the ways to those whose results are gathered.
* `open` of a group is how many are neither collected nor failed for good: of its members, and its parent until that
  has given what it gives. An item that is collected adds what it gave, then it leaves. So `open` is 0 when the last of
  a group has left, and no sooner.
* With that the group is **given**: its function is called, what that gives are items, and the group is deleted. It is
  all one transaction with the mark of the item that has left last. So no restart comes between them: a group that is
  there was not given, one that was given is not there.
* A group that may still be made is a member of those that would get its items: these are not given before it.
* If giving raises, the transaction is undone: the item has not left. Who calls this says what becomes of it.

Where it all is, a `GroupStore` knows; nothing is kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.delivery.gathers import Gather

Group: TypeAlias = tuple[Gather, int]
"""Of which task, and the number of the item that began it."""

Span: TypeAlias = tuple[int, int]
"""Items with these numbers, half-open."""


@dataclass(frozen=True)
class Parent:
    """A result that is collected: what begins a group, if its task is one by which is gathered."""

    result: bytes
    attempt: int = 1
    depth: int = 0
    """How many results led to its item."""


class GroupStore(Protocol):
    """The groups of a journal; all that is done until its transaction is committed may be undone with that."""

    def begin(self, gather: str, group: int, parent: Parent) -> None:
        """There is a group, of which one is open: its parent."""

    def group_of(self, gather: str, task: str, number: int) -> int | None:
        """The group that this item is a member of; None if it is in none, or that was given."""

    def add_members(self, gather: str, group: int, task: str, span: Span) -> None:
        """These items belong to it; they are not counted by that."""

    def count(self, gather: str, group: int, change: int) -> int:
        """So many more are open, or fewer; how many that makes."""

    def keep(self, gather: str, group: int, task: str, number: int, result: bytes | None) -> None:
        """A member has this result; None: it has failed for good."""

    def delete(self, gather: str, group: int) -> None:
        """It was given: neither it nor what was kept of it is there any more."""


class Gathering:
    """The groups of one run. Each method is part of the transaction that marks the item."""

    def __init__(self, gathers: Sequence[Gather], store: GroupStore, give: Callable[[Gather, int], Span]) -> None:
        """`give` calls the function for a group, and makes items of what it gives: it says which."""
        self._store, self._give = store, give
        self._begun_by: dict[str, list[Gather]] = {}
        self._joined_by: dict[str, list[Gather]] = {}
        for one in gathers:
            self._begun_by.setdefault(one.of, []).append(one)
            for task in one.members:
                self._joined_by.setdefault(task, []).append(one)

    def concerns(self, task: str) -> bool:
        """Whether items of this task begin groups, or may belong to some."""
        return task in self._begun_by or task in self._joined_by

    def collected(self, task: str, number: int, parent: Parent, given: Mapping[str, Span]) -> None:
        """This item is collected, and its result has given these items."""
        groups = self._groups_of(task, number)
        for gather, group in groups:
            if task in gather.results:
                self._store.keep(gather.task, group, task, number, parent.result)
        for gather in self._begun_by.get(task, ()):
            self._store.begin(gather.task, number, parent)
        groups += self._begun(task, number)
        for gather in self._begun_by.get(task, ()):
            self._count(_with(groups, gather.task), 1)
        self._join(groups, given)
        for left in groups:
            self._leave(*left)

    def completes(self, task: str, number: int, given: Mapping[str, int]) -> bool:
        """Whether a group may be given when this item is collected; its result gives at least so many of each task."""
        open_now = [
            (gather, self._store.count(gather.task, group, 0)) for gather, group in self._groups_of(task, number)
        ]
        open_now += [(gather, 1) for gather in self._begun_by.get(task, ())]
        return not all(count + sum(given.get(name, 0) for name in gather.members) > 1 for gather, count in open_now)

    def failed(self, task: str, number: int) -> None:
        """This item has failed for good: it is noted where it belongs. It begins no group."""
        groups = self._groups_of(task, number)
        for gather, group in groups:
            self._store.keep(gather.task, group, task, number, None)
        for left in groups:
            self._leave(*left)

    def _groups_of(self, task: str, number: int) -> list[Group]:
        """Those that this item is a member of."""
        found = [(one, self._store.group_of(one.task, task, number)) for one in self._joined_by.get(task, ())]
        return [(one, group) for one, group in found if group is not None]

    def _begun(self, task: str, number: int) -> list[Group]:
        return [(one, number) for one in self._begun_by.get(task, ())]

    def _join(self, groups: Iterable[Group], given: Mapping[str, Span]) -> None:
        for task, (start, stop) in given.items():
            for gather, group in _with(groups, task) if start < stop else ():
                self._store.add_members(gather.task, group, task, (start, stop))
                self._store.count(gather.task, group, stop - start)

    def _count(self, groups: Iterable[Group], change: int) -> None:
        for gather, group in groups:
            self._store.count(gather.task, group, change)

    def _leave(self, gather: Gather, group: int) -> None:
        """One of it is no longer open; the last one has it given, and what it gives belongs where its parent does."""
        if self._store.count(gather.task, group, -1):
            return
        span = self._give(gather, group)
        self._store.delete(gather.task, group)
        around = _with([*self._groups_of(gather.of, group), *self._begun(gather.of, group)], gather.task)
        self._join(around, {gather.task: span})
        for one in around:
            self._leave(*one)


def _with(groups: Iterable[Group], task: str) -> list[Group]:
    """Those of which items of this task are members."""
    return [(gather, group) for gather, group in groups if task in gather.members]
