"""What results give to other tasks, in a simulated collector: by the app's own functions, in its journal's outboxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import spans_of
from zmqpipeline.roles.collecting import Stages
from zmqpipeline.runtime.error_text import trouble_of
from zmqpipeline.runtime.threads.feeding import Feeder, Feeds
from zmqpipeline.runtime.threads.source import Exhausted, Step, Take

if TYPE_CHECKING:
    from zmqpipeline.testing.simulation.roles import AppCollector

PART = 10
"""So many first items are taken at once."""


class StagesNode:
    """That of one collector process."""

    def __init__(self, collector: AppCollector, stages: Stages) -> None:
        """Nothing is asked of the app before the run begins."""
        self._collector, self._stages = collector, stages
        journal = collector.journal
        assert journal is not None
        self._outboxes = journal.outboxes
        self.feeder = Feeder(journal, collector.world.options.max_depth, self._note_error)
        self._troubles: dict[str, m.ErrorInfo] = {}
        self._value_of: Callable[[str, bytes], bytes] = lambda task, payload: b""

    def begin(self) -> None:
        """The run begins, or goes on here."""
        role, world = self._collector.role, self._collector.world
        feeds = self._stages.feeds(dict(role.metadata), world.options.max_message_bytes)
        self.feeder.begin(feeds)
        self._value_of = feeds.value_of
        for name in feeds.roots:
            self._begin_roots(name, feeds)
        self._collector.hold(e.Given([]))

    def _begin_roots(self, name: str, feeds: Feeds) -> None:
        box = self._outboxes.box(name)
        if box.closed:
            return
        over = 0 if feeds.is_keyed(name) else box.roots
        take = feeds.roots[name](over)
        self._later(name, take, over)

    def _later(self, name: str, take: Take, over: int) -> None:
        collector = self._collector
        seconds = collector.world.climate.item_seconds
        collector.world.after(seconds, lambda: collector.carry_out(lambda: self._take(name, take, over)))

    def _take(self, name: str, take: Take, over: int) -> None:
        """Some first items, and the next ones a little later; `over` are passed over before them."""
        taken: list[Step] = []
        command = c.Produce(name, over + PART, "", "", 0, b"")
        is_over = False
        try:
            take(command, over + PART, taken.append)
        except Exhausted as end:
            is_over = True
            taken += [] if end.last is None else [end.last]
        except (Exception, SystemExit) as error:
            self._troubles[name] = trouble_of(error)
        for step in taken[over:]:
            payload, digest = step if isinstance(step, tuple) else (step, b"")
            self._outboxes.give(name, payload, digest, 0, self._value_of(name, payload))
        self._outboxes.accept()
        self._outboxes.note_roots(name, len(taken[over:]), closed=is_over)
        self._collector.hold(e.Given([]))
        if not is_over and name not in self._troubles:
            self._later(name, take, 0)

    def around(
        self, task: str, attempt: int, numbers: list[int], payloads: m.Blobs, call: Callable[..., Any], *, placed: bool
    ) -> tuple[Callable[..., Any], bool]:
        """The call for a result, with what it gives before it."""
        if not self.feeder.feeds(task):
            return call, placed
        command = c.Collect(task, attempt, spans_of(numbers), payloads)
        return self.feeder.around(command, call, placed=placed), False

    def fail(self, failures: list[m.FailedItem]) -> dict[str, m.ErrorInfo]:
        """These have failed for good; by task, what functions that gather raised for it."""
        troubles: dict[str, m.ErrorInfo] = {}
        for (task, number), error in self.feeder.fail(failures).items():
            self._note_error(task, number, error)
            troubles.setdefault(task, trouble_of(error))
        return troubles

    def fetch(self, command: c.Fetch) -> None:
        """Look items up."""
        found = self._outboxes.fetch(command)
        if command.apart:
            # what has got its number by this is on the disk before it is said
            self._collector.hold(found)
        else:
            self._collector.tell(found)

    def with_outboxes(self, event: e.Event) -> e.Event:
        """What is said of results is said with what the outboxes hold."""
        if isinstance(event, (e.Collected, e.FailedCalled, e.Given)):
            return replace(event, outboxes=self.feeder.told(self._troubles))
        return event

    def _note_error(self, task: str, number: int, error: BaseException) -> None:
        self._collector.world.raised[task, number] = error
