"""The tasks that results of others feed, as a distributor sees them: what there is for them, and when there is no more.

The law:

* Their items are in the collector's outbox (`Outbox`), written there in the transaction in which the results are
  marked that gave them. The distributor asks for them from its first unsettled number on (`Fetch`), as workers have
  room, and for a task once at a time. Whoever was started again asks again: the numbers are those of the outbox.
* What the outbox holds is told with each ACK. So when all that feeds a task is acknowledged, all its items are known.
* A task is **fed out** when all that feeds it is over and every item of its outbox was handed out. Tasks that feed
  each other in a circle are fed out together: when all of them have handed out every item, all of these are settled,
  and what feeds the circle from outside is over.
* A task is held back while the outbox of one that it feeds has more than `max_waiting_bytes`; but not by one of its
  own circle, nor by one that has not begun, or is over: these would wait for it for ever.

  So nothing is locked up for good. Of the tasks that are open take one that is held back; what holds it back is open,
  and outside of its circle. If that is held back in its turn, go on; with circles counted as one there is no way back.
  So this ends at a task that nothing holds back, whose items are done, so that its outbox shrinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from zmqpipeline.protocol import credit
from zmqpipeline.protocol.data.dedup import split_keys
from zmqpipeline.protocol.data.ranges import pairs
from zmqpipeline.protocol.delivery.stages import all_before, circle_of
from zmqpipeline.protocol.delivery.task_state import FedState, TaskState
from zmqpipeline.protocol.events import Produced
from zmqpipeline.protocol.messages import KEY_BYTES, Fetch, Fetched, Outbox


class Feeding:
    """The fed tasks of one run. `ask` sends a Fetch; `feed` is called for a task that may go on."""

    def __init__(
        self,
        tasks: dict[str, TaskState],
        max_waiting_bytes: int,
        ask: Callable[[Fetch], object],
        feed: Callable[[TaskState], object],
    ) -> None:
        """Nothing is known of any outbox."""
        self.run = ""
        self._tasks = {name: task for name, task in tasks.items() if task.spec.for_each}
        self._ask, self._feed = ask, feed
        self._circles: dict[str, list[TaskState]] = {}
        self._before: dict[str, list[TaskState]] = {}
        """What feeds a task, or its circle, from outside."""
        self._held_back: set[str] = set()
        self._specs = specs = {name: task.spec for name, task in tasks.items()} if self._tasks else {}
        for name, task in self._tasks.items():
            circle = circle_of(name, specs)
            together = sorted(circle) or [name]
            outside = {one for member in together for one in specs[member].for_each}.difference(together)
            self._circles[name] = [tasks[one] for one in sorted(circle)]
            self._before[name] = [tasks[one] for one in sorted(outside)]
            task.fed = FedState(max_waiting_bytes)
            for feeder in specs[name].for_each:
                if feeder not in circle:
                    tasks[feeder].feeds.append(task)

    def __bool__(self) -> bool:
        """Whether there are such tasks."""
        return bool(self._tasks)

    def all_before(self, names: Sequence[str]) -> Sequence[str]:
        """These tasks, and all that feed them."""
        return all_before(names, self._specs) if self._specs else names

    @property
    def lacks_words(self) -> bool:
        """Whether more is to be heard of a task's own first items, or a question is not answered."""
        fed = [task.fed for task in self._tasks.values() if task.fed is not None and not task.is_over]
        return any(not one.closed or one.asked for one in fed)

    # what there is ---------------------------------------------------------------------------------------------------

    def learn(self, outboxes: Sequence[Outbox]) -> str:
        """The collector says what it has. Its name, if it has less of a task than before: that is lost."""
        news = []
        for told in outboxes:
            task = self._tasks.get(told.task)
            if task is None or task.fed is None:
                continue
            fed = task.fed
            if told.count < fed.count:
                return told.task
            if told.count > fed.count and task.ledger.pace is not None:
                # one of these may be of a value that need not wait
                task.ledger.pace.rests_until = None
            if told.count > fed.count or told.closed > fed.closed or told.waiting != fed.waiting:
                news.append(task)
            fed.count, fed.waiting = told.count, told.waiting
            fed.closed, fed.trouble = told.closed or fed.closed, told.trouble or fed.trouble
        for task in news:
            self._feed(task)
        self.look()
        return ""

    def look(self) -> None:
        """Let go on who is held back no more."""
        for task in {one.spec.task_type: one for fed in self._tasks.values() for one in self._before_of(fed)}.values():
            name = task.spec.task_type
            if task.is_held_back:
                self._held_back.add(name)
            elif name in self._held_back:
                self._held_back.discard(name)
                self._feed(task)

    def _before_of(self, task: TaskState) -> list[TaskState]:
        return self._before[task.spec.task_type]

    # asking ----------------------------------------------------------------------------------------------------------

    def fetch(self, task: TaskState, count: int) -> None:
        """Ask for so many items."""
        assert task.fed is not None
        task.fed.asked = count
        self._say(task, task.fed)

    def again(self) -> None:
        """Ask again what was not answered: it may be lost, or the collector that was asked."""
        for task in self._tasks.values():
            if task.fed is not None and task.fed.asked:
                self._say(task, task.fed)

    def _say(self, task: TaskState, fed: FedState) -> None:
        ledger = task.ledger
        ledger.pass_over(min(ledger.done_ahead(), fed.count - ledger.next_number))
        if ledger.next_number < fed.count:
            body = Fetch(self.run, task.spec.task_type, ledger.next_number, fed.asked, credit.MAX_BATCH_BYTES)
            if (pace := ledger.pace) is not None:
                body = replace(body, now=pace.now, apart=pace.apart, burst=pace.burst)
            self._ask(body)
        else:
            fed.asked, task.producing = 0, None

    def fetched(self, answer: Fetched) -> list[Produced] | None:
        """The items that came, as what a source gives; None if some before them are neither at hand nor done.

        Then an ACK was lost, and the question stays: it is asked again as soon as the collector has said what it holds.
        """
        task = self._tasks.get(answer.task)
        if task is None or task.fed is None or not task.fed.asked:
            return []
        if answer.spans and answer.spans[0] < task.ledger.next_number:
            # the answer to a question that was answered before
            return []
        if answer.until and not answer.spans and (pace := task.ledger.pace) is not None:
            task.fed.asked, task.producing, pace.rests_until = 0, None, answer.until
            self._feed(task)
            return []
        values = split_keys(answer.values)
        if task.ledger.pace is not None and len(answer.values) != KEY_BYTES * len(answer.payloads):
            return None
        parts: list[Produced] = []
        ledger, at, expected = task.ledger, 0, task.ledger.next_number
        for start, stop in pairs(answer.spans):
            if stop > task.fed.count or not ledger.are_done(expected, start):
                break
            payloads = answer.payloads[at : at + stop - start]
            some = values[at : at + stop - start] or None
            parts.append(Produced(answer.task, "more", payloads, over=start - expected, values=some))
            at, expected = at + stop - start, stop
        if not parts:
            return None
        task.fed.asked = 0
        parts[-1] = replace(parts[-1], state="ready")
        return parts

    # the end ---------------------------------------------------------------------------------------------------------

    def is_fed_out(self, task: TaskState) -> bool:
        """Whether it will get no more items than it has handed out."""
        name = task.spec.task_type
        together = self._circles[name] or [task]
        if not all(one.is_over for one in self._before[name]):
            return False
        if not all(one.is_over or one.has_taken_all for one in together):
            return False
        return not self._circles[name] or not any(one.ledger.unfinished for one in together)
