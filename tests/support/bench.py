"""What the tests of the machines share: a bench that drives one machine by hand, and a wire between several."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.machine import Machine
from zmqpipeline.protocol.peers import Link

T = TypeVar("T")
TROUBLE = m.ErrorInfo("ValueError", "as planned")


class Bench:
    """One machine and a clock. Every event is followed by `check()`; what the machine answers is kept."""

    def __init__(self, machine: Machine, now: float = 100.0) -> None:
        self.machine: Any = machine
        self.now = now
        self.last: list[c.Command] = []
        self.all: list[c.Command] = []

    def tell(self, event: e.Event) -> list[c.Command]:
        """Let this happen now; the commands that it led to."""
        self.last = self.machine.handle(event, self.now)
        self.machine.check()
        self.all += self.last
        return self.last

    def wait(self, seconds: float) -> list[c.Command]:
        """Let time pass, with a Tick at each deadline and none besides, as the loop does it."""
        end = self.now + seconds
        found: list[c.Command] = []
        for _ in range(10_000):
            deadline = self.machine.next_deadline()
            if deadline is None or deadline > end:
                self.now = end
                self.last = found
                return found
            self.now = max(self.now, deadline)
            found += self.tell(e.Tick())
        raise AssertionError(f"the deadline {deadline} does not move on")

    def of(self, kind: type[T]) -> list[T]:
        """The last commands of this kind."""
        return [one for one in self.last if isinstance(one, kind)]

    def one(self, kind: type[T]) -> T:
        """The only one of the last commands of this kind."""
        (found,) = self.of(kind)
        return found

    def said(self, kind: type[T]) -> list[T]:
        """The last messages of this kind."""
        return [one.envelope.body for one in self.of(c.Send) if isinstance(one.envelope.body, kind)]

    def said_one(self, kind: type[T]) -> T:
        """The only one of the last messages of this kind."""
        (found,) = self.said(kind)
        return found

    def logged(self, level: int = 30) -> str:
        """The last log lines of this level and above."""
        return "\n".join(one.text for one in self.of(c.Log) if one.level >= level)

    @property
    def ended(self) -> c.Ended | None:
        """The Ended that the machine has said, if it has."""
        return next((one for one in self.all if isinstance(one, c.Ended)), None)


class Stranger:
    """The other side of one hop, played by hand: numbers its messages as a real one does."""

    _names = itertools.count(1)

    def __init__(self, bench: Bench, hop: str, route: bytes = b"", who: bytes | None = None) -> None:
        self.bench = bench
        self.peer: e.Peer = (hop, route)
        self.link = Link(who or b"p%d" % next(self._names))

    def says(self, body: m.Message) -> list[c.Command]:
        """This message arrives now."""
        return self.bench.tell(e.Received(self.peer, self.hears().wrap(body)))

    def hears(self) -> Link:
        """Take in all that the machine has sent here."""
        for one in self.bench.all:
            if isinstance(one, c.Send) and one.peer == self.peer:
                self.link.admit(one.envelope)
        return self.link

    def loses(self, body: m.Message) -> None:
        """This message is sent, and never arrives."""
        self.link.wrap(body)

    def reconnects(self, route: bytes) -> Stranger:
        """The same process on a new connection."""
        self.peer = (self.peer[0], route)
        return self

    def was_told(self, kind: type[T]) -> list[T]:
        """The last messages of this kind that were sent to this one."""
        sent = [one.envelope.body for one in self.bench.of(c.Send) if one.peer == self.peer]
        return [one for one in sent if isinstance(one, kind)]


@dataclass
class Joint:
    """A DEALER's end (`hop` of `client`) and the ROUTER's (`there`, connection `route` of `server`)."""

    client: Bench
    hop: str
    server: Bench
    there: str
    route: bytes


class Wires:
    """Benches joined to one another without a network: what one sends, the other receives, in order, at once."""

    def __init__(self, joints: Sequence[Joint]) -> None:
        self.joints = list(joints)
        self.rest: list[tuple[Bench, c.Command]] = []
        """Commands that are no messages, with the bench they came from."""

    def tell(self, bench: Bench, event: e.Event) -> None:
        """Let this happen, and all that follows from it."""
        queue = [(bench, one) for one in bench.tell(event)]
        while queue:
            sender, command = queue.pop(0)
            if not isinstance(command, c.Send):
                self.rest.append((sender, command))
                continue
            found = self._other_end(sender, command.peer)
            if found is not None:
                receiver, peer = found
                queue += [(receiver, one) for one in receiver.tell(e.Received(peer, command.envelope))]

    def _other_end(self, sender: Bench, peer: e.Peer) -> tuple[Bench, e.Peer] | None:
        for joint in self.joints:
            if sender is joint.client and peer == (joint.hop, b""):
                return joint.server, (joint.there, joint.route)
            if sender is joint.server and peer == (joint.there, joint.route):
                return joint.client, (joint.hop, b"")
        return None
