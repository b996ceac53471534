"""Broker, clients and workers, the real machines, over connections that lose, double and break; for test_service_chaos.

Messages of one connection keep their order, as ZeroMQ has it; between connections everything may happen in any order.
A thread of a worker is a queue; time passes only when the test says so.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.services.broker import ServiceMachine
from zmqpipeline.protocol.services.client import ClientMachine
from zmqpipeline.protocol.worker import WorkerMachine

SERVICES = {"once": False, "often": True}
"""The services, and whether a request of them may be executed twice."""

OPTIONS = Options(max_queued_requests=50)


class Node:
    """A process: its machine, and for a client or worker its one connection to the broker."""

    def __init__(self, world: World, machine: Any, hop: str) -> None:
        self.world, self.machine, self.hop = world, machine, hop
        self.is_up = True
        self.line: Line | None = None

    def tell(self, event: e.Event) -> None:
        """An event, and the end of its turn."""
        if not self.is_up:
            return
        self._handle(event)
        deadline = self.machine.next_deadline()
        while self.is_up and deadline is not None and deadline <= self.world.now:
            self._handle(e.Tick())
            deadline = self.machine.next_deadline()

    def _handle(self, event: e.Event) -> None:
        for command in self.machine.handle(event, self.world.now):
            self.perform(command)
        self.machine.check()

    def perform(self, command: c.Command) -> None:
        """What all nodes do."""
        if isinstance(command, c.Send):
            self.send(command.peer, codec.encode(command.envelope))
        elif isinstance(command, c.Ended):
            self.is_up = False

    def send(self, peer: e.Peer, frames: list[bytes]) -> None:
        """A message to the broker, if there is a connection."""
        if self.line is not None:
            self.line.to_broker.append(frames)


class Line:
    """One connection."""

    def __init__(self, node: Node, route: bytes) -> None:
        self.node, self.peer = node, (node.hop, route)
        self.to_broker: deque[list[bytes]] = deque()
        self.to_node: deque[list[bytes]] = deque()

    def queue(self, upwards: bool) -> deque[list[bytes]]:
        """What is on its way to the broker, or from it."""
        return self.to_broker if upwards else self.to_node


class BrokerNode(Node):
    """The broker: many connections."""

    def send(self, peer: e.Peer, frames: list[bytes]) -> None:
        line = self.world.lines.get(peer)
        if line is not None:
            line.to_node.append(frames)


class ClientNode(Node):
    """A client; `open` are its requests without an outcome, `outcomes` how the others ended."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, ClientMachine(incarnation=world.incarnation()), "clients")
        self.name = name
        self.numbers = itertools.count()
        self.open: dict[int, bytes] = {}
        self.outcomes: dict[int, str] = {}

    def submit(self, service: str, count: int, timeout: float | None) -> None:
        """New requests, each with a payload that no other has."""
        numbers = [next(self.numbers) for _ in range(count)]
        payloads = [f"{service} {self.name} {number}".encode() for number in numbers]
        self.open.update(zip(numbers, payloads, strict=True))
        self.tell(e.Submit(service, numbers, payloads, timeout))

    def withdraw(self) -> None:
        """Take back the oldest open request, as a cancelled future does."""
        if self.open:
            number = min(self.open)
            self.end(number, "withdrawn")
            self.tell(e.Withdraw([number]))

    def perform(self, command: c.Command) -> None:
        match command:
            case c.Resolve(numbers, payloads):
                for number, payload in zip(numbers, payloads, strict=True):
                    assert payload == b"answer to " + self.open[number], "an answer to another request"
                    self.end(number, "answered")
            case c.Reject(numbers, kind, trouble):
                assert trouble.message, "a refusal without a reason"
                for number in numbers:
                    self.end(number, kind)
            case _:
                super().perform(command)

    def end(self, number: int, outcome: str) -> None:
        """This request has its outcome, the only one."""
        assert number in self.open, f"request {number} was {self.outcomes.get(number)}, and now {outcome}"
        del self.open[number]
        self.outcomes[number] = outcome


class WorkerNode(Node):
    """A worker with one thread."""

    def __init__(self, world: World, service: str) -> None:
        machine = WorkerMachine(
            service, slots=1, incarnation=world.incarnation(), answers=True, idempotent=SERVICES[service]
        )
        super().__init__(world, machine, "workers")
        self.service = service
        self.queue: deque[tuple[int, int, bytes]] = deque()
        self.running: tuple[int, int, bytes] | None = None

    def perform(self, command: c.Command) -> None:
        match command:
            case c.Execute(_, attempt, _, numbers, payloads):
                self.queue.extend((n, attempt, one) for n, one in zip(numbers, payloads, strict=True))
            case c.TakeBack():
                numbers = [number for number, _, _ in self.queue]
                self.queue.clear()
                self.world.later.append((self, e.TakenBack(numbers)))
            case _:
                super().perform(command)

    def execute(self, outcome: str) -> None:
        """The thread goes on: it begins a request, and answers, raises or dies of it, or is not through with it yet."""
        if not (self.queue or self.running) or not self.is_up:
            return
        if self.running is None:
            self.running = self.queue.popleft()
            self.world.executed[self.running[2]] += 1
            if outcome == "takes long":
                return
        (number, attempt, payload), self.running = self.running, None
        if outcome == "dies":
            self.world.kill_worker(self)
        elif outcome == "raises":
            self.tell(e.Executed(attempt, [], [], [(number, m.ErrorInfo("ValueError", "as planned"))], 0.001))
        else:
            self.tell(e.Executed(attempt, [number], [b"answer to " + payload], [], 0.001))


class World:
    """All of them, and the connections between."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.lines: dict[e.Peer, Line] = {}
        self.executed: Counter[bytes] = Counter()
        self.later: list[tuple[Node, e.Event]] = []
        """Events that a process posts to itself, or hears of later."""
        self._numbers = itertools.count(1)
        self.broker = self._new_broker()
        self.clients = [ClientNode(self, name) for name in ("a", "b")]
        self.workers: list[WorkerNode] = []
        for service in ("once", "once", "often", "often"):
            self.add_worker(service)
        for node in self.nodes():
            self.connect(node)
        self.deliver_all()

    def incarnation(self) -> bytes:
        """An id that no other life of a process has."""
        return b"%08d" % next(self._numbers)

    def _new_broker(self) -> BrokerNode:
        machine = ServiceMachine(incarnation=self.incarnation(), options=OPTIONS, rng=random.Random(0))
        return BrokerNode(self, machine, "")

    def nodes(self) -> list[Node]:
        """Clients and workers that are up."""
        return [one for one in (*self.clients, *self.workers) if one.is_up]

    def add_worker(self, service: str) -> None:
        """Another worker; it is not connected yet."""
        self.workers.append(WorkerNode(self, service))

    def connect(self, node: Node) -> None:
        """A new connection, if there is none."""
        if node.line is None and node.is_up and self.broker.is_up:
            node.line = Line(node, b"%08d" % next(self._numbers))
            self.lines[node.line.peer] = node.line
            node.tell(e.Connected(node.hop))

    def cut(self, node: Node, *, at_once: bool = True) -> None:
        """Break a connection: what is under way is lost; the broker hears of it now or later."""
        line, node.line = node.line, None
        if line is None:
            return
        del self.lines[line.peer]
        node.tell(e.Disconnected(node.hop))
        if at_once:
            self.broker.tell(e.PeerLost(line.peer))
        else:
            self.later.append((self.broker, e.PeerLost(line.peer)))

    def deliver(self, line: Line, *, upwards: bool, fate: str = "arrives") -> None:
        """The next message of a connection arrives, twice, or never."""
        queue = line.queue(upwards)
        if not queue:
            return
        frames = queue.popleft()
        for _ in range({"lost": 0, "arrives": 1, "doubled": 2}[fate]):
            envelope = codec.decode(frames)
            if upwards:
                self.broker.tell(e.Received(line.peer, envelope))
            else:
                line.node.tell(e.Received((line.node.hop, b""), envelope))

    def hear_later(self) -> None:
        """What was posted or noticed is told now."""
        later, self.later = self.later, []
        for node, event in later:
            node.tell(event)

    def kill_worker(self, worker: WorkerNode, *, at_once: bool = True) -> None:
        """SIGKILL."""
        worker.is_up = False
        worker.queue.clear()
        self.cut(worker, at_once=at_once)

    def restart_broker(self, *, first: Sequence[Node] = ()) -> None:
        """SIGKILL, and a new one, to which these connect first."""
        self.broker.is_up = False
        for node in self.nodes():
            self.cut(node)
        self.broker = self._new_broker()
        self.broker.tell(e.Tick())
        for node in first:
            self.connect(node)
        self.deliver_all()

    def pass_time(self, seconds: float) -> None:
        """Let time pass; every deadline on the way is met."""
        end = self.now + seconds
        while True:
            nodes = [one for one in (self.broker, *self.nodes()) if one.is_up]
            times = [at for one in nodes if (at := one.machine.next_deadline()) is not None]
            self.now = min([end, *(max(at, self.now) for at in times)])
            for one in nodes:
                at = one.machine.next_deadline()
                if at is not None and at <= self.now:
                    one.tell(e.Tick())
            if self.now >= end:
                return

    def execute_all(self) -> None:
        """The workers do all that they have."""
        for worker in self.workers:
            while (worker.queue or worker.running) and worker.is_up:
                worker.execute("answers")

    def settle(self) -> None:
        """From here on all goes well: everything is delivered, executed, connected, until nothing is open."""
        for _ in range(60):
            if not self.broker.is_up:
                self.restart_broker()
            self.hear_later()
            for service in SERVICES:
                if not any(one.service == service and one.is_up for one in self.workers):
                    self.add_worker(service)
            for node in self.nodes():
                self.connect(node)
            self.deliver_all()
            self.execute_all()
            self.deliver_all()
            if not any(client.open for client in self.clients):
                return
            self.pass_time(0.5)
        raise AssertionError(f"still open: {[client.open for client in self.clients]}")

    def deliver_all(self) -> None:
        """Everything that is under way arrives, and whatever follows from it."""
        while any(line.to_broker or line.to_node for line in self.lines.values()):
            for line in list(self.lines.values()):
                for upwards in (True, False):
                    self.deliver(line, upwards=upwards)
