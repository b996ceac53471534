"""A broker with clients and workers played by hand: the scenes of test_service."""

from __future__ import annotations

import random

from tests.support.bench import Bench, Stranger
from zmqpipeline.options import Options
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.data.ranges import numbers_of, spans_of
from zmqpipeline.protocol.services.broker import ServiceMachine

RUN = b"broker".hex()


class Peer(Stranger):
    """A client or a worker played by hand; what it says is followed by the end of the broker's turn."""

    def tells(self, body: m.Message) -> list[c.Command]:
        """This message arrives now, alone in its turn; all that the broker does then."""
        return self.bench.scene_turn(e.Received(self.peer, self.hears().wrap(body)))  # type: ignore[attr-defined]

    def is_lost(self) -> list[c.Command]:
        """Its connection is found to be gone."""
        return self.bench.scene_turn(e.PeerLost(self.peer))  # type: ignore[attr-defined]


class Turns(Bench):
    """A bench that ends the turn after each event, as the loop does."""

    def scene_turn(self, *events: e.Event) -> list[c.Command]:
        """These events come in one turn of the loop."""
        found: list[c.Command] = []
        for event in events:
            found += self.tell(event)
        deadline = self.machine.next_deadline()
        if deadline is not None and deadline <= self.now:
            found += self.tell(e.Tick())
        self.last = found
        return found


class Asker(Peer):
    """A client: numbers its requests from 0."""

    def __init__(self, scene: Broker, who: bytes | None = None) -> None:
        super().__init__(scene.bench, "clients", b"client-%d" % len(scene.askers), who)
        scene.askers.append(self)

    def asks(self, *numbers: int, service: str = "upper", again: bool = False) -> list[c.Command]:
        """Send these requests."""
        return self.tells(self.request(*numbers, service=service, again=again))

    def request(self, *numbers: int, service: str = "upper", again: bool = False) -> m.Requests:
        """The message with these requests."""
        return m.Requests(service, again, spans_of(numbers), [b"q%d" % number for number in sorted(numbers)])

    def waits_for(self, *numbers: int) -> list[c.Command]:
        """Say all that it waits for."""
        return self.tells(m.Asking(spans_of(numbers)))

    def got(self) -> dict[int, bytes]:
        """The replies among the last messages for it."""
        found: dict[int, bytes] = {}
        for one in self.was_told(m.Replies):
            found.update(zip(numbers_of(one.spans), one.payloads, strict=True))
        return found

    def refused(self) -> dict[int, str]:
        """The refusals among the last messages for it, by their kinds."""
        return {number: one.kind for one in self.was_told(m.Declined) for number in numbers_of(one.spans)}

    def unknown(self) -> list[int]:
        """What the broker said last that it does not know."""
        return [number for one in self.was_told(m.Unknown) for number in numbers_of(one.spans)]


class Server(Peer):
    """A service worker that takes what it is given."""

    def __init__(
        self, scene: Broker, service: str = "upper", *, slots: int = 1, idempotent: bool | None = False
    ) -> None:
        super().__init__(scene.bench, "workers", b"worker-%d" % len(scene.servers))
        scene.servers.append(self)
        self.service, self.slots, self.idempotent = service, slots, idempotent

    def reports(
        self,
        window: int = 1,
        backlog: int = 0,
        *,
        run: str = RUN,
        held: m.Spans | None = None,
        done: m.Spans | None = None,
        draining: bool = False,
    ) -> list[c.Command]:
        """Say how it stands."""
        return self.tells(
            m.WorkerReport(
                run, self.service, self.slots, window, backlog, draining, held, done, "box", 0, self.idempotent
            )
        )

    def answers(self, *numbers: int) -> list[c.Command]:
        """Send the results of these, by the broker's numbers."""
        return self.tells(self.results(*numbers))

    def results(self, *numbers: int) -> m.Results:
        """The message with the results of these."""
        return m.Results(RUN, self.service, 1, spans_of(numbers), [b"a%d" % number for number in sorted(numbers)])

    def given(self) -> list[int]:
        """The broker's numbers in the last Work for it."""
        return [number for work in self.was_told(m.Work) for number in numbers_of(work.spans)]


class Broker:
    """A broker that has been up for a minute, unless it is `young`."""

    def __init__(self, *, young: bool = False, options: Options | None = None) -> None:
        self.machine = ServiceMachine(incarnation=b"broker", options=options, rng=random.Random(1))
        self.bench = Turns(self.machine)
        self.askers: list[Asker] = []
        self.servers: list[Server] = []
        self.bench.tell(e.Tick())
        if not young:
            self.bench.wait(60.0)

    def asker(self) -> Asker:
        """A new client."""
        return Asker(self)

    def server(
        self, service: str = "upper", *, slots: int = 1, window: int | None = None, idempotent: bool = False
    ) -> Server:
        """A worker that has just joined."""
        server = Server(self, service, slots=slots, idempotent=idempotent)
        server.reports(slots if window is None else window, held=(), done=())
        return server

    def turn(self, *events: tuple[Peer, m.Message]) -> list[c.Command]:
        """These messages arrive in one turn."""
        return self.bench.scene_turn(*(e.Received(peer.peer, peer.hears().wrap(body)) for peer, body in events))

    def drain(self, seconds: float = 10.0) -> list[c.Command]:
        """Ask it to end."""
        return self.bench.scene_turn(e.Drain(seconds))
