"""The workers of a distributor or broker: who is here, what they report and hand back, and who is lost.

It knows the workers (`WorkerState`) and the items (`Ledger`) of each task, and speaks to workers alone; phases,
dependencies and the collector are the machine's (`protocol.distributor`), which opens and closes it.
Which worker gets which item is decided in `protocol.delivery.hand_out`; what is taken back, in `recalls` beside it.
"""

from __future__ import annotations

from zmqpipeline.errors import Retry
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import RangeSet
from zmqpipeline.protocol.delivery.recalls import Recalls
from zmqpipeline.protocol.delivery.suspects import LastWord
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.delivery.throttle import Throttle
from zmqpipeline.protocol.delivery.workers import MAX_NAME_LENGTH, WorkerState
from zmqpipeline.protocol.error_info import RETRY
from zmqpipeline.protocol.machine import soonest
from zmqpipeline.protocol.peers import Link, Verdict

MAX_SHOWN = 100
"""So many of the tasks are named to a worker that asked for none of them."""


class Dispatcher(Recalls):
    """See the module. `stage` is the machine's word: before (no run yet), open, closed, or farewell.

    `tell_given_up` is called with the items that a worker's failure or loss has used up, and that worker's name.
    """

    def begin(self, run: str, metadata: bytes) -> None:
        """The run begins: every worker that is here learns of it."""
        self.run = self.feeding.run = run
        self.metadata, self.stage = metadata, "open"
        for member in self.members.values():
            self._to(member, m.Welcome(run, metadata))

    def say_farewell(self, ended: m.RunEnded) -> None:
        """The run is over: every worker is told to end, and so is whoever reports later."""
        self.stage, self._farewell = "farewell", ended
        for member in self.members.values():
            self._to(member, ended)

    def next_time(self) -> float | None:
        """When `by_the_clock` has something to do."""
        others = (self._obituaries.next_time(), self.starts.next_time(self.now))
        rates = (task.throttle.next_time() for task in self._throttled if task.throttle is not None)
        paces = (task.ledger.pace.wake_at for task in self._throttled if task.ledger.pace is not None)
        return soonest((self.release_at, *others, *self._recalls.values(), *self._levels.values(), *rates, *paces))

    def by_the_clock(self, now: float) -> None:
        """Do what is due."""
        if self.release_at is not None and now >= self.release_at:
            self.release_all()
        if self._recalls:
            for name in [name for name, due in self._recalls.items() if now >= due]:
                self._look_for_stuck(self.tasks.get(name), name)
        if self._levels:
            for name in [name for name, due in self._levels.items() if now >= due]:
                self._level(self.tasks.get(name), name)
        for task in self._throttled:
            if task.throttle is not None and task.throttle.wake(now):
                self.feed(task)
            pace = task.ledger.pace
            if pace is not None and pace.wake_at is not None and now >= pace.wake_at:
                pace.rests_until = None if pace.rests_until is None or now >= pace.rests_until else pace.rests_until
                self.feed(task)
        self.out += self._obituaries.overdue(now)
        self.out += self.starts.sums(now)

    def pause(self, task: TaskState, seconds: float) -> None:
        """Hand out nothing of this task for so long."""
        if task.throttle is None:
            task.throttle = Throttle(None, None)
            self._throttled.append(task)
        self.has_paused = task.throttle.pause(self.now + seconds) or self.has_paused

    def pauses(self) -> list[m.TaskPause]:
        """The tasks that pause, and for how much longer."""
        left = [(one, 0.0 if one.throttle is None else one.throttle.pauses_for(self.now)) for one in self._throttled]
        return [m.TaskPause(task.spec.task_type, seconds) for task, seconds in left if seconds > 0]

    def check(self) -> None:
        """The ledgers hold, the workers of each task are counted right, and none of them is forgotten.

        And no task has begun before what it depends on was over.
        """
        for task in self.tasks.values():
            task.ledger.check()
            if task.state not in ("waiting", "aborted"):
                late = [name for name in self.feeding.all_before(task.spec.depends_on) if not self.tasks[name].is_over]
                assert not late, f"{task.spec.task_type} began before {late}"
        served = dict.fromkeys(self.tasks, 0)
        for member in self.members.values():
            served[member.task] += 1
        for name, task in self.tasks.items():
            members = self.members_of(task)
            task.roster.check(members, loads=task.has_source)
            assert served[name] == task.workers, "the workers are miscounted"
            if self.stage == "open" and task.has_source and task.state != "waiting":
                self._check_credit(task, members)
        to_tell = {one.who for one in self.members.values() if one.releases}
        assert to_tell <= self._to_release.keys(), "somebody may drop something and is not told"
        assert not to_tell or self.release_at is not None, "nobody is told what may be dropped"

    def _check_credit(self, task: TaskState, members: list[WorkerState]) -> None:
        """Who has an idle thread has credit, or gets it with an ACK of what it holds."""
        roster, ledger = task.roster, task.ledger
        for one in members:
            assert not one.is_idle() or one.who in roster.with_credit or one.who in roster.full, (
                "an idle worker is forgotten"
            )
            assert one.who not in roster.full or one.stuck or ledger.leases(one.who), "a worker is full of nothing"

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
                self._items_returned(self.tasks[task], member, spans)
            case m.Goodbye() as goodbye if member is not None:
                self._goodbye(member, goodbye)

    def _items_returned(self, task: TaskState, member: WorkerState, spans: m.Spans) -> None:
        held = task.ledger.held_of(member.who, spans)
        task.ledger.hand_back(member.who, held)
        member.gave_back(len(held))
        task.roster.has_load(member)
        if not task.roster.holds_less(member.who) and task.has_source and member.is_idle():
            # it had said what it wants while it still held these
            task.roster.has_credit(member.who)
        self.feed(task)

    # workers -----------------------------------------------------------------------------------------------------

    def _join(self, report: m.WorkerReport, who: bytes, peer: e.Peer, link: Link) -> WorkerState | None:
        task = self.tasks.get(report.task)
        if task is None:
            known = ", ".join(repr(name[:MAX_NAME_LENGTH]) for name in list(self.tasks)[:MAX_SHOWN])
            name = report.task[:MAX_NAME_LENGTH]
            reason = f"This distributor has no task {name!r}. Its tasks: {known}. Check the worker's task type."
            self._do(c.Send(peer, link.wrap(m.Refused(reason))))
            return None
        if task.has_source and report.idempotent is not None:
            reason = (
                f"This is a distributor; a worker of service {report.task!r} belongs to a broker. Check its endpoint."
            )
            self._do(c.Send(peer, link.wrap(m.Refused(reason))))
            return None
        member = self.members[who] = WorkerState(who, report.task, link, peer)
        task.workers += 1
        task.unserved_at = None
        self._divide()
        return member

    def _report(self, report: m.WorkerReport, member: WorkerState | None, link: Link) -> None:
        if member is None or member.task != report.task:
            return
        member.reported(report, link.confirmed)
        if report.running is not None:
            member.runs(report.running, self.now)
            if report.run == self.run:
                self.tasks[member.task].times.told(member.who, report.times)
        task = self.tasks[member.task]
        if report.held is None:
            self._has_done_something(task, member)
        task.roster.has_load(member)
        if not member.load():
            task.ledger.has_executed_all(member.who)
        if self.stage == "farewell":
            self._to(member, self._farewell)
            return
        running = self.run
        if report.run != running:
            # it gets items again when it says that it has heard of this one
            member.welcomed = False
            task.roster.lost_credit(member.who)
            self._to(member, m.Welcome(running, self.metadata))
            return
        member.welcomed = bool(running)
        if not running:
            self._to(member, m.Welcome("", b""))
        elif report.held is not None:
            member.may_drop(task.ledger.reconcile(member.who, RangeSet(report.held), link.confirmed))
            self._release(member)
        self._feed_member(task, member)

    def _items_failed(self, member: WorkerState, failures: list[m.FailedItem], now: float) -> None:
        task = self.tasks[member.task]
        ledger = task.ledger
        self._has_done_something(task, member)
        member.has_ended([end for item in failures for end in (item.number, item.number + 1)])
        given_up = []
        for item in failures:
            jitter = 0.75 + 0.5 * self._rng.random()
            had = ledger.is_with(member.who, item.number)
            failed = ledger.failed_at(member.who, item, now, jitter, member.link.confirmed)
            if failed is not None:
                given_up.append(failed)
            if not ledger.is_with(member.who, item.number):
                # what it says again is no news
                if had and item.trouble.error == RETRY:
                    self._ask_again(task, item)
                member.may_drop((item.number, item.number + 1))
        self._tell_given_up(given_up, member.name)
        task.roster.holds_less(member.who)
        self._release(member)
        self.feed(task)

    def _ask_again(self, task: TaskState, item: m.FailedItem) -> None:
        """A function wants its item again; if it says so, the task pauses as long."""
        after, pauses = Retry.read(item.trouble.message)
        if pauses and item.stage == "worker":
            self.pause(task, after)

    def _goodbye(self, member: WorkerState, goodbye: m.Goodbye) -> None:
        back, lost = self._remove(member, crashed=False)
        if goodbye.run == self.run:
            self.tasks[member.task].times.left(member.who, goodbye.times)
        about: dict[str, str | int] = {"task": member.task, "worker": member.name}
        if goodbye.trouble is not None:
            items = f"its {back} item(s) go to others{lost}"
            self._do(self.starts.failed(self.tasks[member.task], member.name, goodbye.trouble, items, self.now))
        elif back or lost:
            text = f"Worker {member.name} of {member.task!r} left; its {back} item(s) go to others{lost}."
            self._do(c.Log(20, text, about))

    def peer_lost(self, peer: e.Peer) -> None:
        """A connection broke: if it was that of a worker, its items go to others."""
        who = self._links.lost(peer)
        member = self.members.get(who) if who is not None else None
        if member is None:
            return
        back, lost = self._remove(member, crashed=True)
        line = (
            f"Worker {_escaped(member.name)} was lost ({{how}}); its {back} item(s) of {_escaped(repr(member.task))} "
            f"go to other workers{_escaped(lost)}. A late result still counts."
        )
        # a process of another host may have the same number
        pid = member.pid if member.host == self._supervised else 0
        self.out += self._obituaries.lost(pid, line, self.now, task=member.task, worker=member.name)

    def worker_died(self, pid: int, how: str) -> None:
        """Whoever started this worker says how it ended."""
        self.out += self._obituaries.died(pid, how)

    def lost_workers(self, now: float) -> tuple[list[m.LostWorker], int]:
        """The workers that were lost last, and how many were in all."""
        return self._obituaries.last(now), self._obituaries.count

    def has_room(self, who: bytes) -> None:
        """A worker of a service has answered: it may be given more at the end of the turn."""
        member = self.members.get(who)
        if member is not None:
            task = self.tasks[member.task]
            self._has_done_something(task, member)
            self._feed_member(task, member)

    def _remove(self, member: WorkerState, *, crashed: bool) -> tuple[int, str]:
        """Take a worker off the roster; how many of its items go to others, and words for those that are given up."""
        task = self.tasks[member.task]
        del self.members[member.who]
        task.roster.left(member.who)
        task.workers -= 1
        self._divide()
        # of a request nobody knows: what a broker has answered is no lease any more
        word = member.last_word() if task.has_source else LastWord()
        if not crashed and not task.has_source:
            # What our last messages brought was not there any more when it left. All else it may have done, and could
            # not tell: a request that must not be executed twice is lost with its worker, however that one ended.
            task.ledger.hand_back(member.who, task.ledger.held_by(member.who, after=member.link.confirmed))
            crashed = task.spec.crash_limit == 1
        back, given_up = task.ledger.lost(member.who, crashed=crashed, word=word)
        self._tell_given_up(given_up, member.name)
        self.feed(task)
        return back, f", {len(given_up)} are given up" if given_up else ""


def _escaped(text: str) -> str:
    """Text of users and workers, for a line that is a format."""
    return text.replace("{", "{{").replace("}", "}}")
