"""Taking back: what waits behind a long item goes to a worker that is idle, and what is last is shared.

The law:

* When a worker is idle, nothing waits, and another one has done nothing for 50 ms with items behind what it runs, these
  are recalled; it gets no others to wait behind it until it has done something. Of one that goes on, what it has beyond
  its window is recalled: its items have become longer since it was given them.
* When the source has no more and nothing waits, workers that are idle, or will be soon (`LEVEL_AHEAD`), get half of
  what others have more (`LEVEL_SECONDS`), by what each item took of late. These are asked for it before the former are
  idle, since they look for messages once a quantum (`runtime.threads.shares`). Without that, a worker was idle for 60
  to 90 ms at the end of each task whose items are short, beside one that had work for longer than that. Whoever is
  asked gets none of it back before it has done something, and is not asked again at once (`LEVEL_AGAIN`); a worker
  that should be done by now is in a long item, and gets nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.hand_out import LEVEL_LOOK, RECALL_SECONDS, HandOut
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.delivery.workers import WorkerState

LEVEL_AHEAD = 0.2
"""A worker that has less work than this (seconds) will be idle soon: in two quanta."""

LEVEL_SECONDS = 0.02
"""Workers whose work differs by less than this (seconds) are level."""

LEVEL_AGAIN = 0.02
"""Seconds before the same worker is asked for more of what it has."""

MAX_LEVEL_LOOK = 60.0
"""The most seconds between two looks while everybody has work for longer than `LEVEL_AHEAD`."""

LEVEL_WORKERS = 100
"""So many workers of each kind are looked at, at the most."""

_ALL = 1 << 30


class Recalls(HandOut):
    """See the module."""

    def _look_for_stuck(self, task: TaskState | None, name: str) -> None:
        """While a thread of another worker is idle, recall what sits behind a long item, or is more than is wanted."""
        del self._recalls[name]
        if task is None or self.stage != "open" or task.ledger.waiting or not self._has_idle(task):
            return
        for member in self._with_some_behind(task):
            if member.recalled or member.draining:
                continue
            if self.now - member.active_at < RECALL_SECONDS:
                # and so are all further ones
                self._recalls[name] = self.now + RECALL_SECONDS
                break
            self._recall(member, self._load(task, member) - member.slots)
            member.stuck = True
        for member in self._with_too_many(task):
            if not member.recalled and not member.draining:
                self._recall(member, self._load(task, member) - max(member.window, member.slots))

    def _level(self, task: TaskState | None, name: str) -> None:
        """There is no more than what workers have: those that have much hand some of it back for those with little."""
        del self._levels[name]
        if task is None or self.stage != "open" or task.ledger.waiting or task.ledger.has_suspects or task.throttle:
            return
        many = [self.members[who] for who in islice(task.roster.behind, LEVEL_WORKERS)]
        able = [one for one in many if one.service_time and not (one.recalled or one.draining or one.stuck)]
        able = [one for one in able if self.now - one.levelled_at >= LEVEL_AGAIN]
        some = islice(self._in_turn(task), LEVEL_WORKERS)
        lefts = sorted(self._left(one) for one in some if not one.draining and not one.stuck and self._is_on_time(one))
        if not able or not lefts:
            return
        if lefts[0] >= LEVEL_AHEAD:
            # nobody says so when that is over
            self._levels[name] = self.now + min(max(LEVEL_LOOK, lefts[0] - LEVEL_AHEAD), MAX_LEVEL_LOOK)
        short = [left for left in lefts if left < LEVEL_AHEAD]
        for left, member in zip(short, sorted(able, key=self._left, reverse=True), strict=False):
            more = self._left(member) - left
            if more < LEVEL_SECONDS:
                break
            count = int(min(more / 2 / member.service_time * member.slots, member.load() - member.slots))
            if count > 0:
                self._recall(member, count)
                member.levelled_at, member.stuck = self.now, True

    def _is_on_time(self, member: WorkerState) -> bool:
        """Whether it is idle, or may go on as it did: one that ran out of work would have said so."""
        return member.load() < member.slots or self._work(member) + RECALL_SECONDS > self._silent(member)

    def _left(self, member: WorkerState) -> float:
        """For how many seconds this worker has work, about, if it has gone on since it was heard of."""
        return max(0.0, self._work(member) - self._silent(member))

    def _work(self, member: WorkerState) -> float:
        """How many seconds of work it had when it was heard of."""
        return member.load() * member.service_time / member.slots

    def _silent(self, member: WorkerState) -> float:
        """For how many seconds it was not heard to have done something, since it was given the last items."""
        return self.now - max(member.active_at, member.given_at)

    def _has_idle(self, task: TaskState) -> bool:
        """Whether a thread of a worker with credit is."""
        roster = task.roster
        if task.has_source:
            few, many = sorted((roster.idle, roster.with_credit), key=len)
            return any(who in many for who in few)
        return any(self._load(task, one) < one.slots for one in map(self.members.__getitem__, roster.with_credit))

    def _with_some_behind(self, task: TaskState) -> Iterable[WorkerState]:
        """Those with more items than threads, from who did something the longest ago on."""
        if task.has_source:
            return map(self.members.__getitem__, task.roster.behind)
        behind = (one for one in self.members_of(task) if self._load(task, one) > one.slots)
        return sorted(behind, key=lambda one: one.active_at)

    def _with_too_many(self, task: TaskState) -> Iterable[WorkerState]:
        """Those with more than they want, and than they have threads."""
        if task.has_source:
            return map(self.members.__getitem__, task.roster.beyond)
        return [one for one in self.members_of(task) if self._load(task, one) > max(one.window, one.slots)]

    def recall_all(self) -> None:
        """Every worker hands back what it has not started: nothing more is to be done."""
        for member in self.members.values():
            if self.tasks[member.task].ledger.leases(member.who):
                self._recall(member, _ALL)

    def _recall(self, member: WorkerState, most: int) -> None:
        self._to(member, m.Recall(self.run, member.task, most))
        member.recalled = member.link.sent
