"""The keys of what is done, told between a distributor and a collector: the distributor's side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.dispatch import TaskState
from zmqpipeline.protocol.keys import KeyBook


class ToldKeys:
    """What a collector tells of the keys that are done goes to the ledgers of these tasks; a new one is told theirs."""

    def __init__(self, tasks: Mapping[str, TaskState]) -> None:
        """Nothing was told yet."""
        self._tasks = tasks
        self._run = ""
        """The run whose keys a collector has told."""

    def learn(self, body: m.Keys) -> None:
        """A part of them came."""
        self.expect(body.run)
        if body.run and body.task in self._tasks:
            self._tasks[body.task].ledger.keys.learn(body)

    def expect(self, run: str) -> None:
        """What was told of another run is forgotten."""
        if run != self._run:
            self._run = run
            for task in self._tasks.values():
                task.ledger.keys = KeyBook()

    def lacks(self, holding: m.Holding) -> bool:
        """Whether keys that it counts were lost on the way; then it is asked again."""
        self.expect(holding.run)
        return any(self._tasks[one.task].ledger.keys.lacks(one) for one in holding.progress if one.task in self._tasks)

    def messages(self, run: str) -> Iterator[m.Keys]:
        """All that a collector which holds no run must be told of this one."""
        for name, task in self._tasks.items():
            yield from task.ledger.keys.messages(run, name)
