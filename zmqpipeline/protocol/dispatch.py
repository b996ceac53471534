"""Handing out: which worker gets which item, within its credit. The distributor machine's better half.

It knows the workers (`Member`) and the items (`Ledger`) of each task, and speaks to workers alone; phases, dependencies
and the collector are the machine's (`protocol.distributor`), which opens and closes it.

The law:

* A worker is **hungry** while its last report, less what was sent since, leaves room.
* The hungry get what waits (suspects and returned items first); only when nothing waits is the source asked, for one
  hungry worker at a time and for no more than its room. So nothing is produced ahead of demand.
* When the source is exhausted, what still waits is spread evenly over the hungry.
* Releases travel with the next work; alone after 20 ms, or when many, or when a worker drains.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from zmqpipeline.options import Options
from zmqpipeline.protocol import batching
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.graph import TaskSpec
from zmqpipeline.protocol.ledger import Ledger
from zmqpipeline.protocol.link import Link, Verdict
from zmqpipeline.protocol.roster import Links, Member
from zmqpipeline.protocol.seqset import SeqSet, numbers_of, spans_of

RELEASE_SECONDS = 0.02
"""How long releases wait for a message that they can travel with."""

RELEASE_ITEMS = 512
"""How many releases are sent at once even so."""


@dataclass
class TaskState:
    """One task as the distributor sees it; `state` is one of graph.STATES."""

    spec: TaskSpec
    ledger: Ledger
    state: str = "waiting"
    producing: bytes | None = None
    asked_ack: int = -1
    gated: bool = False
    hungry: dict[bytes, None] = field(default_factory=dict)
    workers: int = 0
    unserved_at: float | None = None
    has_source: bool = True
    """False for a service, whose items come from clients."""

    @property
    def is_over(self) -> bool:
        """Whether nothing of this task will happen any more."""
        return self.state in ("complete", "aborted") or (self.state == "failed" and not self.ledger.unfinished)

    @property
    def is_good(self) -> bool:
        """Whether every item was collected."""
        return self.state == "complete" and not self.ledger.failed

    @property
    def may_produce(self) -> bool:
        """Whether its source can be asked for more."""
        return self.has_source and self.state == "open" and self.producing is None and not self.gated


class Dispatcher:
    """See the module. `stage` is the machine's word: before (no run yet), open, closed, or farewell.

    `tell_given_up` is called with the items that a worker's failure or loss has used up.
    """

    def __init__(
        self,
        tasks: dict[str, TaskState],
        links: Links,
        *,
        options: Options,
        rng: random.Random,
        tell_given_up: Callable[[list[m.FailedItem]], None],
    ) -> None:
        self.tasks = tasks
        self.members: dict[bytes, Member] = {}
        self.stage = "before"
        self.run = ""
        self.metadata = b""
        self.last_ack: tuple[str, int, bytes] = ("", 0, b"")
        self.release_at: float | None = None
        self.out: list[c.Command] = []
        self._links = links
        self._options = options
        self._rng = rng
        self._tell_given_up = tell_given_up

    def begin(self, run: str, metadata: bytes) -> None:
        """The run begins: every worker that is here learns of it."""
        self.run, self.metadata, self.stage = run, metadata, "open"
        for member in self.members.values():
            self._to(member, m.Welcome(run, metadata))

    def say_farewell(self) -> None:
        """The run is over: every worker is told to end."""
        self.stage = "farewell"
        for member in self.members.values():
            self._to(member, m.RunEnded(self.run))

    def check(self) -> None:
        """Only who is here is hungry, and the workers of each task are counted right."""
        served = dict.fromkeys(self.tasks, 0)
        for member in self.members.values():
            served[member.task] += 1
        for name, task in self.tasks.items():
            assert task.hungry.keys() <= self.members.keys(), "somebody who is gone is hungry"
            assert served[name] == task.workers, "the workers are miscounted"

    # messages of workers ---------------------------------------------------------------------------------------------

    def received(self, envelope: m.Envelope, peer: e.Peer, link: Link, verdict: Verdict, now: float) -> None:
        """A worker says something."""
        member = self.members.get(envelope.sender)
        if member is not None:
            member.peer = peer
            if verdict is Verdict.GAP and self.run:
                self._to(member, m.Settled(self.run, member.task, (), resync=True))
        match envelope.body:
            case m.WorkerReport() as report:
                self._report(report, member or self._join(report, envelope.sender, peer, link), link)
            case m.ItemsFailed(run, failures) if member is not None and run == self.run:
                self._items_failed(member, failures, now)
            case m.ItemsReturned(run, task, spans) if member is not None and run == self.run and task == member.task:
                self.tasks[task].ledger.hand_back(member.who, numbers_of(spans))
                self.feed(self.tasks[task])
            case m.Goodbye() as goodbye if member is not None:
                self._goodbye(member, goodbye)

    # workers -----------------------------------------------------------------------------------------------------

    def _join(self, report: m.WorkerReport, who: bytes, peer: e.Peer, link: Link) -> Member | None:
        task = self.tasks.get(report.task)
        if task is None:
            known = ", ".join(repr(name) for name in self.tasks)
            reason = f"This distributor has no task {report.task!r}. Its tasks: {known}. Check the worker's task type."
            self._do(c.Send(peer, link.wrap(m.Refused(reason))))
            return None
        member = self.members[who] = Member(who, report.task, link, peer)
        task.workers += 1
        task.unserved_at = None
        return member

    def _report(self, report: m.WorkerReport, member: Member | None, link: Link) -> None:
        if member is None or member.task != report.task:
            return
        member.reported(report, link.confirmed)
        if self.stage == "farewell":
            self._to(member, m.RunEnded(self.run))
            return
        running = self.run
        if report.run != running:
            self._to(member, m.Welcome(running, self.metadata))
            return
        task = self.tasks[member.task]
        member.welcomed = bool(running)
        if not running:
            self._to(member, m.Welcome("", b""))
        elif report.held is not None:
            member.releases += task.ledger.reconcile(member.who, SeqSet(report.held), link.confirmed)
            self._release(member)
        self._feed_member(task, member)

    def _feed_member(self, task: TaskState, member: Member) -> None:
        if member.window > 0 and member.welcomed:
            task.hungry[member.who] = None
        self.feed(task)

    def _items_failed(self, member: Member, failures: list[m.FailedItem], now: float) -> None:
        ledger = self.tasks[member.task].ledger
        given_up = []
        for item in failures:
            jitter = 0.75 + 0.5 * self._rng.random()
            failed = ledger.failed_at(member.who, item, now, jitter, member.link.confirmed)
            if failed is not None:
                given_up.append(failed)
            if not ledger.is_with(member.who, item.number):
                member.releases.append(item.number)
        self._tell_given_up(given_up)
        self._release(member)
        self.feed(self.tasks[member.task])

    def _goodbye(self, member: Member, goodbye: m.Goodbye) -> None:
        why = f"{goodbye.trouble.error}: {goodbye.trouble.message}" if goodbye.trouble else ""
        back = self._remove(member, crashed=False)
        if why:
            self._log(40, f"Worker {member.name} of {member.task!r} gives up, {back} item(s) go to others: {why}")
        elif back:
            self._log(20, f"Worker {member.name} of {member.task!r} left; its {back} item(s) go to others.")

    def peer_lost(self, peer: e.Peer) -> None:
        who = self._links.lost(peer)
        member = self.members.get(who) if who is not None else None
        if member is None:
            return
        back = self._remove(member, crashed=True)
        self._log(
            30,
            f"Worker {member.name} was lost (its connection broke); its {back} item(s) of {member.task!r} go to other "
            f"workers. A late result still counts.",
        )

    def _remove(self, member: Member, *, crashed: bool) -> int:
        """Take a worker off the roster; how many of its items go to others."""
        task = self.tasks[member.task]
        del self.members[member.who]
        task.hungry.pop(member.who, None)
        task.workers -= 1
        back, given_up = task.ledger.lost(member.who, crashed=crashed, done=member.done)
        self._tell_given_up(given_up)
        self.feed(task)
        return back

    # handing out -------------------------------------------------------------------------------------------------

    def feed(self, task: TaskState) -> None:
        """Give the hungry what there is; ask the source for the first that is still hungry then."""
        if self.stage != "open" or task.state == "waiting":
            return
        asker = task.producing
        if asker is not None and asker in task.hungry:
            # What was produced for a worker (handle knows its address) goes to that worker first.
            self._give(task, self.members[asker], share=None)
        hungry = self._in_turn(task)
        spread = not task.has_source or task.state != "open"
        for served, who in enumerate(hungry):
            member = self.members[who]
            share = max(1, -(-task.ledger.waiting // (len(hungry) - served))) if spread else None
            self._give(task, member, share=share)
            if self._room(task, member) <= 0:
                # Who is only kept from more by what it holds is hungry again as soon as an ACK lets go of it.
                if self._wants(task, member) <= 0:
                    del task.hungry[who]
            elif task.may_produce and not task.ledger.waiting and self._may_run_ahead(task):
                self._produce(task, member)
                return
            elif not task.ledger.waiting:
                return

    def _may_run_ahead(self, task: TaskState) -> bool:
        """Whether few enough items wait for a retry: a source whose items all fail must not be emptied into them."""
        return task.ledger.retrying < self._options.max_held_items

    def _in_turn(self, task: TaskState) -> list[bytes]:
        """The hungry: those of a service from the least loaded on, since its items come one by one."""
        if task.has_source or len(task.hungry) < 2:
            return list(task.hungry)
        return sorted(task.hungry, key=lambda who: self.members[who].load())

    def _room(self, task: TaskState, member: Member) -> int:
        ledger = task.ledger
        leases = ledger.leases(member.who)
        if leases and ledger.lease_bytes(member.who) >= self._options.max_held_bytes:
            return 0
        return min(self._wants(task, member), self._options.max_held_items - leases)

    def _wants(self, task: TaskState, member: Member) -> int:
        return member.room(only_free_slots=task.ledger.has_suspects)

    def _give(self, task: TaskState, member: Member, share: int | None) -> None:
        """Send this worker what it has room for, at most its share."""
        room = self._room(task, member)
        room = room if share is None else min(room, share)
        while room > 0:
            batch = task.ledger.take(member.who, room, member.free_slots(), batching.MAX_BATCH_BYTES)
            if batch is None:
                return
            self._send_work(task, member, batch.attempt, batch.numbers, batch.payloads)
            room = min(room - len(batch.numbers), self._room(task, member))

    def _send_work(self, task: TaskState, member: Member, attempt: int, numbers: list[int], payloads: m.Blobs) -> None:
        if numbers != sorted(numbers):
            both = sorted(zip(numbers, payloads, strict=True))
            numbers, payloads = [number for number, _ in both], [payload for _, payload in both]
        released, member.releases = spans_of(member.releases), []
        timeout = task.spec.timeout or 0.0
        body = m.Work(self.run, task.spec.task_type, attempt, timeout, spans_of(numbers), released, payloads)
        self._to(member, body)
        task.ledger.sent(member.who, numbers, member.link.sent)
        member.gave(len(numbers))

    def _produce(self, task: TaskState, member: Member) -> None:
        task.producing = member.who
        task.asked_ack = self.last_ack[1]
        count = min(self._room(task, member), batching.MAX_BATCH)
        ack_task, ack_id, ack_data = self.last_ack
        self._do(c.Produce(task.spec.task_type, count, member.name, ack_task, ack_id, ack_data))

    def produced(self, event: e.Produced) -> None:
        """The source's answer, or a part of it; a failure of it is the machine's business."""
        task = self.tasks[event.task]
        too_large = task.ledger.add(event.payloads, event.keys, max_bytes=self._options.max_message_bytes)
        if too_large:
            self._tell_given_up(too_large)
        self.feed(task)
        if event.state == "more":
            return
        task.producing = None
        task.gated = event.state == "gated" and task.asked_ack == self.last_ack[1]
        if event.state in ("exhausted", "failed"):
            task.state = event.state
            task.ledger.drop_claims()
        self.feed(task)

    def acknowledged(self, task: str, count: int, data: bytes, *, news: bool) -> None:
        """The newest ACK so far, which may open gates.

        A collector that was started anew may count less than its forerunner, whose last ACKs were lost: if the ACK
        brings `news` all the same, the count goes on from ours, so that none comes twice.
        """
        if count <= self.last_ack[1]:
            if not news:
                return
            count = self.last_ack[1] + 1
        self.last_ack = (task, count, data)
        for one in self.tasks.values():
            if one.gated:
                one.gated = False
                self.feed(one)

    def welcome_hungry(self, task: TaskState) -> None:
        """The task opens: its workers that are here want items."""
        for member in self.members.values():
            if member.task == task.spec.task_type and member.welcomed and member.window > 0:
                task.hungry[member.who] = None
        self.feed(task)

    # releases ----------------------------------------------------------------------------------------------------

    def _release(self, member: Member) -> None:
        """Tell a worker now what it may drop; an empty word is an answer, too."""
        released, member.releases = spans_of(member.releases), []
        self._to(member, m.Settled(self.run, member.task, released))

    def release_all(self) -> None:
        """Send every release that waits."""
        self.release_at = None
        for member in self.members.values():
            if member.releases:
                self._release(member)

    def note_released(self, released: dict[bytes, list[int]], now: float) -> None:
        """These are done: their workers may drop what they keep of them, some time soon."""
        for who, numbers in released.items():
            member = self.members.get(who)
            if member is None:
                continue
            member.releases += numbers
            if member.draining or len(member.releases) >= RELEASE_ITEMS:
                self._release(member)
            elif self.release_at is None:
                self.release_at = now + RELEASE_SECONDS
            task = self.tasks[member.task]
            if who in task.hungry:
                self.feed(task)

    # out ---------------------------------------------------------------------------------------------------------

    def _to(self, member: Member, body: m.Message) -> None:
        self._do(c.Send(member.peer, member.link.wrap(body)))

    def _do(self, command: c.Command) -> None:
        self.out.append(command)

    def _log(self, level: int, text: str) -> None:
        self._do(c.Log(level, text))
