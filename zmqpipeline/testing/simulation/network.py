"""The simulated network and what every simulated process has in common.

Messages go through the real wire format, and are lost, doubled and delayed; connections break, and each side hears of
it in its own time; a process is killed, or frozen, or ends in good order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zmqpipeline.protocol import codec
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.machine import Machine

if TYPE_CHECKING:
    from zmqpipeline.testing.simulation.clock import Stage

CHECKED_EACH = 400
"""So many events of a process are each followed by `Machine.check`; from then on every fourth is."""


class Connection:
    """One connection of a DEALER (client) to a ROUTER (server); in order, unless it breaks."""

    def __init__(self, stage: Stage, client: Node, hop: str, server: Node, there: str) -> None:
        self.stage, self.client, self.hop, self.server, self.there = stage, client, hop, server, there
        self.id = b"%06d" % stage.serial()
        self.alive = True
        self.clear: dict[bool, float] = {True: 0.0, False: 0.0}
        self.deaf_from: dict[bool, float] = {True: 0.0, False: 0.0}
        """Once broken, until when what was under way still arrives in each direction."""
        self.blocked_until = 0.0
        """Until when nothing goes through; what is sent meanwhile comes afterwards, as TCP has it."""
        self.lag = stage.weather.delay * (1 + stage.weather.uneven * stage.rng.random() ** 2)

    def carry(self, to_server: bool, envelope: m.Envelope) -> None:
        """Deliver this later, or never, or twice."""
        stage = self.stage
        weather, rng = stage.weather, stage.rng
        for _ in range(2 if rng.random() < weather.double else 1):
            if rng.random() < weather.lose:
                stage.note("lost", type(envelope.body).__name__)
                continue
            at = max(self.clear[to_server], self.blocked_until, stage.now + self.lag * (0.5 + rng.random()))
            self.clear[to_server] = at
            stage.at(at, lambda: self._arrive(to_server, envelope))

    def _arrive(self, to_server: bool, envelope: m.Envelope) -> None:
        if not self.alive and self.stage.now >= self.deaf_from[to_server]:
            return
        node, peer = (self.server, (self.there, self.id)) if to_server else (self.client, (self.hop, b""))
        # Through the wire and back, so that a message that cannot be encoded is found here.
        node.tell(e.Received(peer, codec.decode(codec.encode(envelope))))

    def cut(self) -> None:
        """Break; each side hears of it in its own time, and may until then still read what had arrived."""
        if not self.alive:
            return
        self.alive = False
        stage, rng = self.stage, self.stage.rng
        server, client, peer = self.server, self.client, (self.there, self.id)
        lost_at, broken_at = rng.choice([0.02, 0.3, 2.5]) * rng.random(), 0.3 * rng.random()
        if rng.random() < 0.5:
            self.deaf_from = {True: stage.now + lost_at, False: stage.now + broken_at}
        server.routes.pop(peer, None)
        stage.after(lost_at, lambda: server.tell(e.PeerLost(peer)))
        if client.running:
            client.is_cut_off()
            client.dealers[self.hop] = None
            stage.after(broken_at, lambda: client.tell(e.Disconnected(self.hop)))
            stage.after(broken_at + 0.05 + rng.random(), lambda: client.connect(self.hop))


class Node:
    """A role: its machine, its connections, and its clock."""

    def __init__(self, stage: Stage, name: str, machine: Any) -> None:
        self.stage, self.name, self.machine = stage, name, machine
        self.front: Machine = stage.front_of(machine)
        """What events go to: the machine, or who looks on."""
        self.running = True
        self.frozen = False
        self.missed: list[e.Event] = []
        self.ended: c.Ended | None = None
        self.dealers: dict[str, Connection | None] = {}
        self.routes: dict[e.Peer, Connection] = {}
        self.targets: dict[str, tuple[Callable[[], Node], str]] = {}
        self.armed: float | None = None
        self.cut_off_until: dict[str, float] = {}
        self.events = 0

    def connect(self, hop: str) -> None:
        """The DEALER of this hop connects to the node that serves it, at once or when that one is up."""
        if not self.running or self.dealers.get(hop) is not None:
            return
        find, there = self.targets[hop]
        server = find()
        if self.stage.now < self.cut_off_until.get(hop, 0.0):
            self.stage.after(0.5, lambda: self.connect(hop))
            return
        if not server.running or server.frozen or self.frozen:
            self.stage.after(0.5, lambda: self.connect(hop))
            return
        connection = Connection(self.stage, self, hop, server, there)
        self.dealers[hop] = connection
        server.routes[there, connection.id] = connection
        self.tell(e.Connected(hop))

    def cut_off(self, hop: str, seconds: float) -> None:
        """Nothing goes through on this hop for so long; heartbeats go unanswered for two seconds of it."""
        self.cut_off_until[hop] = self.stage.now + seconds
        connection = self.dealers.get(hop)
        if connection is not None:
            connection.blocked_until = self.cut_off_until[hop]
            if seconds >= 2.0:
                self.stage.after(2.0, connection.cut)

    def is_cut_off(self) -> None:
        """A connection that this role made has just broken; it does not know yet."""

    def connections(self) -> list[Connection]:
        """All that are up, of either side."""
        return [one for one in (*self.dealers.values(), *self.routes.values()) if one is not None]

    def tell(self, event: e.Event) -> None:
        """An event for the machine; a frozen process sees it when it thaws."""
        if not self.running:
            return
        if self.frozen:
            self.missed.append(event)
            return
        for command in self.front.handle(event, self.stage.now):
            self.perform(command)
        self.events += 1
        if self.events <= CHECKED_EACH or self.events % 4 == 0:
            self.machine.check()
        self.arm()

    def arm(self) -> None:
        """Set the timer to the machine's deadline."""
        deadline = self.machine.next_deadline()
        if deadline is None or (self.armed is not None and self.armed <= deadline):
            return
        at = self.armed = max(deadline, self.stage.now)
        self.stage.at(at, lambda: self.tick(at))

    def tick(self, at: float) -> None:
        """The timer, if it was not set anew since: an old one that armed another would never die out."""
        if self.running and at == self.armed:
            self.armed = None
            self.tell(e.Tick())

    def perform(self, command: c.Command) -> None:
        """Carry out what every role has in common."""
        match command:
            case c.Send(peer, envelope):
                self.send(peer, envelope)
            case c.Log(level, text):
                self.stage.log(self.name, level, text)
            case c.Ended():
                self.ended = command
                self.stop()
            case _:
                self.act(command)

    def send(self, peer: e.Peer, envelope: m.Envelope) -> None:
        """A ROUTER finds out when a peer is gone; a DEALER without a connection loses what it sends."""
        hop, route = peer
        connection = self.routes.get(peer) if route else self.dealers.get(hop)
        if connection is not None:
            connection.carry(not route, envelope)
        elif route:
            self.stage.after(0.0, lambda: self.tell(e.PeerLost(peer)))

    def act(self, command: c.Command) -> None:
        """Carry out a command of this role."""
        raise TypeError(f"{self.name} cannot do {type(command).__name__}")

    def stop(self) -> None:
        """The process ended in good order: what was sent before is still delivered, since sockets linger."""
        self.running = False
        for connection in self.connections():
            self.stage.after(1.0, connection.cut)

    def kill(self) -> None:
        """SIGKILL: nothing that was queued is delivered."""
        self.running = False
        for connection in self.connections():
            connection.cut()

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds; heartbeats go unanswered for two of them."""
        self.frozen = True
        for connection in self.connections():
            self.stage.after(2.0, connection.cut)
        self.stage.after(seconds, self.thaw)

    def thaw(self) -> None:
        """Go on with what came in the meantime."""
        self.frozen = False
        missed, self.missed = self.missed, []
        for event in missed:
            self.tell(event)
        self.armed = None
        if self.running:
            self.tell(e.Tick())
