"""What a broker knows, and its side towards clients: it takes requests, refuses some, and answers."""

from __future__ import annotations

import random
from collections import OrderedDict

from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.credit import NO_LIMIT
from zmqpipeline.protocol.data.ranges import RangeSet, first_of, numbers_of, spans_of
from zmqpipeline.protocol.delivery.dispatcher import Dispatcher
from zmqpipeline.protocol.delivery.task_state import TaskState
from zmqpipeline.protocol.delivery.workers import REMEMBERED, Links
from zmqpipeline.protocol.peers import Link, ViolationLog
from zmqpipeline.protocol.services.broker_bytes import BrokerBytes
from zmqpipeline.protocol.services.refusals import (
    ENDING,
    dropped,
    maybe_executed,
    nobody,
    too_many,
    why_lost,
)
from zmqpipeline.protocol.services.requests import Client, Service, with_name
from zmqpipeline.protocol.status import StatusResponder

GRACE_SECONDS = 5.0
"""How long requests wait for a worker of their service, after the broker's start or the loss of the last worker."""

FORGET_SECONDS = 30.0
"""How long the requests of a client whose connection broke, and the replies for it, are kept."""

MAX_SERVICES = 10_000
"""So many names of services are known at most."""


class ToClients:
    """The state of a broker's machine, and what it has to do with clients; see `protocol.services.broker`."""

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

    # requests ----------------------------------------------------------------------------------------------------

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
        if service is None and self._is_full():
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

    def _service(self, name: str) -> Service:
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = Service(name, self.totals)
            self._tasks[name] = service.state
            service.state.opened_at = self._dispatcher.now
        return service

    def _is_full(self) -> bool:
        """Whether no further name of a service can be known."""
        return len(self._services) >= MAX_SERVICES

    def _give_grace(self, name: str, until: float) -> None:
        self._unserved.pop(name, None)
        is_last = not self._unserved or until >= next(reversed(self._unserved.values()))
        self._unserved[name] = until
        if not is_last:
            self._unserved = dict(sorted(self._unserved.items(), key=lambda entry: entry[1]))

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

    # out ---------------------------------------------------------------------------------------------------------

    def _send(self, client: Client, body: m.Message) -> None:
        envelope = client.link.wrap(body)
        if isinstance(body, m.Replies | m.Declined):
            client.keep(envelope.number, body)
        if client.lost_at is None:
            self._do(c.Send(client.peer, envelope))

    def _do(self, command: c.Command) -> None:
        self._out.append(command)
