"""What a collector has of each task, and what it is told of a run that it has not begun: keys and ranges, in parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zmqpipeline.protocol.messages import Keys, Ranges, TaskProgress
from zmqpipeline.protocol.progress import Progress


class Gathered(dict[str, Progress]):
    """By the names of the tasks."""

    told_run = ""
    """The run whose parts a distributor has told, if none is held yet."""

    def of(self, name: str) -> Progress:
        """Of this task; nothing of one that is new."""
        progress = self.get(name)
        if progress is None:
            progress = self[name] = Progress()
        return progress

    @property
    def done(self) -> int:
        """How many items are."""
        return sum(one.done for one in self.values())

    @property
    def failed(self) -> int:
        """How many of these failed."""
        return sum(len(one.failed) for one in self.values())

    def told(self) -> list[TaskProgress]:
        """All of it, for a distributor or a journal."""
        return [one.told(name) for name, one in self.items()]

    def keys_done(self) -> tuple[dict[str, set[bytes]], dict[str, dict[int, bytes]]]:
        """The keys by task: those that are collected, and those that failed, by their numbers."""
        done = {name: set(one.keys.done) for name, one in self.items() if one.keys.done}
        return done, {name: dict(one.keys.failed) for name, one in self.items() if one.keys.failed}

    def messages(self, run: str) -> Iterator[Keys]:
        """The keys of all tasks, for a distributor without a run."""
        for name, one in self.items():
            yield from one.keys.messages(run, name)

    def lacks(self, run: str, progress: Iterable[TaskProgress]) -> bool:
        """Whether parts of this run that were told before this have not arrived."""
        self._expect(run)
        return any(self.of(known.task).lacks(known) for known in progress)

    def learn(self, part: Keys | Ranges) -> None:
        """A part was told."""
        self._expect(part.run)
        if isinstance(part, Keys):
            self.of(part.task).keys.learn(part)
        else:
            self.of(part.task).learn(TaskProgress(part.task, part.collected, part.failed))

    def _expect(self, run: str) -> None:
        if run != self.told_run:
            self.told_run = run
            self.clear()
