"""Who is there: the links to known processes, and what a distributor knows of each connected worker."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Sequence

from zmqpipeline.protocol.data.ranges import RangeSet, first_of
from zmqpipeline.protocol.delivery.failures import printable
from zmqpipeline.protocol.delivery.suspects import LastWord
from zmqpipeline.protocol.events import Peer
from zmqpipeline.protocol.messages import MAX_NAMED, Envelope, RunningItem, Spans, WorkerReport
from zmqpipeline.protocol.peers import Link, Verdict

REMEMBERED = 10_000
"""How many processes that are not connected are remembered, so that their old messages are known as old."""


MAX_NAME_LENGTH = 200
"""So many characters of what a worker calls its host are remembered."""

REPORTS_A_SECOND = 1000
"""So many full reports are wanted of all workers together, where each would say one a second."""


def report_seconds(workers: int) -> float:
    """How often a full report is wanted from each of so many workers; 0: as often as it says one by itself."""
    apart = workers / REPORTS_A_SECOND
    return apart if apart > 1.0 else 0.0


class Links:
    """The links of a bound side, by incarnation; the peers, by connection.

    A link outlives its connection: if it began to count anew, the other side would take its messages for old ones.
    """

    def __init__(self, incarnation: bytes) -> None:
        self._incarnation = incarnation
        self._links: OrderedDict[bytes, Link] = OrderedDict()
        self._who: dict[Peer, bytes] = {}
        self._where: dict[bytes, Peer] = {}

    def of(self, envelope: Envelope) -> Link:
        """The link to the sender of this message, made if it is new."""
        link = self._links.get(envelope.sender)
        if link is None:
            link = self._links[envelope.sender] = Link(self._incarnation)
            self._forget_some()
        return link

    def _forget_some(self) -> None:
        if len(self._links) <= REMEMBERED + len(self._where):
            return
        # many at a time, so that who brings a new name with each message does not cost a look at all of them
        gone = [who for who in self._links if who not in self._where][: REMEMBERED // 10]
        for who in gone:
            del self._links[who]

    def is_another(self, peer: Peer, sender: bytes) -> bool:
        """Whether somebody else spoke on this connection before: a process speaks for itself alone."""
        return self._who.get(peer, sender) != sender

    def admit(self, peer: Peer, envelope: Envelope) -> tuple[Link, Verdict]:
        """Judge a message that arrived on this connection; its sender is answered there, unless it is a repeat."""
        link = self.of(envelope)
        verdict = link.admit(envelope)
        if verdict is not Verdict.REPEAT:
            self.seen(peer, envelope.sender)
        return link, verdict

    def seen(self, peer: Peer, who: bytes) -> None:
        """This process spoke on this connection: the newest connection is the one to answer on."""
        if self._who.get(peer) == who:
            return
        old = self._where.get(who)
        if old is not None:
            self._who.pop(old, None)
        self._who[peer] = who
        self._where[who] = peer
        self._links.move_to_end(who)

    def lost(self, peer: Peer) -> bytes | None:
        """This connection is gone: the process whose newest connection it was."""
        who = self._who.pop(peer, None)
        if who is not None:
            del self._where[who]
        return who

    def who(self, peer: Peer) -> bytes | None:
        """The process behind a connection."""
        return self._who.get(peer)

    def peer(self, who: bytes) -> Peer | None:
        """The connection of a process, if it has one."""
        return self._where.get(who)

    def peers(self) -> list[Peer]:
        """All connections."""
        return list(self._who)

    def link(self, who: bytes) -> Link | None:
        """The link to a process."""
        return self._links.get(who)


class WorkerState:
    """A connected worker, as its last report says it stands."""

    __slots__ = (
        "active_at", "backlog", "begun", "done", "draining", "executed", "finished", "given_at", "given_attempt",
        "host", "inflight", "kept_bytes", "levelled_at", "link", "name", "peer", "pid", "recalled", "releases",
        "running", "service_time", "slots", "stuck", "task", "unseen", "welcomed", "who", "window",
    )  # fmt: skip

    def __init__(self, who: bytes, task: str, link: Link, peer: Peer) -> None:
        self.who = who
        self.task = task
        self.link = link
        self.peer = peer
        self.name = who.hex()[:6]
        self.host = ""
        self.pid = 0
        self.slots = 1
        self.window = 0
        self.backlog = 0
        self.inflight = 0
        self.draining = False
        self.welcomed = False
        self.done = RangeSet()
        self.begun: RangeSet | None = None
        """All that its threads have begun and not finished, while they are all busy with what takes long."""
        self.finished = 0
        """All that our messages up to this one brought is finished."""
        self.unseen: deque[tuple[int, int]] = deque()
        """(message number, items) of the work that the last report could not know of."""
        self.releases = RangeSet()
        """What it may drop, and has not been told yet."""
        self.active_at = 0.0
        """When it was last heard to have done something."""
        self.recalled = 0
        """The number of the Recall that is not answered yet, or 0."""
        self.executed = self.kept_bytes = 0
        self.service_time = 0.0
        self.running: list[tuple[RunningItem, float]] = []
        """What its last full report named, with the time when it began."""
        self.levelled_at = -math.inf
        """When it was last asked for what others are to do in its place."""
        self.given_at = 0.0
        self.given_attempt = 1
        """When it was last sent work, and the attempt that this is for the items in it."""
        self.stuck = False
        """Items were recalled from it, and nothing was done by it since: it gets none to wait behind what it runs."""

    def may_drop(self, ranges: Sequence[int]) -> None:
        """These are done: (start, stop, start, ...)."""
        flat = iter(ranges)
        for start, stop in zip(flat, flat, strict=True):
            self.releases.add(start, stop)

    def take_releases(self) -> Spans:
        """What it may drop, to be told now."""
        if not self.releases:
            return ()
        released, self.releases = self.releases.spans(), RangeSet()
        return released

    def has_done_something(self, now: float) -> None:
        """It has finished items."""
        self.active_at, self.stuck = now, False

    def reported(self, report: WorkerReport, received: int) -> None:
        """Take over what a report says; `received` is the number of our last message that it knows of."""
        self.host, self.pid, self.slots = printable(report.host[:MAX_NAME_LENGTH]), report.pid, report.slots
        self.window, self.backlog, self.draining = report.window, report.backlog, report.draining
        self.name = f"{self.host}/{report.pid}" if report.pid else self.who.hex()[:6]
        if report.done is not None:
            self.done = RangeSet(first_of(report.done))
        if report.held is not None and self.recalled <= received:
            self.recalled = 0
        self.begun = None if report.begun is None else RangeSet(report.begun[: 2 * self.slots])
        if not report.backlog:
            self.finished = received
        self.executed, self.kept_bytes, self.service_time = report.executed, report.kept_bytes, report.service_time
        while self.unseen and self.unseen[0][0] <= received:
            self.inflight -= self.unseen.popleft()[1]

    def runs(self, items: Sequence[RunningItem], now: float) -> None:
        """A full report names these."""
        self.running = [(one, now - one.seconds) for one in items[: min(self.slots, MAX_NAMED)]]

    def has_ended(self, ranges: Sequence[int]) -> None:
        """Some items are over: if one of them kept a thread busy, another one may have begun."""
        if self.begun is not None and self.begun.common(tuple(ranges)):
            self.begun = None

    def is_idle(self) -> bool:
        """Whether it wants an item for a thread that has none."""
        return self.welcomed and self.load() < min(self.window, self.slots)

    def last_word(self) -> LastWord:
        """What is known of its items, now that it is lost."""
        return LastWord(self.done, self.begun, self.finished, self.link.confirmed, self.slots)

    def gave(self, items: int, attempt: int, now: float) -> None:
        """Work of so many items has just been sent; each of them is at this attempt."""
        if self.begun is not None and 0 < len(self.begun) < self.slots:
            # a thread may be free for it
            self.begun = None
        self.given_at, self.given_attempt = now, attempt
        self.unseen.append((self.link.sent, items))
        self.inflight += items

    def gave_back(self, items: int) -> None:
        """It has handed back so many."""
        self.recalled = 0
        self.backlog = max(0, self.backlog - items)

    def load(self) -> int:
        """How many items it has unstarted or running."""
        return self.backlog + self.inflight
