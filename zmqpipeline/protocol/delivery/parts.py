"""What is done, in parts: a run may have millions of ranges, and a message has a bound.

`TaskProgress.told` says how many done items were told by `Ranges` before the message that it stands in: whoever has
heard of fewer has missed a part, and asks again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from zmqpipeline.protocol.data.dedup import DedupKeys
from zmqpipeline.protocol.data.ranges import MAX_RANGES, RangeSet, size
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.messages import Holding, Keys, Outbox, Ranges, TaskProgress

MAX_MERGED = 1000
"""So many parts are remembered as heard."""


def only_counted(known: TaskProgress) -> TaskProgress:
    """The same with the numbers left out: who holds nothing of it hears how much it lacks."""
    told = size(known.collected) + size(known.failed)
    return replace(known, collected=(), failed=(), told=told)


def in_parts(
    run: str, progress: list[TaskProgress], outboxes: Sequence[Outbox] = ()
) -> tuple[list[TaskProgress], list[Ranges]]:
    """What goes into one message of this, and what is to be told before; if it is little, nothing.

    What the items gave that are done is told with each part.
    """
    if sum(len(one.collected) + len(one.failed) for one in progress) <= 2 * MAX_RANGES:
        return progress, []
    parts = [replace(part, outboxes=list(outboxes)) for one in progress for part in _parts(run, one)]
    return [only_counted(one) for one in progress], parts


def _parts(run: str, known: TaskProgress) -> Iterator[Ranges]:
    for at in range(0, len(known.collected), 2 * MAX_RANGES):
        yield Ranges(run, known.task, known.collected[at : at + 2 * MAX_RANGES], ())
    for at in range(0, len(known.failed), 2 * MAX_RANGES):
        yield Ranges(run, known.task, (), known.failed[at : at + 2 * MAX_RANGES])


class Parts:
    """What a distributor without a run hears of one, keys and ranges, before it takes it over."""

    def __init__(self, tasks: Mapping[str, TaskState]) -> None:
        self._tasks = tasks
        self._run = ""
        """The run that was told of."""
        self._known: dict[str, tuple[RangeSet, RangeSet]] = {}
        self._merged: set[int] = set()
        """Hashes of parts: each answer to a repeated question says all again, and millions of ranges take seconds."""

    def learn(self, part: Keys | Ranges) -> None:
        """A part was told."""
        self.expect(part.run)
        if not part.run or part.task not in self._tasks:
            return
        if isinstance(part, Keys):
            self._tasks[part.task].ledger.keys.learn(part)
        else:
            collected, failed = self._known.setdefault(part.task, (RangeSet(), RangeSet()))
            collected.update(part.collected)
            failed.update(part.failed)

    def expect(self, run: str) -> None:
        """The parts of this run come now; of another one nothing is kept."""
        if run != self._run:
            self._run = run
            self._known.clear()
            for task in self._tasks.values():
                task.ledger.keys = DedupKeys()

    def keys(self, run: str) -> Iterator[Keys]:
        """The keys of this run that are done, for a collector that holds no run."""
        for name, task in self._tasks.items():
            yield from task.ledger.keys.messages(run, name)

    def lacks(self, holding: Holding) -> bool:
        """Whether keys or ranges that this counts were lost on the way."""
        self.expect(holding.run)
        ours = [one for one in holding.progress if one.task in self._tasks]
        return any(self._tasks[one.task].ledger.keys.lacks(one) or self._lacks_ranges(one) for one in ours)

    def _lacks_ranges(self, known: TaskProgress) -> bool:
        return sum(map(len, self._known.get(known.task, ()))) < known.told

    def progress(self) -> list[TaskProgress]:
        """All ranges that were told."""
        return [TaskProgress(task, one.spans(), other.spans()) for task, (one, other) in self._known.items()]

    def is_news(self, part: Ranges) -> bool:
        """Whether this part of our own run was not heard before."""
        if len(self._merged) > MAX_MERGED:
            self._merged.clear()
        mark = hash((part.task, part.collected, part.failed))
        is_news = mark not in self._merged
        self._merged.add(mark)
        return is_news
