"""Any number of workers in one process: the real worker machine for each, over two sockets, and no thread of its own.

They say that an item takes them a certain time, by which they are given work ahead, but answer at once: the benchmark
is about the processes that they talk to. Start them with ``python -m examples.benchmarks.bare_workers PLAN``.
"""

from __future__ import annotations

import json
import selectors
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import zmq

from examples.benchmarks.work import double
from zmqpipeline import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol.worker import WorkerMachine
from zmqpipeline.serialization.pack import pack_item, unpack

TICK = 0.05
"""How often the machines' deadlines are looked at, in seconds."""

CONNECT_SECONDS = 60
"""Within so many seconds all must be connected."""

Socket = zmq.Socket[bytes]


class BareWorker:
    """One worker: its machine, and a DEALER for each of its two hops."""

    def __init__(self, number: int, task: str, service: float, sockets: dict[str, Socket]) -> None:
        """`service` is how long it says that an item takes, in seconds."""
        incarnation = number.to_bytes(8, "big")
        self.machine = WorkerMachine(task, slots=1, incarnation=incarnation, host="bare", options=Options())
        self.sockets = sockets
        self.used: set[Socket] = set()
        """Sockets that it has sent on: their descriptors may not tell any more that something arrived."""
        self.ended = False
        self._service = service
        self._encode = codec.Encoder().encode

    def tell(self, event: e.Event) -> None:
        """An event for the machine; what it answers is done at once."""
        events = deque([event])
        while events and not self.ended:
            for command in self.machine.handle(events.popleft(), time.monotonic()):
                match command:
                    case c.Send((hop, _), envelope):
                        self.sockets[hop].send_multipart(self._encode(envelope), zmq.NOBLOCK)
                        self.used.add(self.sockets[hop])
                    case c.Execute():
                        events.append(self._executed(command))
                    case c.TakeBack():
                        events.append(e.TakenBack([]))
                    case c.Ended():
                        self.ended = True

    def _executed(self, command: c.Execute) -> e.Executed:
        results = [pack_item(double(unpack(one)), "double") for one in command.payloads]
        return e.Executed(command.attempt, command.numbers, results, [], self._service * len(results))

    def read(self, socket: Socket, hop: str) -> None:
        """Take everything that has arrived on this socket."""
        self.used.discard(socket)
        while not self.ended:
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.tell(e.Received((hop, b""), codec.decode(frames)))


class Crowd:
    """All of them, and the loop that they share."""

    def __init__(self, tasks: Sequence[str], count: int, service: float, addresses: dict[str, str]) -> None:
        """Open the sockets of `count` workers, who take turns in serving the tasks."""
        self._context: zmq.Context[Socket] = zmq.Context()
        self._context.max_sockets = 2 * count + 16
        self._selector = selectors.DefaultSelector()
        self._places: dict[Socket, tuple[BareWorker, str]] = {}
        self.workers = []
        for number in range(count):
            sockets = {hop: self._open(address) for hop, address in addresses.items()}
            worker = BareWorker(number, tasks[number % len(tasks)], service, sockets)
            self.workers.append(worker)
            for hop, socket in sockets.items():
                self._places[socket] = worker, hop
                self._selector.register(int(socket.getsockopt(zmq.FD)), selectors.EVENT_READ, socket)

    def _open(self, address: str) -> Socket:
        socket = self._context.socket(zmq.DEALER)
        socket.rcvhwm = socket.sndhwm = 0
        socket.linger = 1000
        socket.immediate = 1  # so that one can send only when it is connected
        socket.connect(address)
        return socket

    def run(self) -> None:
        """Connect, all of them before the first says a word, and serve until the run has ended for all."""
        for socket in self._places:
            if not socket.poll(1000 * CONNECT_SECONDS, zmq.POLLOUT):
                raise SystemExit("Not all of the workers could connect.")
        for worker in self.workers:
            for hop in worker.sockets:
                worker.tell(e.Connected(hop))
        due = time.monotonic()
        while any(not worker.ended for worker in self.workers):
            self._read_used()
            for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
                self._read(key.data)
            if time.monotonic() >= due:
                due = self._tick()

    def _read_used(self) -> None:
        while used := [socket for worker in self.workers for socket in worker.used]:
            for socket in used:
                self._read(socket)

    def _read(self, socket: Socket) -> None:
        worker, hop = self._places[socket]
        worker.read(socket, hop)

    def _tick(self) -> float:
        now = time.monotonic()
        for worker in self.workers:
            deadline = worker.machine.next_deadline()
            if not worker.ended and deadline is not None and now >= deadline:
                worker.tell(e.Tick())
        return now + TICK

    def close(self) -> None:
        """Close all sockets."""
        self._selector.close()
        for socket in self._places:
            socket.close()
        self._context.term()


def main(plan: dict[str, Any]) -> None:
    """Run the workers that the plan asks for."""
    crowd = Crowd(plan["tasks"], plan["workers"], plan["service"], plan["addresses"])
    crowd.run()
    crowd.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
