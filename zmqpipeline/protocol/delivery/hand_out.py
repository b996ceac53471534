"""Handing out: which worker gets which item, within its credit; what it may drop, and what it shall hand back.

The law:

* A worker **has credit** while its last report, less what was sent since, leaves room.
* Those with credit get what waits (suspects and returned items first); only when nothing waits is the source asked,
  for one worker with credit at a time and for no more than its room. So nothing is produced ahead of demand. What an
  earlier life of the run has done is passed over at once, however much it is: it takes no room.
* What workers hold has `max_held_bytes` as one sum: each has its share of it, and beyond that no more than two items a
  thread. A message is no larger than the share, unless it is a single item.
* An item on its last try (it was lost with workers before), or a group of suspects, goes to a worker that has nothing
  else to do, which gets nothing beside it; if there is none, one is kept from more until it has finished what it holds.
* When the source is exhausted, what still waits goes to those with credit so that each thread has as many, about: to
  those that are idle first.
* The items of a service come from clients: they are handed out at the end of the broker's turn, to the least loaded.
* Full reports, which mend what was lost unseen, are said a thousand times a second by all workers together, about: the
  more there are, the more seldom each says one (`Settled.report_seconds`), but no more seldom than once a minute.
* Releases travel with the next work; alone after 20 ms, or when many, or when a worker drains.
* What workers have and others could begin now is taken back: see `protocol.delivery.recalls`.
* Who is to be looked at is known without a look at all workers: see `protocol.delivery.roster`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import chain

from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import credit
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.delivery.failed_starts import FailedStarts
from zmqpipeline.protocol.delivery.feeding import Feeding
from zmqpipeline.protocol.delivery.gates import Gates
from zmqpipeline.protocol.delivery.leases import Batch
from zmqpipeline.protocol.delivery.lost_workers import LostWorkers
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.delivery.workers import Links, WorkerState, report_seconds

RELEASE_SECONDS = 0.02
"""How long releases wait for a message that they can travel with."""

RELEASE_ITEMS = 2048
"""How many releases are sent at once even so."""

RECALL_SECONDS = 0.05
"""How long a worker is idle beside one that does nothing before items are recalled: what fast workers have, is done.

Longer than the 20 ms after which a busy worker of short items reports.
"""

LEVEL_LOOK = 0.005
"""Seconds between two looks whether workers differ, when there is no more than what they have: see `recalls`."""

ITEMS_A_THREAD = 2
"""So many items a worker may hold for each of its threads, however large they are: one runs, one is at hand."""


class HandOut:
    """The state of a dispatcher, and what it sends to workers; see `protocol.delivery.dispatcher`."""

    def __init__(
        self,
        tasks: dict[str, TaskState],
        links: Links,
        *,
        options: Options,
        rng: random.Random,
        tell_given_up: Callable[[list[m.FailedItem], str], object],
        supervised: str = "",
        fetch: Callable[[m.Fetch], object] = bool,
    ) -> None:
        """`supervised`: the host of which WorkerDied events tell how workers end; `fetch` asks a collector."""
        self.now = 0.0
        """The time of the event that is being handled."""
        self.tasks = tasks
        self.members: dict[bytes, WorkerState] = {}
        self.has_paused = False
        """A task pauses, or for longer than the collector was told."""
        self._throttled = [task for task in tasks.values() if task.throttle is not None]
        self.stage = "before"
        self.run = ""
        self.metadata = b""
        self.gates = Gates(tasks, self.feed)
        self.feeding = Feeding(tasks, options.max_waiting_bytes, fetch, self.feed)
        self._farewell = m.RunEnded("")
        self.release_at: float | None = None
        self._to_release: dict[bytes, None] = {}
        """Who may drop something, and has not been told."""
        self.out: list[c.Command] = []
        self.undispatched: dict[str, TaskState] = {}
        """Services with requests to be handed out at the end of the broker's turn."""
        self._obituaries = LostWorkers(supervised=bool(supervised))
        self._supervised = supervised
        self.starts = FailedStarts(patience=options.exit_when_idle, supervised=bool(supervised))
        self._recalls: dict[str, float] = {}
        """When to look for stuck workers, by task."""
        self._levels: dict[str, float] = {}
        """When to look whether workers differ, by task."""
        self._links = links
        self._options = options
        self._share = options.max_held_bytes
        """What one worker may hold of the bytes that all of them may."""
        self._message = credit.MAX_BATCH_BYTES
        """So many bytes go into one message, unless it is a single item."""
        self._rng = rng
        self._tell_given_up = tell_given_up

    # handing out -------------------------------------------------------------------------------------------------

    def feed(self, task: TaskState) -> None:
        """Hand out now; of a service at the end of the broker's turn."""
        if task.has_source:
            if (pace := task.ledger.pace) is not None:
                pace.now = self.now
            self.hand_out(task)
            task.ledger.look_at_pace()
        elif task.ledger.waiting:
            self.undispatched[task.spec.task_type] = task
        ledger = task.ledger
        if task.workers > 1 and task.roster.with_credit and not ledger.waiting and ledger.leased:
            self._recalls.setdefault(task.spec.task_type, self.now + RECALL_SECONDS)
            if task.has_source and task.state != "open" and task.roster.behind:
                soon, name = self.now + LEVEL_LOOK, task.spec.task_type
                self._levels[name] = min(soon, self._levels.get(name, soon))

    def hand_out(self, task: TaskState) -> None:
        """Give those with credit what there is; ask the source for the first that still has credit then."""
        if self.stage != "open" or task.state == "waiting":
            return
        if task.ledger.has_alone or task.reserved is not None:
            self._give_alone(task)
        # each ACK of a single item, and each answer of a source, comes by here
        if not task.ledger.for_anyone and not task.may_produce:
            return
        asker = task.producing
        if asker is not None and asker in task.roster.with_credit:
            # What was produced for a worker (handle knows its address) goes to that worker first.
            self._give(task, self.members[asker], share=None)
            if not task.ledger.for_anyone:
                return
        if not task.has_source or task.state != "open":
            self._spread(task)
            return
        self._give_in_turn(task)
        if task.may_produce and not task.ledger.for_anyone and _may_run_ahead(task, self._options):
            self._ask_source(task)

    def _give_in_turn(self, task: TaskState) -> None:
        """Give those with credit what there is."""
        ledger, moved = task.ledger, []
        for who in task.roster.with_credit if ledger.for_anyone else ():
            member = self.members[who]
            if self._give(task, member, share=None) <= 0:
                moved.append(member)
                if self._is_held_back(task, member):
                    break
            if not ledger.for_anyone:
                break
        self._have_no_room(task, moved)

    def _spread(self, task: TaskState) -> None:
        """There is no more than what waits: give it to those with credit, so that each thread has as many then."""
        ledger, able, moved = task.ledger, [], []
        waiting = ledger.for_anyone
        # a share for who has no room would wait although others have; more of them than there are items get none
        for member in self._in_turn(task):
            if self._room(task, member) > 0:
                able.append(member)
                if len(able) == waiting:
                    break
            else:
                moved.append(member)
                if self._is_held_back(task, member):
                    break
        # those of a service are in turn by what they have
        has_source = task.has_source
        loads = [(one.load(), max(1, one.slots), one) if has_source else (0, 1, one) for one in able]
        held, threads = sum(load for load, _, _ in loads), sum(slots for _, slots, _ in loads)
        for load, slots, member in sorted(loads, key=lambda one: -one[0] / one[1]):
            # who has more than the others will have gets nothing, and they what there is
            share = max(0, -(-(waiting + held) * slots // threads) - load)
            held, threads = held - load, threads - slots
            if self._give(task, member, share=share) <= 0:
                moved.append(member)
            waiting = ledger.for_anyone
            if not waiting:
                break
        self._have_no_room(task, moved)

    def _ask_source(self, task: TaskState) -> None:
        """Ask the source for the first who is worth it."""
        roster, moved, few = task.roster, [], []
        for who in roster.asking:
            member = self.members[who]
            room = self._room(task, member)
            if room <= 0:
                moved.append(member)
                if self._is_held_back(task, member):
                    break
            elif self._is_worth_asking(task, member, room):
                self._produce(task, member, room)
                break
            else:
                few.append(who)
        for who in few:
            del roster.asking[who]
        self._have_no_room(task, moved)

    def _is_held_back(self, task: TaskState, member: WorkerState) -> bool:
        """Whether this one, who has no room, has none since the rate or limit of the task allows none to anybody."""
        if task.throttle is None or self._is_kept_free(task, member) or self._is_full(task, member):
            return False
        return self._wants(task, member) > 0

    def _have_no_room(self, task: TaskState, members: list[WorkerState]) -> None:
        """These are not looked at again before something happens to them."""
        for member in members:
            if self._wants(task, member) <= 0:
                # a stuck one wants more when what it runs is done, of which an ACK tells
                task.roster.lost_credit(member.who, full=member.stuck)
            elif self._is_full(task, member):
                task.roster.lost_credit(member.who, full=True)

    def _give_alone(self, task: TaskState) -> None:
        """Give each item on its last try, or group, to a worker of its own; reserve one as long as none is free."""
        ledger = task.ledger
        while ledger.has_alone and (member := self._free_one(task)) is not None:
            batch = ledger.take_alone(member.who, member.link.sent + 1)
            if batch is None:
                break
            self._send_work(task, member, batch)
        if not ledger.has_alone:
            task.reserved = None
            return
        reserved = None if task.reserved is None else self.members.get(task.reserved)
        if reserved is None or not self._may_be_alone(task, reserved):
            task.reserved = next((one.who for one in self.members.values() if self._may_be_alone(task, one)), None)

    def _free_one(self, task: TaskState) -> WorkerState | None:
        """A worker with nothing to do, if the rate or limit of the task allows it anything."""
        if task.throttle is not None and task.throttle.left(task.ledger.leased, self.now) < 1:
            return None
        idle = map(self.members.__getitem__, task.roster.idle if task.has_source else self.members)
        return next((one for one in idle if self._may_be_alone(task, one) and self._load(task, one) <= 0), None)

    def _may_be_alone(self, task: TaskState, member: WorkerState) -> bool:
        is_here = member.task == task.spec.task_type and member.welcomed and member.window > 0
        return is_here and not task.ledger.is_alone(member.who)

    def _is_worth_asking(self, task: TaskState, member: WorkerState, room: int) -> bool:
        """Whether a thread is idle, or there is room for a quarter of what it wants ahead; if not, it reports again.

        Else the crumbs that are left beside full messages become messages of their own, whose results come back one by
        one and make room for further crumbs: the silly window syndrome (RFC 813).
        """
        most = min(self._wanted(task, member) - member.slots, self._options.max_held_items, 2 * credit.MAX_BATCH)
        load = self._load(task, member)
        if room >= most // 4 or load < member.slots:
            return True
        return load < ITEMS_A_THREAD * member.slots and task.ledger.lease_bytes(member.who) >= self._share

    def _in_turn(self, task: TaskState) -> Iterable[WorkerState]:
        """Those with credit, idle ones first; of a service from the least loaded on: its items come one by one."""
        roster = task.roster
        if task.has_source:
            idle = (who for who in roster.idle if who in roster.with_credit)
            others = (who for who in roster.with_credit if who not in roster.idle)
            return map(self.members.__getitem__, chain(idle, others))
        members = map(self.members.__getitem__, roster.with_credit)
        return sorted(members, key=lambda one: self._load(task, one) / max(1, one.slots))

    def _may_hold(self, task: TaskState, member: WorkerState) -> int:
        """How many items more this worker may hold, whatever it wants."""
        ledger, who, options = task.ledger, member.who, self._options
        leases = ledger.leases(who)
        most = options.max_held_items
        if leases and (held := ledger.lease_bytes(who)) >= self._share:
            most = min(most, ITEMS_A_THREAD * member.slots if held < options.max_held_bytes else 0)
        return most - leases

    def _is_full(self, task: TaskState, member: WorkerState) -> bool:
        return self._may_hold(task, member) <= 0

    def _is_kept_free(self, task: TaskState, member: WorkerState) -> bool:
        """Whether it gets nothing beside the item, or group, that it is alone with, or shall be."""
        return member.who == task.reserved or task.ledger.is_alone(member.who)

    def _room(self, task: TaskState, member: WorkerState) -> int:
        if self._is_kept_free(task, member):
            return 0
        room = min(self._wants(task, member), self._may_hold(task, member))
        if task.throttle is not None and room > 0:
            room = min(room, task.throttle.left(task.ledger.leased, self.now))
        return room

    def _wanted(self, task: TaskState, member: WorkerState) -> int:
        is_bare = task.ledger.has_suspects or member.stuck or task.throttle is not None
        return min(member.window, member.slots) if is_bare else member.window

    def _wants(self, task: TaskState, member: WorkerState) -> int:
        return self._wanted(task, member) - self._load(task, member)

    def _load(self, task: TaskState, member: WorkerState) -> int:
        """How many items it has: of a service those that it has not answered, since answers come here."""
        return member.load() if task.has_source else task.ledger.leases(member.who)

    def _give(self, task: TaskState, member: WorkerState, share: int | None) -> int:
        """Send this worker what it has room for, at most its share; the room that it has then."""
        room = self._room(task, member)
        left = room if share is None else min(room, share)
        while left > 0:
            free_slots = min(member.window, member.slots) - self._load(task, member) if task.ledger.has_suspects else 0
            batch = task.ledger.take(member.who, left, free_slots, self._message, member.link.sent + 1)
            if batch is None:
                break
            self._send_work(task, member, batch)
            room = self._room(task, member)
            left = min(left - len(batch.payloads), room)
        return room

    def _send_work(self, task: TaskState, member: WorkerState, batch: Batch) -> None:
        body = m.Work(
            self.run,
            task.spec.task_type,
            batch.attempt,
            task.spec.timeout or 0.0,
            batch.spans,
            member.take_releases(),
            batch.payloads,
            task.ledger.keys.joined(batch.spans),
            batch.on_trial and task.has_source,
        )
        self._to(member, body)
        if task.throttle is not None:
            task.throttle.gave(len(batch.payloads))
        member.gave(len(batch.payloads), batch.attempt, self.now)
        task.roster.has_load(member)

    def _fitting(self, task: TaskState, member: WorkerState) -> int:
        """How many items, as large as the last one, have room in this worker's share, or in a message."""
        left = max(self._message, self._share - task.ledger.lease_bytes(member.who))
        return max(ITEMS_A_THREAD * member.slots, left // max(1, task.item_bytes))

    def _produce(self, task: TaskState, member: WorkerState, room: int) -> None:
        task.producing = member.who
        task.asked_ack = self.gates.last_ack
        count = task.ledger.steps_for(min(room, credit.MAX_BATCH, self._fitting(task, member)))
        if task.fed is not None:
            self.feeding.fetch(task, count)
            return
        ack = self.gates.newest_for(task)
        over = task.ledger.done_ahead()
        self._do(c.Produce(task.spec.task_type, count, member.name, *ack, task.unasked.take(), over))

    def produced(self, event: e.Produced) -> None:
        """The source's answer, or a part of it; a failure of it is the machine's business."""
        task = self.tasks[event.task]
        task.ledger.pass_over(event.over)
        if event.payloads:
            task.item_bytes = len(event.payloads[-1])
        most = self._options.max_message_bytes
        too_large = task.ledger.add(event.payloads, event.keys, values=event.values, max_bytes=most)
        if too_large:
            self._tell_given_up(too_large, "")
        if task.is_hopeless:
            # the source was asked before
            task.ledger.abandon()
            return
        self.feed(task)
        if event.state == "more":
            return
        task.producing = None
        task.gated = event.state == "gated" and not self.gates.may_be_asked(task)
        if event.state in ("exhausted", "failed"):
            task.state = event.state
            task.ledger.drop_claims()
        elif task.gated and not task.ledger.waiting:
            return
        self.feed(task)

    # credit -----------------------------------------------------------------------------------------------------------

    def members_of(self, task: TaskState) -> list[WorkerState]:
        """All workers of this task: a look at those of every task, so for what is seldom."""
        return [one for one in self.members.values() if one.task == task.spec.task_type]

    def _has_done_something(self, task: TaskState, member: WorkerState) -> None:
        member.has_done_something(self.now)
        task.roster.did_something(member.who)

    def welcome_with_credit(self, task: TaskState) -> None:
        """The task opens: its workers that are here want items."""
        for member in self.members_of(task):
            if member.welcomed and member.window > 0:
                task.roster.has_credit(member.who)
        self.feed(task)

    def _feed_member(self, task: TaskState, member: WorkerState) -> None:
        if member.window <= 0:
            task.roster.lost_credit(member.who)
        elif member.welcomed:
            task.roster.has_credit(member.who)
        self.feed(task)

    def _divide(self) -> None:
        """There are more workers, or fewer."""
        self._share = max(1, self._options.max_held_bytes // max(1, len(self.members)))
        self._message = min(credit.MAX_BATCH_BYTES, self._share)

    # releases ----------------------------------------------------------------------------------------------------

    def _release(self, member: WorkerState) -> None:
        """Tell a worker now what it may drop; an empty word is an answer, too."""
        seconds = report_seconds(len(self.members))
        self._to(member, m.Settled(self.run, member.task, member.take_releases(), report_seconds=seconds))

    def release_all(self) -> None:
        """Send every release that waits."""
        self.release_at = None
        to_tell, self._to_release = self._to_release, {}
        for member in map(self.members.get, to_tell):
            if member is not None and member.releases:
                self._release(member)

    def note_released(self, released: dict[bytes, list[int]], now: float) -> None:
        """These are done: their workers may drop what they keep of them, some time soon."""
        for who, ranges in released.items():
            member = self.members.get(who)
            if member is None:
                continue
            member.may_drop(ranges)
            member.has_ended(ranges)
            task = self.tasks[member.task]
            self._has_done_something(task, member)
            if member.draining or len(member.releases) >= RELEASE_ITEMS:
                self._release(member)
            else:
                self._to_release[who] = None
                if self.release_at is None:
                    self.release_at = now + RELEASE_SECONDS
            # beside a limit, what one holds no longer may be given to another
            if task.roster.holds_less(who) or task.throttle is not None:
                self.feed(task)

    # out ---------------------------------------------------------------------------------------------------------

    def _to(self, member: WorkerState, body: m.Message) -> None:
        self._do(c.Send(member.peer, member.link.wrap(body)))

    def _do(self, command: c.Command) -> None:
        self.out.append(command)


def _may_run_ahead(task: TaskState, options: Options) -> bool:
    """Whether few enough items wait for a retry, or for the collector to write them down as failed.

    A source whose items all fail must not be emptied into these.
    """
    ledger = task.ledger
    return (
        ledger.retrying + len(ledger.given_up) < options.max_held_items
        and ledger.given_up_bytes < options.max_held_bytes
    )
