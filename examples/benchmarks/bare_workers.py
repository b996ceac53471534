"""Any number of workers in one process: the real worker machine for each, over two sockets, and no thread of its own.

SIGUSR1 has all of them break their connections and connect anew, at once.

They say that an item takes them a certain time, by which they are given work ahead, but answer at once: the benchmark
is about the processes that they talk to. Start them with ``python -m examples.benchmarks.bare_workers PLAN``.
"""

from __future__ import annotations

import json
import selectors
import signal
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

    def __init__(self, number: int, task: str, service: float, used: set[Socket]) -> None:
        """`service` is how long it says that an item takes, in seconds; `used` is shared by all workers."""
        incarnation = number.to_bytes(8, "big")
        self.machine = WorkerMachine(task, slots=1, incarnation=incarnation, host="bare", options=Options())
        self.sockets: dict[str, Socket] = {}
        self.used = used
        """Sockets that were sent on: their descriptors may not tell any more that something arrived."""
        self.ended = False
        self.due: float | None = 0.0
        """When its machine wants to be told of the time."""
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
        self.due = self.machine.next_deadline()

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

    def __init__(
        self, tasks: Sequence[str], count: int, service: float, addresses: dict[str, str], first: int = 0
    ) -> None:
        """Open the sockets of `count` workers, who take turns in serving the tasks; `first` is the number of one."""
        self._context: zmq.Context[Socket] = zmq.Context()
        # those that are closed go a moment later
        self._context.max_sockets = 4 * count + 16
        self._selector = selectors.DefaultSelector()
        self._places: dict[Socket, tuple[BareWorker, str]] = {}
        self._addresses = addresses
        self._storms = 0
        self._used: set[Socket] = set()
        self.workers: list[BareWorker] = []
        for number in range(first, first + count):
            self.workers.append(BareWorker(number, tasks[number % len(tasks)], service, self._used))
            self._connect(self.workers[-1])
        signal.signal(signal.SIGUSR1, self._storm)

    def _connect(self, worker: BareWorker) -> None:
        """Open its sockets."""
        worker.sockets.update({hop: self._open(address) for hop, address in self._addresses.items()})
        for hop, socket in worker.sockets.items():
            self._places[socket] = worker, hop
            self._selector.register(int(socket.getsockopt(zmq.FD)), selectors.EVENT_READ, socket)

    def _storm(self, *_: object) -> None:
        self._storms += 1

    def _reconnect(self) -> None:
        """All who have not ended lose both connections, and open new ones."""
        left = [worker for worker in self.workers if not worker.ended]
        for worker in left:
            for socket in worker.sockets.values():
                self._selector.unregister(int(socket.getsockopt(zmq.FD)))
                del self._places[socket]
                self._used.discard(socket)
                socket.close(linger=0)
            for hop in worker.sockets:
                worker.tell(e.Disconnected(hop))
            self._connect(worker)
        self._greet(left)

    def _open(self, address: str) -> Socket:
        socket = self._context.socket(zmq.DEALER)
        socket.rcvhwm = socket.sndhwm = 0
        socket.linger = 1000
        socket.immediate = 1  # so that one can send only when it is connected
        socket.connect(address)
        return socket

    def run(self) -> None:
        """Connect, all of them before the first says a word, and serve until the run has ended for all."""
        self._greet(self.workers)
        self._alive = list(self.workers)
        due, storms = time.monotonic(), 0
        while self._left():
            if self._storms > storms:
                storms += 1
                self._reconnect()
            self._read_used()
            for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
                self._read(key.data)
            if time.monotonic() >= due:
                due = self._tick()

    def _left(self) -> bool:
        """Whether a worker has not ended."""
        while self._alive and self._alive[-1].ended:
            self._alive.pop()
        return bool(self._alive)

    def _greet(self, workers: Sequence[BareWorker]) -> None:
        for worker in workers:
            for socket in worker.sockets.values():
                if not socket.poll(1000 * CONNECT_SECONDS, zmq.POLLOUT):
                    raise SystemExit("Not all of the workers could connect.")
        for worker in workers:
            for hop in worker.sockets:
                worker.tell(e.Connected(hop))

    def _read_used(self) -> None:
        while self._used:
            for socket in tuple(self._used):
                self._read(socket)

    def _read(self, socket: Socket) -> None:
        worker, hop = self._places[socket]
        worker.read(socket, hop)

    def _tick(self) -> float:
        now = time.monotonic()
        for worker in self.workers:
            if worker.due is not None and now >= worker.due:
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
    crowd = Crowd(plan["tasks"], plan["workers"], plan["service"], plan["addresses"], plan.get("first", 0))
    crowd.run()
    crowd.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
