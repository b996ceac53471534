"""What connections cost in plain pyzmq: a ROUTER, and any number of DEALERs that each say a few words and are answered.

Start it with ``python -m examples.benchmarks.bare_connections router COUNT``: it says its port, and then how many bytes
of memory it has come to since, once COUNT connections have said their words. Those are of processes
``python -m examples.benchmarks.bare_connections peers PORT COUNT``, which end with their standard input.
"""

from __future__ import annotations

import sys

import zmq

from examples.benchmarks.scale import raise_file_limit, resident

WORDS = 3
"""Of each peer, and as many answers: a worker that comes says, and hears, about as much."""

HEARTBEAT, TIMEOUT = 5000, 20_000
"""Milliseconds."""


def _context(sockets: int) -> zmq.Context[zmq.Socket[bytes]]:
    raise_file_limit()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, sockets + 100)
    return context


def router(count: int) -> None:
    """Answer all of them, and print what they cost."""
    with _context(1) as context, context.socket(zmq.ROUTER) as socket:
        socket.rcvhwm = socket.sndhwm = 0
        socket.backlog = 1024
        socket.heartbeat_ivl, socket.heartbeat_timeout = HEARTBEAT, TIMEOUT
        print(socket.bind_to_random_port("tcp://127.0.0.1"), flush=True)
        before = resident("self")
        for _ in range(WORDS * count):
            socket.send_multipart(socket.recv_multipart())
        print(resident("self") - before, flush=True)


def peers(port: int, count: int) -> None:
    """Connect so many, and have each say its words."""
    with _context(count) as context:
        sockets = [context.socket(zmq.DEALER) for _ in range(count)]
        for one in sockets:
            one.linger = 0
            one.heartbeat_ivl, one.heartbeat_timeout = HEARTBEAT, TIMEOUT
            one.connect(f"tcp://127.0.0.1:{port}")
        for _ in range(WORDS):
            for one in sockets:
                one.send(bytes(100))
            for one in sockets:
                one.recv()
        sys.stdin.read()
        for one in sockets:
            one.close()


if __name__ == "__main__":
    if sys.argv[1] == "router":
        router(int(sys.argv[2]))
    else:
        peers(int(sys.argv[2]), int(sys.argv[3]))
