"""Deliberate defects of stages, which the simulation of `tests.support.staged` must find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tests.support.mutations import Patch
from tests.support.staged import Groups, StagedDisk
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.collection.collecting import CollectedResults
from zmqpipeline.protocol.collection.gathering import Gathering, Parent, Span
from zmqpipeline.protocol.delivery.feeding import Feeding
from zmqpipeline.protocol.delivery.gathers import Gather
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.delivery.transitions import TaskMoves


def _fed_after_the_commit() -> list[Patch]:
    """What a result gives is written a little later than the mark of the result."""
    feed = StagedDisk.feed

    def late(self: StagedDisk, name: str, numbers: Sequence[int]) -> None:
        collector = self.world.collector

        def now() -> None:
            feed(self, name, numbers)
            collector.say(e.Given([]))

        self.world.after(0.05, lambda: collector.carry_out(now))

    return [(StagedDisk, "feed", late)]


def _acknowledged_before_the_count() -> list[Patch]:
    """The collector says that a result is collected, and with the next word what it gave."""
    collected = CollectedResults._collected

    def early(self: CollectedResults, event: e.Collected) -> None:
        collected(self, replace(event, outboxes=[]))
        self._give(event.outboxes)

    return [(CollectedResults, "_collected", early)]


def _count_outside_of_the_transaction() -> list[Patch]:
    """A collector that is started again counts from what an outbox held before its last transaction."""
    restored = StagedDisk.restored

    def stale(self: StagedDisk) -> e.Restored | None:
        held = restored(self)
        return held and replace(held, outboxes=[replace(one, count=max(0, one.count - 1)) for one in held.outboxes])

    return [(StagedDisk, "restored", stale)]


def _circle_ends_early() -> list[Patch]:
    """A circle is at its end as soon as all that is known of it is handed out."""

    def is_fed_out(self: Feeding, task: TaskState) -> bool:
        together = self._circles[task.spec.task_type] or [task]
        before = self._before[task.spec.task_type]
        return all(one.is_over for one in before) and all(one.is_over or one.has_taken_all for one in together)

    return [(Feeding, "is_fed_out", is_fed_out)]


def _feeders_forgotten() -> list[Patch]:
    """A fed task is at its end as soon as all that is known is handed out, whatever still feeds it."""
    is_fed_out = Feeding.is_fed_out

    def hasty(self: Feeding, task: TaskState) -> bool:
        return is_fed_out(self, task) or (task.has_taken_all and task.ledger.next_number > 0)

    return [(Feeding, "is_fed_out", hasty)]


def _never_held_back() -> list[Patch]:
    """A task goes on, however much waits for the one that it feeds."""
    return [(TaskState, "is_held_back", property(lambda self: False))]


def _asked_once() -> list[Patch]:
    """What is lost on the way from an outbox is not asked for again."""
    return [(Feeding, "again", lambda self: None)]


def _dependents_of_stages_early() -> list[Patch]:
    """Who depends on a fed task does not wait for what feeds it, and takes it for over when nothing is at hand."""

    def hasty(self: TaskMoves, task: TaskState) -> list[TaskState]:
        needed = [self.tasks[name] for name in task.spec.depends_on]
        return [one for one in needed if one.ledger.unfinished]

    return [(TaskMoves, "needed_of", hasty)]


def _roots_unheard() -> list[Patch]:
    """What there is of a task's own first items is told with results only."""
    return [
        (CollectedResults, "_given", lambda self, event: self._give(event.outboxes)),
        (Feeding, "lacks_words", False),
    ]


def _end_told_as_done() -> list[Patch]:
    """What is done is told without what it gave, to a distributor that was started again."""
    holding = CollectedResults._holding

    def bare(self: CollectedResults, progress: list[m.TaskProgress]) -> m.Holding:
        return replace(holding(self, progress), outboxes=[])

    return [(CollectedResults, "_holding", bare)]


def _gathered_before_the_last() -> list[Patch]:
    """A group is given when one of it is still open."""
    leave = Gathering._leave

    def hasty(self: Gathering, gather: Gather, group: int) -> None:
        if self._store.count(gather.task, group, 0) == 2:
            self._store.count(gather.task, group, -1)
        leave(self, gather, group)

    return [(Gathering, "_leave", hasty)]


def _given_again_after_a_restart() -> list[Patch]:
    """That a group was given is not written down; who is started again gives those of which nothing is open."""
    restored = StagedDisk.restored

    def again(self: StagedDisk) -> e.Restored | None:
        for (task, group), count in self.groups.open.items():
            if not count:
                self.give_group(next(one for one in self.world.gathers if one.task == task), group)
        return restored(self)

    return [(StagedDisk, "restored", again), (Groups, "delete", lambda self, gather, group: None)]


def _failed_child_not_counted() -> list[Patch]:
    """A group waits for a member that has failed."""
    return [(Gathering, "failed", lambda self, task, number: None)]


def _children_after_the_parent() -> list[Patch]:
    """An item leaves its group before what it gave is counted."""
    collected = Gathering.collected

    def early(self: Gathering, task: str, number: int, parent: Parent, given: Mapping[str, Span]) -> None:
        collected(self, task, number, parent, {})
        self._join([*self._groups_of(task, number), *self._begun(task, number)], given)

    return [(Gathering, "collected", early)]


def _counted_after_the_commit() -> list[Patch]:
    """What came of an item is counted in its group a little later than it is marked."""
    collected = Gathering.collected

    def feed(self: StagedDisk, name: str, numbers: Sequence[int]) -> None:
        later: list[tuple[int, Mapping[str, Span]]] = []
        with_groups = Gathering.collected
        Gathering.collected = lambda its, task, number, parent, given: later.append((number, given))  # type: ignore
        try:
            real(self, name, numbers)
        finally:
            Gathering.collected = with_groups  # type: ignore[method-assign]
        collector = self.world.collector

        def now() -> None:
            for number, given in later:
                collected(self.gathering, name, number, Parent(b"result"), given)
            collector.say(e.Given([]))

        self.world.after(0.05, lambda: collector.carry_out(now))

    real = StagedDisk.feed
    return [(StagedDisk, "feed", feed)]


STAGED_MUTATIONS: dict[str, Callable[[], list[Patch]]] = {
    "fed-after-the-commit": _fed_after_the_commit,
    "acknowledged-before-the-count": _acknowledged_before_the_count,
    "count-outside-of-the-transaction": _count_outside_of_the_transaction,
    "circle-ends-early": _circle_ends_early,
    "feeders-forgotten": _feeders_forgotten,
    "never-held-back": _never_held_back,
    "asked-once": _asked_once,
    "dependents-of-stages-early": _dependents_of_stages_early,
    "roots-unheard": _roots_unheard,
    "end-told-as-done": _end_told_as_done,
    "gathered-before-the-last": _gathered_before_the_last,
    "given-again-after-a-restart": _given_again_after_a_restart,
    "failed-child-not-counted": _failed_child_not_counted,
    "children-after-the-parent": _children_after_the_parent,
    "counted-after-the-commit": _counted_after_the_commit,
}
