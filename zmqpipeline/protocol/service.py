"""The service broker's machine: requests of many clients to the workers of each service, replies back.

It hands out with the same `Dispatcher` and `Ledger` as the distributor; a service is a task whose items come from
clients. The law:

* A request is known by its client and the client's number. Said twice, it is executed once.
* It goes to the least loaded worker of its service that has room; otherwise it waits, within a bound.
* A reply is kept until the client has said anything since it was sent, since it may have been lost on the way.
* A request whose worker was lost goes to another one if the service is idempotent; otherwise the client is told.
* A service that nobody has served for 5 s is said to be unavailable at once.

Each life of a broker is a run: workers drop what they hold of an earlier broker's requests, and clients send theirs
again. Of a service that is not idempotent, such a request is declined: it may have been executed.

========== ============================ ==========================================================================
phase      entered by                   meaning
========== ============================ ==========================================================================
serving    start
draining   Drain                        declines new requests; waits for those with workers
farewell   drained                      tells the workers (RunEnded), waits for their Goodbye, at most 2 s
ended
========== ============================ ==========================================================================
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.dispatch import Dispatcher, TaskState
from zmqpipeline.protocol.graph import TaskSpec
from zmqpipeline.protocol.ledger import Ledger
from zmqpipeline.protocol.link import Link, Verdict
from zmqpipeline.protocol.roster import Links
from zmqpipeline.protocol.seqset import numbers_of, spans_of

GRACE_SECONDS = 5.0
"""How long requests wait for a first worker of their service, after the broker's start or the last worker's end."""

FORGET_SECONDS = 30.0
"""How long the replies for a client whose connection broke are kept."""

FAREWELL_SECONDS = 2.0
"""How long the workers have to say goodbye."""

MAX_SERVICES = 10_000
"""So many names of services are known at most."""


@dataclass(frozen=True)
class ServiceSnapshot:
    """What a broker knows, for people: requests waiting and running and workers, by service; connected clients."""

    phase: str
    waiting: dict[str, int]
    running: dict[str, int]
    workers: dict[str, int]
    clients: int


class _Client:
    """The open requests of one client, and the answers that it may not have received."""

    __slots__ = ("answers", "highest", "link", "lost_at", "open", "peer")

    def __init__(self, link: Link, peer: e.Peer) -> None:
        self.link = link
        self.peer = peer
        self.lost_at: float | None = None
        self.highest = -1
        self.open: dict[int, tuple[str, int]] = {}
        """The client's number -> service, the broker's number."""
        self.answers: deque[tuple[int, m.Replies | m.Declined]] = deque()

    def knows(self, number: int) -> bool:
        """Whether this request is open, or answered."""
        return number in self.open or any(number in numbers_of(answer.spans) for _, answer in self.answers)

    def confirm(self) -> None:
        """Drop the answers that the client has received."""
        while self.answers and self.answers[0][0] <= self.link.confirmed:
            self.answers.popleft()


class ServiceMachine:
    """See the module. Hops: ``clients`` and ``workers`` (both bound)."""

    def __init__(
        self,
        *,
        incarnation: bytes,
        options: Options | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.phase = "serving"
        self.services: dict[str, TaskState] = {}
        self.answered = 0
        self.declined = 0
        self._options = options or Options()
        self._links = Links(incarnation)
        self._clients: dict[bytes, _Client] = {}
        self._origins: dict[tuple[str, int], tuple[bytes, int]] = {}
        self._idempotent: dict[str, bool] = {}
        self._unserved: dict[str, float] = {}
        self._born: float | None = None
        self._deadline: float | None = None
        self._forget_at: float | None = None
        self._given_up: list[m.FailedItem] = []
        self._out: list[c.Command] = []
        self._dispatcher = Dispatcher(
            self.services,
            self._links,
            options=self._options,
            rng=rng or random.Random(),
            tell_given_up=self._given_up.extend,
        )
        self._dispatcher.begin(incarnation.hex(), b"")

    # the contract ------------------------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """See `Machine.handle`."""
        self._out = self._dispatcher.out = []
        if self.phase == "ended":
            return []
        if self._born is None:
            self._born = now
        match event:
            case e.Received():
                self._received(event, now)
            case e.PeerLost(peer):
                self._lost(peer, now)
            case e.Drain(seconds) if self.phase == "serving":
                self._drain(now + seconds)
            case _:
                pass
        if self._given_up:
            self._decline_given_up(now)
        self._by_the_clock(now)
        return self._out

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        if self.phase == "ended":
            return None
        if self._born is None:
            return 0.0
        times = [self._deadline, self._forget_at, self._dispatcher.release_at, *self._unserved.values()]
        return min((one for one in times if one is not None), default=None)

    def snapshot(self) -> ServiceSnapshot:
        """What a broker knows, for people."""
        return ServiceSnapshot(
            phase=self.phase,
            waiting={name: one.ledger.waiting for name, one in self.services.items()},
            running={name: one.ledger.leased for name, one in self.services.items()},
            workers={name: one.workers for name, one in self.services.items()},
            clients=sum(client.lost_at is None for client in self._clients.values()),
        )

    def check(self) -> None:
        """Every open request is in exactly one ledger, and has its client."""
        self._dispatcher.check()
        for service in self.services.values():
            service.ledger.check()
        opened = {
            (name, mine): (who, number)
            for who, client in self._clients.items()
            for number, (name, mine) in client.open.items()
        }
        assert opened == self._origins, "the open requests of the clients are not those of the broker"
        unfinished = sum(service.ledger.unfinished for service in self.services.values())
        assert unfinished == len(self._origins), f"{unfinished} requests in the ledgers, {len(self._origins)} open"

    # messages ----------------------------------------------------------------------------------------------------

    def _received(self, event: e.Received, now: float) -> None:
        envelope, peer = event.envelope, event.peer
        link = self._links.of(envelope)
        verdict = link.admit(envelope)
        if verdict is Verdict.REPEAT:
            return
        self._links.seen(peer, envelope.sender)
        match envelope.body:
            case m.Requests() | m.Asking() | m.Withdrawn():
                self._from_client(envelope, peer, link, now)
            case m.WorkerReport() | m.ItemsFailed() | m.ItemsReturned() | m.Goodbye() | m.Results():
                self._from_worker(envelope, peer, link, verdict, now)
            case _:
                pass

    def _lost(self, peer: e.Peer, now: float) -> None:
        who = self._links.who(peer)
        self._dispatcher.peer_lost(peer)
        client = self._clients.get(who) if who is not None else None
        if client is not None and client.peer == peer:
            client.lost_at = now
            self._forget_at = self._forget_at or now + FORGET_SECONDS
        self._watch_unserved(now)

    # clients -----------------------------------------------------------------------------------------------------

    def _from_client(self, envelope: m.Envelope, peer: e.Peer, link: Link, now: float) -> None:
        client = self._clients.get(envelope.sender)
        if client is None:
            client = self._clients[envelope.sender] = _Client(link, peer)
        client.peer, client.lost_at = peer, None
        body = envelope.body
        if isinstance(body, m.Asking):
            self._asked(client, body)
        elif isinstance(body, m.Withdrawn):
            self._withdraw(client, numbers_of(body.spans), now)
        elif isinstance(body, m.Requests):
            self._requests(envelope.sender, client, body, now)
        client.confirm()

    def _asked(self, client: _Client, body: m.Asking) -> None:
        """Send again what was answered and lost; say what is not known here."""
        wanted = set(numbers_of(body.spans))
        answers, client.answers = list(client.answers), deque()
        for number, answer in answers:
            mine = numbers_of(answer.spans)
            if number > client.link.confirmed:
                client.answers.append((number, answer))
            elif wanted.intersection(mine):
                self._send(client, answer, keep=True)
            wanted.difference_update(mine)
        unknown = [number for number in wanted if number not in client.open]
        self._send(client, m.Unknown(spans_of(unknown)))

    def _requests(self, who: bytes, client: _Client, body: m.Requests, now: float) -> None:
        numbers = numbers_of(body.spans)
        new = list(zip(numbers, body.payloads, strict=True))
        if numbers and numbers[0] <= client.highest:
            new = [(number, payload) for number, payload in new if not client.knows(number)]
        if not new:
            return
        client.highest = max(client.highest, numbers[-1])
        spans = spans_of([number for number, _ in new])
        refusal = self._refusal(body.service, len(new), now)
        if refusal is not None:
            self._decline(client, "unavailable", spans, refusal)
            return
        service = self._service(body.service, now)
        if body.again and not self._idempotent.get(body.service, False):
            text = f"The broker of service {body.service!r} was started anew while this request may have been executed."
            self._decline(client, "lost", spans, m.Trouble("WorkerLost", text))
            return
        first = service.ledger.next_number
        service.ledger.add([payload for _, payload in new])
        for mine, (number, _) in enumerate(new, first):
            client.open[number] = (body.service, mine)
            self._origins[body.service, mine] = (who, number)
        self._dispatcher.feed(service)

    def _refusal(self, name: str, count: int, now: float) -> m.Trouble | None:
        """Why these requests cannot be taken."""
        service = self.services.get(name)
        if self.phase != "serving":
            return m.Trouble("ServiceUnavailable", "The broker is ending; ask again when it is back.")
        if service is None and len(self.services) >= MAX_SERVICES:
            return m.Trouble("ServiceUnavailable", f"More than {MAX_SERVICES} names of services were asked for.")
        if self._is_unserved(name, now):
            return self._nobody(name)
        if service is not None and service.ledger.waiting + count > self._options.max_queued_requests:
            return m.Trouble(
                "ServiceUnavailable",
                f"{service.ledger.waiting} requests wait for service {name!r} already (max_queued_requests is "
                f"{self._options.max_queued_requests}). Start more workers, or ask more slowly.",
            )
        return None

    def _nobody(self, name: str) -> m.Trouble:
        known = ", ".join(repr(one) for one, service in self.services.items() if service.workers) or "none"
        text = f"Nobody serves {name!r}. Served now: {known}. Start a worker for it, or check the name."
        return m.Trouble("ServiceUnavailable", text)

    def _is_unserved(self, name: str, now: float) -> bool:
        service = self.services.get(name)
        if service is not None and (service.workers or name in self._unserved):
            return False
        return self._born is not None and now >= self._born + GRACE_SECONDS

    def _withdraw(self, client: _Client, numbers: list[int], now: float) -> None:
        for number in numbers:
            origin = client.open.pop(number, None)
            if origin is not None:
                del self._origins[origin]
                name, mine = origin
                released = self.services[name].ledger.acknowledge((), (mine, mine + 1))
                self._dispatcher.note_released(released, now)

    # services and their workers ----------------------------------------------------------------------------------

    def _service(self, name: str, now: float) -> TaskState:
        service = self.services.get(name)
        if service is None:
            spec = TaskSpec(name)
            service = self.services[name] = TaskState(spec, Ledger(spec), state="open", has_source=False)
            self._unserved[name] = max(now, (self._born or now) + GRACE_SECONDS)
        return service

    def _from_worker(self, envelope: m.Envelope, peer: e.Peer, link: Link, verdict: Verdict, now: float) -> None:
        body = envelope.body
        who = envelope.sender
        if isinstance(body, m.Results):
            self._results(who, body, now)
            return
        if isinstance(body, m.WorkerReport):
            if body.task not in self.services and len(self.services) >= MAX_SERVICES:
                return
            self._unserved.pop(body.task, None)
            service = self._service(body.task, now)
            self._unserved.pop(body.task, None)
            self._set_idempotent(service, body.idempotent)
        self._dispatcher.received(envelope, peer, link, verdict, now)
        if isinstance(body, m.WorkerReport) and body.done and body.run == self._dispatcher.run:
            self._ask_for_results(who, body)
        self._watch_unserved(now)

    def _set_idempotent(self, service: TaskState, idempotent: bool) -> None:
        name = service.spec.task_type
        if self._idempotent.get(name) is not idempotent:
            self._idempotent[name] = idempotent
            # One loss is the last where a request must not be executed twice.
            spec = TaskSpec(name, crash_limit=3 if idempotent else 1)
            service.spec = service.ledger.spec = spec

    def _ask_for_results(self, who: bytes, report: m.WorkerReport) -> None:
        """Results that the worker keeps and that are still awaited were lost on the way."""
        ledger = self.services[report.task].ledger
        lost = [number for number in numbers_of(report.done or ()) if ledger.is_with(who, number)]
        member = self._dispatcher.members.get(who)
        if lost and member is not None:
            self._do(c.Send(member.peer, member.link.wrap(m.Missing(report.run, report.task, spans_of(lost)))))

    def _results(self, who: bytes, body: m.Results, now: float) -> None:
        service = self.services.get(body.task)
        if service is None or body.run != self._dispatcher.run:
            return
        by_client: dict[bytes, list[tuple[int, bytes]]] = {}
        for mine, payload in zip(numbers_of(body.spans), body.payloads, strict=True):
            origin = self._origins.pop((body.task, mine), None)
            if origin is not None:
                asker, number = origin
                del self._clients[asker].open[number]
                by_client.setdefault(asker, []).append((number, payload))
        released = service.ledger.acknowledge(body.spans, ())
        self._dispatcher.note_released(released, now)
        for asker, replies in by_client.items():
            replies.sort()
            self.answered += len(replies)
            spans = spans_of([number for number, _ in replies])
            self._send(self._clients[asker], m.Replies(spans, [payload for _, payload in replies]), keep=True)

    def _decline_given_up(self, now: float) -> None:
        items, self._given_up[:] = list(self._given_up), []
        for item in items:
            released = self.services[item.task].ledger.acknowledge((), (item.number, item.number + 1))
            self._dispatcher.note_released(released, now)
            asker, number = self._origins.pop((item.task, item.number))
            client = self._clients[asker]
            del client.open[number]
            kind = "lost" if item.stage == "crash" else "error"
            self._decline(client, kind, (number, number + 1), item.trouble)

    # nobody serves it --------------------------------------------------------------------------------------------

    def _watch_unserved(self, now: float) -> None:
        """Services whose last worker has gone get their time of grace."""
        for name, service in self.services.items():
            if not service.workers and service.ledger.unfinished and name not in self._unserved:
                self._unserved[name] = now + GRACE_SECONDS

    def _decline_unserved(self, name: str) -> None:
        service = self.services[name]
        trouble = self._nobody(name)
        mine = [number for one, number in self._origins if one == name]
        for number in mine:
            asker, asked = self._origins.pop((name, number))
            service.ledger.acknowledge((), (number, number + 1))
            del self._clients[asker].open[asked]
            self._decline(self._clients[asker], "unavailable", (asked, asked + 1), trouble)

    # the clock, and the end --------------------------------------------------------------------------------------

    def _by_the_clock(self, now: float) -> None:
        for name in [name for name, due in self._unserved.items() if now >= due]:
            del self._unserved[name]
            if not self.services[name].workers:
                self._decline_unserved(name)
        if self._dispatcher.release_at is not None and now >= self._dispatcher.release_at:
            self._dispatcher.release_all()
        if self._forget_at is not None and now >= self._forget_at:
            self._forget(now)
        if self.phase == "draining" and (not self._origins or self._is_late(now)):
            self._say_farewell(now)
        elif self.phase == "farewell" and (not self._dispatcher.members or self._is_late(now)):
            self.phase = "ended"
            self._do(c.Ended(0, "the service has ended"))

    def _is_late(self, now: float) -> bool:
        return self._deadline is not None and now >= self._deadline

    def _forget(self, now: float) -> None:
        """Clients that have not come back: what they asked for is nobody's any more."""
        self._forget_at = None
        for who, client in list(self._clients.items()):
            if client.lost_at is None:
                continue
            if now >= client.lost_at + FORGET_SECONDS:
                self._withdraw(client, list(client.open), now)
                del self._clients[who]
            else:
                due = client.lost_at + FORGET_SECONDS
                self._forget_at = due if self._forget_at is None else min(self._forget_at, due)

    def _drain(self, deadline: float) -> None:
        self.phase = "draining"
        self._deadline = deadline
        self._dispatcher.stage = "closed"
        trouble = m.Trouble("ServiceUnavailable", "The broker is ending; ask again when it is back.")
        for name, service in self.services.items():
            waiting = [one for one in self._origins if one[0] == name and not service.ledger.is_leased(one[1])]
            for origin in waiting:
                asker, number = self._origins.pop(origin)
                service.ledger.acknowledge((), (origin[1], origin[1] + 1))
                del self._clients[asker].open[number]
                self._decline(self._clients[asker], "unavailable", (number, number + 1), trouble)

    def _say_farewell(self, now: float) -> None:
        trouble = m.Trouble("ServiceUnavailable", "The broker ended before the answer came.")
        for name, mine in list(self._origins):
            asker, number = self._origins.pop((name, mine))
            self.services[name].ledger.acknowledge((), (mine, mine + 1))
            del self._clients[asker].open[number]
            self._decline(self._clients[asker], "unavailable", (number, number + 1), trouble)
        self.phase = "farewell"
        self._deadline = now + FAREWELL_SECONDS
        self._dispatcher.say_farewell()

    # out ---------------------------------------------------------------------------------------------------------

    def _decline(self, client: _Client, kind: str, spans: m.Spans, trouble: m.Trouble) -> None:
        self.declined += 1
        self._send(client, m.Declined(kind, spans, trouble), keep=True)

    def _send(self, client: _Client, body: m.Message, *, keep: bool = False) -> None:
        envelope = client.link.wrap(body)
        if keep and isinstance(body, m.Replies | m.Declined):
            client.answers.append((envelope.number, body))
        if client.lost_at is None:
            self._do(c.Send(client.peer, envelope))

    def _do(self, command: c.Command) -> None:
        self._out.append(command)
