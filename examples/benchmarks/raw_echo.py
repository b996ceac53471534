"""The yardstick of the service benchmark: DEALER - ROUTER - ROUTER - DEALER in plain pyzmq and msgpack.

It is as thin as such a thing can be: no time-outs, nothing is noticed, nothing is sent again.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

import msgpack
import zmq

READY = b"ready"


def broker(folder: str) -> None:
    """Route requests to the one worker, and its replies back, until killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    front.bind(f"ipc://{folder}/front")
    back.bind(f"ipc://{folder}/back")
    worker = back.recv_multipart()[0]
    poller = zmq.Poller()
    poller.register(front, zmq.POLLIN)
    poller.register(back, zmq.POLLIN)
    while True:
        for socket, _ in poller.poll():
            if socket is front:
                back.send_multipart([worker, *front.recv_multipart()])
            else:
                front.send_multipart(back.recv_multipart()[1:])


def worker(folder: str) -> None:
    """Answer each request with itself, until killed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.connect(f"ipc://{folder}/back")
    socket.send(READY)
    while True:
        client, payload = socket.recv_multipart()
        data = msgpack.unpackb(payload)
        socket.send_multipart([client, msgpack.packb(data)])


class Client:
    """Asks one request after the other, or a window of them at a time."""

    def __init__(self, folder: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.connect(f"ipc://{folder}/front")

    def ask(self, data: dict[str, Any]) -> Any:
        """The reply to one request."""
        self._socket.send(msgpack.packb(data))
        return msgpack.unpackb(self._socket.recv())

    def ask_many(self, requests: list[dict[str, Any]], window: int) -> list[Any]:
        """The replies to all, with at most `window` of them under way; one worker answers in order."""
        socket, replies = self._socket, []
        waiting = iter(requests)
        for data in itertools.islice(waiting, window):
            socket.send(msgpack.packb(data))
        for data in waiting:
            replies.append(msgpack.unpackb(socket.recv()))
            socket.send(msgpack.packb(data))
        while len(replies) < len(requests):
            replies.append(msgpack.unpackb(socket.recv()))
        return replies

    def close(self) -> None:
        """Close."""
        self._socket.close(0)
        self._context.term()


if __name__ == "__main__":
    {"broker": broker, "worker": worker}[sys.argv[1]](sys.argv[2])
