"""The service broker's machine: requests of many clients to the workers of each service, replies back.

It hands out with the same `Dispatcher` and `Ledger` as the distributor; a service is a task whose items come from
clients. The law:

* A request is known by its client and the client's number. Said twice, it is executed once.
* It goes to the least loaded worker of its service that has room; otherwise it waits, within a bound of requests.
* A reply is kept until the client says that it does not wait for it, since it may have been lost on the way.
* The bytes of requests and replies have a bound, as one sum (`broker_bytes`).
* What a client has asked and does not ask for any more is withdrawn, whether or not it said so.
* A request whose worker was lost goes to another one if the service is idempotent; otherwise the client is told.
* The workers of the blank service (its name is empty) answer for each name that nobody else serves, and are told it.
* A service that nobody serves is said to be unavailable at once; but for 5 s after the broker's start, and after its
  last worker was lost, requests wait for a worker. Their clients are told which ones do, as often as that changes.
* What arrives in one turn of the loop is handed out and answered together, by a Tick at its end.

Each life of a broker is a run: workers drop what they hold of an earlier broker's requests, and clients send theirs
again. Of a service that is not idempotent, such a request is refused: it may have been executed. Whether it is, its
first worker says.

========== ============================ ==========================================================================
phase      entered by                   meaning
========== ============================ ==========================================================================
serving    start
draining   Drain                        refuses new requests and those that wait; waits for those with workers
farewell   drained                      tells the workers (RunEnded), waits for their Goodbye, at most 2 s
ended
========== ============================ ==========================================================================
"""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass

from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.credit import NO_LIMIT
from zmqpipeline.protocol.data.ranges import RangeSet, first_of, numbers_of, spans_of
from zmqpipeline.protocol.delivery.dispatcher import Dispatcher
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.delivery.workers import REMEMBERED, Links
from zmqpipeline.protocol.peers import Link, Verdict, ViolationLog
from zmqpipeline.protocol.services.broker_bytes import BrokerBytes
from zmqpipeline.protocol.services.refusals import (
    ENDING,
    cut_short,
    dropped,
    maybe_executed,
    nobody,
    too_many,
    why_lost,
)
from zmqpipeline.protocol.services.requests import Client, Service, with_name
from zmqpipeline.protocol.status import StatusResponder, StatusSource

GRACE_SECONDS = 5.0
"""How long requests wait for a worker of their service, after the broker's start or the loss of the last worker."""

FORGET_SECONDS = 30.0
"""How long the requests of a client whose connection broke, and the replies for it, are kept."""

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
    held_bytes: int
    """Of the requests and replies that are here."""


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
        self._options = options or Options()
        self._links = Links(incarnation)
        self._violations = ViolationLog()
        self._responder = StatusResponder(incarnation)
        self.totals = BrokerBytes(self._options.max_held_bytes)
        self._clients: dict[bytes, Client] = {}
        self._forgotten: OrderedDict[bytes, dict[str, int]] = OrderedDict()
        """Of clients that did not come back in time, what they had asked last."""
        self._services: dict[str, Service] = {}
        self._tasks: dict[str, TaskState] = {}
        self._unserved: dict[str, float] = {}
        """When the grace of a service is over, in that order."""
        self._born: float | None = None
        self._deadline: float | None = None
        self._forget_at: float | None = None
        self._turn_at: float | None = None
        """Set while something is left for the end of this turn: replies, and requests to be handed out."""
        self._to_answer: dict[Client, None] = {}
        self._given_up: list[m.FailedItem] = []
        self._out: list[c.Command] = []
        self._dispatcher = Dispatcher(
            self._tasks,
            self._links,
            options=self._options,
            rng=rng or random.Random(),
            tell_given_up=lambda failures, worker: self._given_up.extend(failures),
        )
        self._dispatcher.begin(incarnation.hex(), b"")

    # the contract ------------------------------------------------------------------------------------------------

    def handle(self, event: e.Event, now: float) -> list[c.Command]:  # noqa: C901 - a table
        """See `Machine.handle`."""
        self._out = self._dispatcher.out = []
        self._dispatcher.now = now
        if self.phase == "ended":
            return []
        if self._born is None:
            self._born = now
        match event:
            case e.Received():
                self._received(event, now)
            case e.Tick():
                self._end_turn()
            case e.PeerLost(peer):
                self._lost(peer, now)
            case e.Drain(seconds) if self._deadline is not None:
                self._deadline = min(self._deadline, now + seconds)
            case e.Drain(seconds) if self.phase == "serving":
                self._drain(now + seconds)
            case _:
                pass
        if self._given_up:
            self._refuse_given_up()
        if self.totals.excess > 0:
            self._shed()
        self._by_the_clock(now)
        if self._turn_at is None and (self._to_answer or self._dispatcher.undispatched):
            self._turn_at = now
        return self._out

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        if self.phase == "ended":
            return None
        if self._born is None:
            return 0.0
        unserved = next(iter(self._unserved.values())) if self._unserved else None
        times = (self._turn_at, self._deadline, self._forget_at, self._dispatcher.next_time(), unserved)
        return min((one for one in times if one is not None), default=None)

    def snapshot(self) -> ServiceSnapshot:
        """What a broker knows, for people."""
        return ServiceSnapshot(
            phase=self.phase,
            waiting={name: one.ledger.waiting for name, one in self._services.items()},
            running={name: one.ledger.leased for name, one in self._services.items()},
            workers={name: one.state.workers for name, one in self._services.items()},
            clients=sum(client.lost_at is None for client in self._clients.values()),
            held_bytes=self.totals.total,
        )

    def facts(self) -> StatusSource:
        """What `status` tells: a service is shown like a task, and all that is over counts as collected."""
        members = self._dispatcher.members
        return StatusSource("services", "", self.phase, True, self._tasks, members, {}, held_bytes=self.totals.total)

    def check(self) -> None:
        """Every request is in exactly one ledger, and in the books of its client and its service."""
        self._dispatcher.check()
        assert self._tasks == {name: one.state for name, one in self._services.items()}, "a service without a ledger"
        for service in self._services.values():
            service.check()
            has_time = service.state.workers or service.name in self._unserved or self.phase != "serving"
            assert has_time or not service.origins, "requests wait for a worker without an end"
        opened = sum(len(client.open) for client in self._clients.values())
        assert opened == sum(len(one.origins) for one in self._services.values()), "a client's request is in no ledger"
        assert list(self._unserved.values()) == sorted(self._unserved.values()), "the graces are not in order"
        waiting = sum(client.reply_bytes for client in self._clients.values())
        assert self.totals.replies == waiting, "the bytes of replies are miscounted"
        for client in self._clients.values() if self.totals.excess > 0 else ():
            assert not client.has_unsent_beside, "more replies wait than are allowed"
        left = self._to_answer or self._dispatcher.undispatched
        assert not left or self._turn_at is not None or self.phase == "ended", "something waits for a turn's end"

    # messages ----------------------------------------------------------------------------------------------------

    def _received(self, event: e.Received, now: float) -> None:
        envelope, peer = event.envelope, event.peer
        if isinstance(envelope.body, m.AskStatus):
            self._out += self._responder.received(event, self.facts, now)
            return
        if self._links.is_another(peer, envelope.sender):
            self._out += self._violations.note(peer, "speaks for more than one process")
            return
        link, verdict = self._links.admit(peer, envelope)
        if verdict is Verdict.REPEAT:
            return
        match envelope.body:
            case m.Requests() | m.Asking() | m.Withdrawn():
                self._from_client(envelope, peer, link, now)
            case m.Results() as results:
                if verdict is not Verdict.FRESH:
                    self._dispatcher.received(envelope, peer, link, verdict, now)
                self._results(envelope.sender, results, now)
            case m.WorkerReport() as report:
                self._report(report, envelope, peer, link, verdict, now)
            case m.ItemsFailed() | m.ItemsReturned() | m.Goodbye():
                self._from_worker(envelope, peer, link, verdict, now)
            case _:
                pass

    def _lost(self, peer: e.Peer, now: float) -> None:
        self._violations.lost(peer)
        who = self._links.who(peer)
        if who is None:
            return
        member = self._dispatcher.members.get(who)
        self._dispatcher.peer_lost(peer)
        if member is not None:
            self._worker_left(self._services[member.task], now, crashed=True)
        client = self._clients.get(who)
        if client is not None:
            client.lost_at = now
            self._forget_at = self._forget_at or now + FORGET_SECONDS

    # clients -----------------------------------------------------------------------------------------------------

    def _from_client(self, envelope: m.Envelope, peer: e.Peer, link: Link, now: float) -> None:
        client = self._clients.get(envelope.sender)
        if client is None:
            client = self._clients[envelope.sender] = Client(
                link, peer, self.totals, self._forgotten.pop(envelope.sender, None)
            )
        client.peer, client.lost_at = peer, None
        match envelope.body:
            case m.Requests() as requests:
                self._requests(client, requests, now)
            case m.Asking(spans):
                self._asked(client, spans)
            case m.Withdrawn(spans):
                gone = RangeSet(spans)
                self._withdraw(client, [number for number in client.open if number in gone])

    def _requests(self, client: Client, body: m.Requests, now: float) -> None:
        numbers, payloads = numbers_of(body.spans), body.payloads
        new = client.unknown_of(body.service, numbers)
        if len(new) < len(numbers):
            given = dict(zip(numbers, payloads, strict=True))
            numbers, payloads = new, [given[number] for number in new]
        if not numbers:
            return
        # What was asked before the client was forgotten may have been executed since.
        again = body.again or numbers[0] <= client.forgotten.get(body.service, -1)
        name = self._serving(body.service)
        refusal = self._refusal(name, now)
        if refusal is not None:
            self._refuse(client, "unavailable", numbers, refusal)
            return
        service = self._service(name)
        if again and service.idempotent is False:
            self._refuse(client, "lost", numbers, maybe_executed(service))
            return
        if not name:
            payloads = with_name(body.service, payloads)
        room = max(0, self._options.max_queued_requests - service.ledger.waiting)
        by_bytes = self.totals.room_for(payloads)
        if (taken := min(room, by_bytes)) < len(numbers):
            self._refuse(
                client, "unavailable", numbers[taken:], too_many(self._options, service, by_bytes=by_bytes < room)
            )
            room = taken
            numbers, payloads = numbers[:room], payloads[:room]
        if not service.state.workers and service.name not in self._unserved:
            self._give_grace(service.name, max(now, (self._born or now) + GRACE_SECONDS))
        service.open(client, numbers, payloads, again=again)
        self._dispatcher.feed(service.state)
        if not service.state.workers:
            self._say_known(client)

    def _serving(self, name: str) -> str:
        """The service whose workers answer for this name: those of the blank one for each that nobody else serves."""
        service, blank = self._services.get(name), self._services.get("")
        is_served = service is not None and service.state.workers
        return "" if not is_served and blank is not None and blank.state.workers else name

    def _served(self) -> list[str]:
        return [name for name, service in self._services.items() if service.state.workers]

    def _refusal(self, name: str, now: float) -> m.ErrorInfo | None:
        """Why requests for this service cannot be taken."""
        if self.phase != "serving":
            return ENDING
        service = self._services.get(name)
        if service is None and len(self._services) >= MAX_SERVICES:
            return m.ErrorInfo("ServiceUnavailable", f"More than {MAX_SERVICES} names of services were asked for.")
        has_grace = name in self._unserved or (self._born is not None and now < self._born + GRACE_SECONDS)
        if has_grace or (service is not None and service.state.workers):
            return None
        return nobody(name, self._served())

    def _asked(self, client: Client, spans: m.Spans) -> None:
        """Send again what was answered and lost; say what is not known here; drop what is not asked for any more."""
        wanted = RangeSet(spans)
        self._withdraw(client, [number for number in client.open if number not in wanted])
        for answer in client.take_answers(wanted):
            self._send(client, answer)
        self._say_known(client, first_of(client.known().missing(spans)))
        if client.ready:
            # there was no room for these
            self._to_answer[client] = None

    def _say_known(self, client: Client, unknown: m.Spans = ()) -> None:
        """What this client asked for and is not known, what nobody serves, and how much it may ask for."""
        room = self.totals.reply_room(len(self._clients))
        self._send(client, m.Unknown(unknown, self._unserved_of(client), room))

    def _unserved_of(self, client: Client) -> m.Spans:
        """The client's requests that wait for a worker of a service that has none."""
        return spans_of([number for number, (service, _) in client.open.items() if not service.state.workers])

    def _tell_unserved(self, service: Service) -> None:
        """Whoever waits for this service hears whether somebody serves it."""
        for client in dict.fromkeys(client for client, _ in service.origins.values()):
            self._say_known(client)

    def _withdraw(self, client: Client, numbers: list[int]) -> None:
        by_service: dict[Service, list[int]] = {}
        for number in numbers:
            service, mine = client.open[number]
            by_service.setdefault(service, []).append(mine)
        for service, all_mine in by_service.items():
            service.withdraw(all_mine)

    # services and their workers ----------------------------------------------------------------------------------

    def _service(self, name: str) -> Service:
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = Service(name, self.totals)
            self._tasks[name] = service.state
            service.state.opened_at = self._dispatcher.now
        return service

    def _report(
        self, report: m.WorkerReport, envelope: m.Envelope, peer: e.Peer, link: Link, verdict: Verdict, now: float
    ) -> None:
        reason = self._why_not_here(report)
        if reason:
            self._do(c.Send(peer, link.wrap(m.Refused(reason))))
            return
        service = self._service(report.task)
        was_unserved = not service.state.workers
        service.was_served = True
        self._unserved.pop(report.task, None)
        if not report.idempotent:
            self._refuse_of(service, service.maybe_executed(), "lost", maybe_executed(service))
        service.judge(bool(report.idempotent))
        self._dispatcher.received(envelope, peer, link, verdict, now)
        if not service.name:
            self._take_unserved(service)
        if was_unserved and service.state.workers:
            self._tell_unserved(service)
        if report.done and report.run == self._dispatcher.run:
            self._ask_for_results(envelope.sender, report)
        self._settle(service)

    def _why_not_here(self, report: m.WorkerReport) -> str:
        if report.idempotent is None:
            whose = f"a worker for the items of task {report.task!r} belongs to a distributor"
            return f"This is a broker of services; {whose}. Check the worker's endpoint."
        if report.task not in self._services and len(self._services) >= MAX_SERVICES:
            return f"This broker knows {MAX_SERVICES} names of services already, which is the most it can."
        return ""

    def _take_unserved(self, blank: Service) -> None:
        """Workers of the blank service are here: what waits for one of a service that nobody serves is theirs."""
        for name in [name for name in self._unserved if not self._services[name].state.workers]:
            service = self._services[name]
            if not blank.idempotent:
                self._refuse_of(service, service.maybe_executed(), "lost", maybe_executed(service))
            service.hand_over(blank)
            if service.origins:
                continue  # on their last try: for a worker of their own, if one comes in time
            del self._unserved[name]
            if not service.was_served:
                del self._services[name], self._tasks[name]
                self._dispatcher.undispatched.pop(name, None)
        if blank.ledger.waiting:
            self._dispatcher.feed(blank.state)

    def _from_worker(self, envelope: m.Envelope, peer: e.Peer, link: Link, verdict: Verdict, now: float) -> None:
        member = self._dispatcher.members.get(envelope.sender)
        self._dispatcher.received(envelope, peer, link, verdict, now)
        if member is None:
            return
        service = self._services[member.task]
        if isinstance(envelope.body, m.Goodbye):
            self._worker_left(service, now, crashed=envelope.body.trouble is not None)
        elif isinstance(envelope.body, m.ItemsFailed):
            # it has answered, if not what was hoped for
            self._dispatcher.has_room(envelope.sender)
        self._settle(service)

    def _worker_left(self, service: Service, now: float, *, crashed: bool) -> None:
        """If it was the last one, requests wait a while for another."""
        self._settle(service)
        if service.state.workers:
            return
        service.idempotent = None
        self._tell_unserved(service)
        if crashed or service.origins:
            self._give_grace(service.name, now + GRACE_SECONDS)

    def _give_grace(self, name: str, until: float) -> None:
        self._unserved.pop(name, None)
        is_last = not self._unserved or until >= next(reversed(self._unserved.values()))
        self._unserved[name] = until
        if not is_last:
            self._unserved = dict(sorted(self._unserved.items(), key=lambda entry: entry[1]))

    def _settle(self, service: Service) -> None:
        """Of what a worker gave back, nobody waits for the abandoned; and a broker that ends gives nothing out."""
        service.drop_strays()
        if self.phase == "draining":
            self._refuse_of(service, service.waiting(), "unavailable", ENDING)

    def _ask_for_results(self, who: bytes, report: m.WorkerReport) -> None:
        """Results that the worker keeps and that are still awaited were lost on the way."""
        done = RangeSet(report.done or ())
        lost = [number for number in self._services[report.task].ledger.held_by(who) if number in done]
        member = self._dispatcher.members.get(who)
        if lost and member is not None:
            self._do(c.Send(member.peer, member.link.wrap(m.Missing(report.run, report.task, spans_of(lost)))))

    def _results(self, who: bytes, body: m.Results, now: float) -> None:
        service = self._services.get(body.task)
        if service is None or body.run != self._dispatcher.run:
            return
        done: list[int] = []
        origins, abandoned = service.origins, service.abandoned
        for mine, payload in zip(numbers_of(body.spans), body.payloads, strict=True):
            origin = origins.pop(mine, None)
            if origin is not None:
                client, number = origin
                del client.open[number]
                client.reply(number, payload)
                self._to_answer[client] = None
                service.doubtful.discard(mine)
                done.append(mine)
            elif mine in abandoned:
                abandoned.discard(mine)
                done.append(mine)
        released = service.acknowledge(spans_of(done))
        self._dispatcher.note_released(released, now)
        for one in {who, *released}:
            self._dispatcher.has_room(one)

    def _shed(self) -> None:
        """More replies wait than are allowed: who has the most loses its newest."""
        while self.totals.excess > 0 and (able := [one for one in self._clients.values() if one.has_unsent_beside]):
            client = max(able, key=lambda one: one.reply_bytes)
            numbers = client.shed(self.totals.excess)
            self._refuse(client, "unavailable", numbers, dropped(self.totals.most_replies))

    # refused -----------------------------------------------------------------------------------------------------

    def _refuse_given_up(self) -> None:
        """What a handler raised for, and what was lost with a worker, goes back to the clients."""
        items, self._given_up[:] = list(self._given_up), []
        alike: dict[tuple[str, str, m.ErrorInfo], list[int]] = {}
        for item in items:
            kind, trouble = "error", item.trouble
            if item.stage == "crash":
                kind, trouble = "lost", why_lost(self._services[item.task])
            alike.setdefault((item.task, kind, trouble), []).append(item.number)
        for (name, kind, trouble), numbers in alike.items():
            service = self._services[name]
            service.abandoned.difference_update(numbers)
            self._refuse_of(service, numbers, kind, trouble)

    def _refuse_of(self, service: Service, numbers: list[int], kind: str, trouble: m.ErrorInfo) -> None:
        """Refuse these, by the numbers of the ledger."""
        if numbers:
            for client, theirs in service.close(numbers).items():
                self._refuse(client, kind, theirs, trouble)
            service.drop(numbers)

    def _refuse(self, client: Client, kind: str, numbers: list[int], trouble: m.ErrorInfo) -> None:
        self._send(client, m.Declined(kind, spans_of(numbers), trouble))

    # the end of a turn -------------------------------------------------------------------------------------------

    def _end_turn(self) -> None:
        self._turn_at = None
        undispatched, self._dispatcher.undispatched = self._dispatcher.undispatched, {}
        for task in undispatched.values():
            self._dispatcher.hand_out(task)
        clients, self._to_answer = self._to_answer, {}
        for client in clients:
            self._answer(client)

    def _answer(self, client: Client) -> None:
        """Send the replies that are ready and have room, in bounded messages; a broker that ends sends all."""
        room = self.totals.reply_room(len(self._clients)) if self.phase == "serving" else NO_LIMIT
        while (replies := client.next_replies(room)) is not None:
            self._send(client, replies)

    # the clock, and the end --------------------------------------------------------------------------------------

    def _by_the_clock(self, now: float) -> None:
        if self._unserved and now >= next(iter(self._unserved.values())):
            served = self._served()
            while self._unserved and now >= next(iter(self._unserved.values())):
                self._nobody_came(self._services[next(iter(self._unserved))], served)
        self._dispatcher.by_the_clock(now)
        if self._forget_at is not None and now >= self._forget_at:
            self._forget(now)
        if self.phase == "draining" and (self._is_late(now) or not any(one.origins for one in self._services.values())):
            self._say_farewell(now)
        if self.phase == "farewell" and (not self._dispatcher.members or self._is_late(now)):
            self.phase = "ended"
            self._do(c.Ended(0, "the service has ended"))

    def _is_late(self, now: float) -> bool:
        return self._deadline is not None and now >= self._deadline

    def _nobody_came(self, service: Service, served: list[str]) -> None:
        del self._unserved[service.name]
        self._refuse_of(service, list(service.origins), "unavailable", nobody(service.name, served))
        if not service.was_served:
            # The numbers of a service that a worker has seen must not begin anew; of all others nothing is left.
            del self._services[service.name], self._tasks[service.name]
            self._dispatcher.undispatched.pop(service.name, None)

    def _forget(self, now: float) -> None:
        """Clients that have not come back: what they asked for is nobody's any more."""
        self._forget_at = None
        for who, client in list(self._clients.items()):
            if client.lost_at is None:
                continue
            due = client.lost_at + FORGET_SECONDS
            if now >= due:
                self._withdraw(client, list(client.open))
                self._to_answer.pop(client, None)
                client.forget()
                del self._clients[who]
                self._forgotten[who] = client.highest
                if len(self._forgotten) > REMEMBERED:
                    self._forgotten.popitem(last=False)
            else:
                self._forget_at = due if self._forget_at is None else min(self._forget_at, due)

    def _drain(self, deadline: float) -> None:
        self.phase = "draining"
        self._deadline = deadline
        self._dispatcher.stage = "closed"
        for service in self._services.values():
            self._settle(service)

    def _say_farewell(self, now: float) -> None:
        self._to_answer.update(dict.fromkeys(client for client in self._clients.values() if client.ready))
        self._end_turn()
        trouble = cut_short()
        for service in self._services.values():
            self._refuse_of(service, list(service.origins), "unavailable", trouble)
        self.phase = "farewell"
        self._deadline = now + FAREWELL_SECONDS
        self._dispatcher.say_farewell(m.RunEnded(self._dispatcher.run))

    # out ---------------------------------------------------------------------------------------------------------

    def _send(self, client: Client, body: m.Message) -> None:
        envelope = client.link.wrap(body)
        if isinstance(body, m.Replies | m.Declined):
            client.keep(envelope.number, body)
        if client.lost_at is None:
            self._do(c.Send(client.peer, envelope))

    def _do(self, command: c.Command) -> None:
        self._out.append(command)
