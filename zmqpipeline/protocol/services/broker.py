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

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import RangeSet, numbers_of, spans_of
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.peers import Link, Verdict
from zmqpipeline.protocol.services.refusals import (
    ENDING,
    cut_short,
    maybe_executed,
    nobody,
)
from zmqpipeline.protocol.services.requests import Service
from zmqpipeline.protocol.services.to_clients import FORGET_SECONDS, GRACE_SECONDS, ToClients
from zmqpipeline.protocol.status import StatusNews, StatusSource

FAREWELL_SECONDS = 2.0
"""How long the workers have to say goodbye."""


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


class ServiceMachine(ToClients):
    """See the module. Hops: ``clients`` and ``workers`` (both bound)."""

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
        return StatusSource(
            *("services", "", self.phase, True, self._tasks, members, {}, 0),
            held_bytes=self.totals.total,
            news=self._news,
        )

    def _news(self, now: float) -> StatusNews:
        return StatusNews((), *self._dispatcher.lost_workers(now))

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

    # services and their workers ----------------------------------------------------------------------------------

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
        if report.task not in self._services and self._is_full():
            return f"This broker knows {len(self._services)} names of services already, which is the most it can."
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
