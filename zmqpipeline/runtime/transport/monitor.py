"""What libzmq reports about the connections of one socket, read from its monitor."""

from __future__ import annotations

import itertools
import struct

import zmq

FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
"""The handshake came to nothing; libzmq may never try again."""

BOUND_EVENTS = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | FAILED
"""What a bound side watches: connections that break, handshakes that fail, and its listener being closed."""

CONNECTING_EVENTS = (
    zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED | FAILED
)
"""What a connecting side watches: its connections (their value is the descriptor), handshakes, breaks, and that libzmq
goes on trying."""

_EVENT = struct.Struct("=HI")
"""The first frame is the event's number and its value (zmq_socket_monitor(3)). pyzmq's parser would import asyncio."""

_names = itertools.count()


class Monitor:
    """The monitor of one socket. Its descriptor, `file`, tells when there is something; `read` empties it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], watched: zmq.Socket[bytes], events: int) -> None:
        """Watch `events` (EVENT_ constants, or-ed) of `watched` from now on."""
        self._watched = watched
        address = f"inproc://zmqpipeline-monitor-{next(_names)}"
        watched.monitor(address, events)
        self.socket: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        # libzmq blocks its own thread when a monitor is full.
        self.socket.rcvhwm = 0
        self.socket.linger = 0
        self.socket.connect(address)
        self.file = int(self.socket.getsockopt(zmq.FD))

    def read(self) -> list[tuple[int, int]]:
        """The events that came since the last call with their values, in order, without waiting."""
        events: list[tuple[int, int]] = []
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return events
            events.append(_EVENT.unpack_from(frames[0]))

    def wait_for(self, event: int, seconds: float) -> bool:
        """Whether `event` comes within `seconds`; the events before it are dropped."""
        while self.socket.poll(int(seconds * 1000)):
            if event in (one for one, _ in self.read()):
                return True
        return False

    def close(self) -> None:
        """Stop watching; call it before the watched socket is closed."""
        self._watched.disable_monitor()
        self.socket.close(linger=0)
