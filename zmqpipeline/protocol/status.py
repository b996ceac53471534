"""How a run stands, for whoever asks: built when a question comes, and then only; an item pays nothing for it.

The law:

* An AskStatus is answered by a Status on the connection that it came from. It is no part of any link: it may be lost,
  doubled or forged, and nothing depends on it.
* Questions that come within 0.1 s get the same answer, so that asking often costs little more than asking once.
* Any other message on this hop is counted, told once a peer, and dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from zmqpipeline.options import shown_size
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.delivery.failures import in_a_line
from zmqpipeline.protocol.delivery.stages import all_before
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.delivery.workers import MAX_NAME_LENGTH, WorkerState
from zmqpipeline.protocol.peers import ViolationLog
from zmqpipeline.protocol.status_records import MAX_WORKERS

HOP = "status"
"""The hop that questions come by."""

SAME_SECONDS = 0.1
"""For so long an answer is good."""

_PHASES = {
    "greeting": "asks the collector what it holds",
    "metadata": "waits for the metadata",
    "beginning": "tells the collector of the run, and waits for its answer",
    "finishing": "everything is done; waits for the collector's last word",
    "farewell": "the run is over; the workers are told",
    "draining": "drains: nothing more is handed out, what is with workers is waited for",
}


@dataclass(frozen=True)
class StatusNews:
    """What has gone wrong, as it is told: see `Status`."""

    failures: Sequence[m.FailureStatus] = ()
    lost: Sequence[m.LostWorker] = ()
    lost_workers: int = 0
    log: Sequence[m.LogLine] = ()


@dataclass(frozen=True)
class StatusSource:
    """What a distributor knows, as it stands at the moment."""

    pipeline: str
    run: str
    phase: str
    connected: bool
    """Whether the collector is there."""
    tasks: Mapping[str, TaskState]
    members: Mapping[bytes, WorkerState]
    troubles: Mapping[str, m.ErrorInfo]
    queued_bytes: int = 0
    """What waits for the collector's function, as its last ACK said."""
    held_bytes: int = 0
    """What waits at a broker of services."""
    commits: tuple[int, float] = (0, 0.0)
    """How many transactions the collector has written to its journal, and how long these took, as its last ACK said."""
    told_end: Sequence[m.TaskCounts] = ()
    """What became of the items, if a collector has said so: they were all done before this process began."""
    news: Callable[[float], StatusNews] | None = None
    """What has gone wrong, at this time; made if an answer is to be."""


class StatusResponder:
    """Answers on the hop `status`."""

    def __init__(self, incarnation: bytes) -> None:
        self._violations = ViolationLog()
        self._incarnation = incarnation
        self._said = 0
        self._answer: m.Status | None = None
        self._answered_at = 0.0

    def received(self, event: e.Received, facts: Callable[[], StatusSource], now: float) -> list[c.Command]:
        """What to do about this message; `facts` is called if an answer is to be made."""
        envelope = event.envelope
        if not isinstance(envelope.body, m.AskStatus):
            return self._violations.note(
                event.peer, f"said {type(envelope.body).__name__}, but questions only are taken"
            )
        if self._answer is None or not 0 <= now - self._answered_at < SAME_SECONDS:
            self._answer, self._answered_at = status_of(facts(), now), now
        self._said += 1
        reply = m.Envelope(self._incarnation, envelope.sender, self._said, envelope.number, self._answer)
        return [c.Send(event.peer, reply)]

    def lost(self, peer: e.Peer) -> None:
        """This connection is gone."""
        self._violations.lost(peer)

    @property
    def foreign(self) -> int:
        """How many messages were no questions."""
        return self._violations.count


def status_of(facts: StatusSource, now: float) -> m.Status:
    """The answer at this moment; times in seconds of the machine's clock."""
    opened = [task.opened_at for task in facts.tasks.values() if task.opened_at is not None]
    news = StatusNews() if facts.news is None else facts.news(now)
    members = islice(facts.members.values(), MAX_WORKERS)
    return m.Status(
        pipeline=facts.pipeline,
        run=facts.run,
        phase=facts.phase,
        seconds=max(0.0, now - min(opened, default=now)),
        why=_why_all(facts),
        tasks=[_task(facts, task, now) for task in facts.tasks.values()],
        workers=[_worker(facts.tasks[member.task], member, now) for member in members],
        queued_bytes=facts.queued_bytes,
        held_bytes=facts.held_bytes,
        commits=facts.commits[0],
        commit_seconds=facts.commits[1],
        failures=list(news.failures),
        lost=list(news.lost),
        lost_workers=news.lost_workers,
        log=list(news.log),
    )


def _why_all(facts: StatusSource) -> str:
    if not facts.connected and facts.phase != "farewell":
        return "no collector is connected; start one"
    return _PHASES.get(facts.phase, "")


# tasks ----------------------------------------------------------------------------------------------------------------


def _task(facts: StatusSource, task: TaskState, now: float) -> m.TaskStatus:
    ledger = task.ledger
    told = next((one for one in facts.told_end if one.task == task.spec.task_type), None)
    end = now if task.over_at is None else task.over_at
    return m.TaskStatus(
        counts=told or task.counts(),
        total=task.spec.total,
        waiting=ledger.waiting + task.in_outbox,
        retrying=ledger.retrying,
        leased=ledger.leased,
        workers=task.workers,
        seconds=0.0 if task.opened_at is None else max(0.0, end - task.opened_at),
        inherited=task.inherited,
        why=_why(facts, task, now)[:MAX_NAME_LENGTH],
        times=task.times.sum(),
        desired=task.desired,
    )


def _why(facts: StatusSource, task: TaskState, now: float) -> str:
    """What holds this task up; empty if nothing does."""
    if task.state == "failed":
        trouble = facts.troubles.get(task.spec.task_type)
        return "failed" if trouble is None else f"failed: {in_a_line(trouble)}"
    if task.state == "aborted":
        return _why_aborted(facts, task)
    if task.is_over or facts.phase not in ("running", "draining"):
        return ""
    if task.state == "waiting":
        specs = {name: one.spec for name, one in facts.tasks.items()}
        late = (facts.tasks[name] for name in all_before(task.spec.depends_on, specs))
        return "waits for " + ", ".join(_left(one) for one in late if not one.is_over)
    return _why_open(facts, task, now)


def _why_aborted(facts: StatusSource, task: TaskState) -> str:
    specs = {name: one.spec for name, one in facts.tasks.items()}
    before = all_before(task.spec.depends_on, specs)
    bad = [name for name in before if facts.tasks[name].is_over and not facts.tasks[name].is_good]
    if bad:
        return "aborted: " + ", ".join(repr(name) for name in bad) + ", which it depends on, did not succeed"
    return "aborted: the metadata function failed" if "metadata" in facts.troubles else "aborted"


def _left(task: TaskState) -> str:
    """``'A': 12 of 90 left``, as far as that is known."""
    name, done, total = task.spec.task_type, task.ledger.done, task.spec.total
    if total is None and task.state == "exhausted":
        total = done + task.ledger.unfinished
    if total is None or done > total:
        return f"{name!r}: {done} done, {task.ledger.unfinished} under way"
    return f"{name!r}: {total - done} of {total} left"


def _why_open(facts: StatusSource, task: TaskState, now: float) -> str:
    ledger, name = task.ledger, task.spec.task_type
    if not task.workers:
        return f"no worker for {name!r}"
    if ledger.leased:
        busy = any(one.task == name and one.load() for one in facts.members.values())
        return "" if busy else f"{ledger.leased} result(s) wait for the collector"
    if task.gated:
        return "its gate (available) says no; the next ACK may open it"
    due = ledger.next_due()
    if due is not None and not ledger.waiting:
        return f"{ledger.retrying} item(s) to be tried again, the first in {max(0.0, due - now):.0f} s"
    if ledger.given_up and not ledger.waiting:
        return f"{len(ledger.given_up)} failed item(s) wait for the collector to write them down"
    if task.is_held_back:
        late = [one for one in task.feeds if one.fed is not None and one.fed.waiting > one.fed.max_waiting_bytes]
        return "held back: " + ", ".join(_too_much(one) for one in late)
    if task.fed is not None and not ledger.waiting:
        return _why_nothing_comes(facts, task)
    if task.producing is not None and not ledger.waiting:
        return "waits for its own function to yield the next item"
    if ledger.waiting and not _has_room(facts.members.values(), name):
        return "its workers take nothing at the moment"
    return ""


def _too_much(task: TaskState) -> str:
    assert task.fed is not None
    return f"{shown_size(task.fed.waiting)} wait for {task.spec.task_type!r} (max_waiting_bytes)"


def _why_nothing_comes(facts: StatusSource, task: TaskState) -> str:
    """Of one that results of others feed."""
    if task.fed is not None and task.fed.asked:
        return "waits for the collector to give its next items"
    if task.fed is not None and not task.fed.closed:
        return "waits for its first items"
    feeders = [repr(name) for name in task.spec.for_each if not facts.tasks[name].is_over]
    by = f", to gather them by {task.spec.gather!r}" if task.spec.gather else ""
    return f"waits for results of {', '.join(feeders)}{by}" if feeders else ""


def _has_room(members: Iterable[WorkerState], task: str) -> bool:
    return any(one.task == task and one.welcomed and one.window > 0 for one in members)


# workers --------------------------------------------------------------------------------------------------------------


def _worker(task: TaskState, member: WorkerState, now: float) -> m.WorkerStatus:
    return m.WorkerStatus(
        address=member.name[:MAX_NAME_LENGTH],
        task=member.task,
        host=member.host[:MAX_NAME_LENGTH],
        pid=member.pid,
        threads=member.slots,
        state=_state(member),
        leased=task.ledger.leases(member.who),
        executed=member.executed,
        running=_running(task, member, now),
        kept_bytes=member.kept_bytes,
        busy_seconds=task.times.of(member.who),
        service_time=member.service_time,
    )


def _state(member: WorkerState) -> str:
    if member.draining:
        return "draining"
    if not member.welcomed:
        return "joining"
    return "busy" if member.load() else "ready"


def _running(task: TaskState, member: WorkerState, now: float) -> list[m.RunningItem]:
    """What its last full report named and is not done since; and what it was sent since to threads that were free."""
    ledger, who = task.ledger, member.who
    found = {
        item.number: m.RunningItem(item.number, item.attempt, max(0.0, now - began))
        for item, began in member.running
        if ledger.is_with(who, item.number) and item.number not in member.done
    }
    if not member.load():
        return []
    if 0 < member.inflight <= min(member.slots, m.MAX_NAMED):
        attempt, seconds = member.given_attempt, max(0.0, now - member.given_at)
        for number in ledger.held_by(who, after=member.link.confirmed):
            if len(found) < member.slots:
                found.setdefault(number, m.RunningItem(number, attempt, seconds))
    return list(found.values())
