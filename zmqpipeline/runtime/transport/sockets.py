"""The two kinds of socket that a hop is made of, each with its monitor.

A RouterSocket is a ROUTER: its peers are known from what they sent, and found gone by a probe (a message that asks
nothing) which the socket refuses to route. A DealerSocket is a DEALER: it reports its handshakes and breaks, keeps what
cannot be sent yet, and is opened anew where libzmq would not connect again. No state of the pipeline lives in either.

The poll waits for file descriptors, not for sockets: asking a socket costs system calls, and a monitor hardly ever has
anything. The descriptor of a socket tells that something changed, once: so it may be waited for only after the socket
was read until it was empty, and not used since. In all other cases the socket itself is asked (`is_ready`).
"""

from __future__ import annotations

import select
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

import zmq

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol.events import Connected, Disconnected, Peer, PeerLost
from zmqpipeline.runtime import bind, forks
from zmqpipeline.runtime.bind import Socket
from zmqpipeline.runtime.security.curve import SocketSecurity
from zmqpipeline.runtime.security.handshakes import Handshakes
from zmqpipeline.runtime.transport.monitor import BOUND_EVENTS, CONNECTING_EVENTS, FAILED, Monitor

Arrival: TypeAlias = Connected | Disconnected | PeerLost | tuple[Peer, list[bytes]]
"""What a poll finds: something about a connection, or the frames of a message and whom they are from."""

MESSAGES_A_TURN = 200
"""So many messages of one socket, and then the others have their turn."""

PROBE_DELAYS = (0.005, 0.05, 0.25)
"""Seconds after a break at which the peers are probed: libzmq often reports it before the connection is gone."""

PROBE_ROUNDS, PROBE_SECONDS = 8, 2.0
"""So many rounds of probes begin in so many seconds at most: strangers may make breaks as fast as they like."""

UNREAD = 10_000
UNREAD_ASIDE = 16
"""Messages that wait for a peer of a bound hop that does not read them; on hops that carry no items and no requests.

What comes then is dropped, which a peer that reads on sees as a gap.
"""

OUTBOX_LIMIT = 1024
"""Messages that an unconnected hop keeps; the oldest beyond that are dropped, which the far side sees as a gap."""

RETRY_GRACE = 1.0
"""Seconds within which libzmq says that it connects again; otherwise the socket is opened anew."""

BACKOFF_FIRST, BACKOFF_LAST = 0.1, 1.5
"""Seconds until a socket is opened anew after a failed handshake: doubled each time, up to the last.

The last one is short, since a key that was authorized meanwhile is to be used within 3 s.
"""


LARGE = 64 * 1024
"""A frame of so many bytes is sent without a copy; to copy a smaller one is cheaper."""

# Plain ints: to make an enum's member of the two costs more than the system call.
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _IN, _OUT = int(zmq.EVENTS), int(zmq.POLLIN), int(zmq.POLLOUT)


class Hop(ABC):
    """One socket and its monitor, under the name of its hop."""

    kind: int

    def __init__(
        self,
        name: str,
        address: EndpointAddress,
        options: Options,
        context: zmq.Context[Socket],
        poller: select.poll,
        shield: SocketSecurity,
    ) -> None:
        """Open nothing yet; `open` does."""
        self._shield = shield
        self._handshakes = Handshakes(is_bound=self.kind == zmq.ROUTER)
        self.name = name
        self.address = address
        self._options = options
        self._context = context
        self._poller = poller
        self._monitor: Monitor | None = None
        self._monitor_is_new = False
        self.file = -1
        self.files: set[int] = set()
        """What the poller waits for on behalf of this hop."""
        self._may_be_ready = True
        self.comes_alone = True
        """Whether the last messages came one by one."""

    def _new_socket(self, events: int) -> None:
        self.socket: Socket = self._context.socket(self.kind)
        bind.configure(self.socket, self.address, self._options)
        if self.kind == zmq.ROUTER:
            self.socket.sndhwm = UNREAD_ASIDE if self.name in ("status", "metadata") else UNREAD
        self.socket.maxmsgsize = 2 * (codec.payload_limit(self._options) + codec.MAX_STATE_BYTES)
        self._shield.apply(self.socket)
        if self.address.protocol != "inproc":
            self._monitor = Monitor(self._context, self.socket, events)
            self._poller.register(self._monitor.file, select.POLLIN)
            self._monitor_is_new = True
        self.file = int(self.socket.getsockopt(zmq.FD))
        self._poller.register(self.file, select.POLLIN)
        self.files = {self.file} if self._monitor is None else {self.file, self._monitor.file}
        self._may_be_ready = True

    def is_ready(self) -> bool:
        """Whether there is something to do now that the descriptor may not tell of."""
        if self._monitor_is_new:
            return True
        return self._may_be_ready and bool(self._happening() & self._wanted())

    def _happening(self) -> int:
        """What could be done with the socket now."""
        return self.socket.getsockopt(_EVENTS)  # type: ignore[return-value]

    def _wanted(self) -> int:
        return _IN

    def _messages(self) -> tuple[list[list[bytes]], bool]:
        """What has arrived, at most MESSAGES_A_TURN, and whether that was all."""
        messages: list[list[bytes]] = []
        self._may_be_ready = True
        try:
            for _ in range(MESSAGES_A_TURN):
                messages.append(self._message())
        except zmq.Again:
            self._may_be_ready = False
        return messages, not self._may_be_ready

    def _message(self) -> list[bytes]:
        """The frames of the next message; raises Again if none is there."""
        # Frame by frame, since a frame tells whether more follow; recv_multipart asks the socket for that each time.
        receive = self.socket.recv
        frame = receive(_NOBLOCK, False)
        frames = [frame.bytes]
        while frame.more:
            frame = receive(_NOBLOCK, False)
            # a large payload is read where it lies: unpacking, sending on and sqlite take any buffer for bytes
            frames.append(frame.bytes if len(frame) < LARGE else frame.buffer)  # type: ignore[arg-type]
        return frames

    def receive_one(self) -> list[Arrival]:
        """One message, if there is one. Whether there are more, `is_ready` tells, when the first is dealt with.

        To be told that a socket is empty costs more than to read the message: so a message that comes alone is not
        kept waiting for that.
        """
        self._may_be_ready = True
        try:
            return [self._arrival(self._message())]
        except zmq.Again:
            # what the descriptor told of may be that an outbox can be sent now
            self._may_be_ready = self._wanted() != _IN
            return []

    def _is_monitored(self, readable: set[int]) -> bool:
        """Whether the monitor has something to tell."""
        return self._monitor is not None and self._monitor.file in readable

    def _monitored(self, readable: set[int]) -> list[tuple[int, int]]:
        if self._monitor is None or not (self._monitor_is_new or self._monitor.file in readable):
            return []
        self._monitor_is_new = False
        return self._monitor.read()

    def _try_send(self, frames: Sequence[bytes]) -> None:
        self._may_be_ready = True
        send, last = self.socket.send, len(frames) - 1
        for index, frame in enumerate(frames):
            send(frame, _NOBLOCK if index == last else _MORE, len(frame) < LARGE)

    @abstractmethod
    def _arrival(self, frames: list[bytes]) -> Arrival:
        """A message, as the loop gets it."""

    @abstractmethod
    def gather(self, readable: set[int], now: float, *, ready: bool) -> list[Arrival]:
        """What came since the last call.

        `readable` are the descriptors that the poller named, `ready` is what `is_ready` said, `now` is time.monotonic.
        """

    @abstractmethod
    def next_time(self) -> float | None:
        """When `gather` has something to do although nothing arrives (time.monotonic); None for never."""

    @abstractmethod
    def send(self, connection: bytes, frames: list[bytes]) -> None:
        """Send without waiting; a connection that is gone is reported by `gather`."""

    def close(self, linger: float) -> None:
        """Close the socket; libzmq goes on sending what is queued for `linger` seconds."""
        if self._monitor is not None:
            self._poller.unregister(self._monitor.file)
            self._monitor.close()
            self._monitor = None
        self._poller.unregister(self.file)
        self.socket.close(linger=round(linger * 1000))


class RouterSocket(Hop):
    """A ROUTER. `probe` are the frames of the message that asks nothing."""

    kind = zmq.ROUTER
    probe: Sequence[bytes] = ()

    def open(self) -> None:
        """Bind. Raises EndpointInUse or EndpointError."""
        self._peers: set[bytes] = set()
        self._lost: dict[bytes, None] = {}
        self._is_to_probe = False
        self._unexplained = 0
        self._probe_times: list[float] = []
        self._rounds: deque[float] = deque(maxlen=PROBE_ROUNDS)
        self._new_socket(BOUND_EVENTS)
        self.socket.router_mandatory = True
        try:
            with forks.guard:
                self._lock = bind.bind(self.socket, self.address)
                self._bound = self.bound_address()
                forks.bound(self._bound)
        except ConfigurationError:
            super().close(0.0)
            raise

    def gather(self, readable: set[int], now: float, *, ready: bool) -> list[Arrival]:
        """Messages; then the peers that were found gone, once nothing of theirs can be waiting any more."""
        arrivals: list[Arrival] = []
        dry = True
        known_lost = self._lost
        if ready or self.file in readable:
            dry = self._receive(arrivals)
            self.comes_alone = len(arrivals) < 2 and not ready
        if known_lost and dry:
            arrivals += [PeerLost((self.name, peer)) for peer in known_lost]
            self._lost = {}
        breaks = 0
        for event, value in self._monitored(readable):
            if event == zmq.EVENT_DISCONNECTED:
                breaks += 1
            elif event & FAILED:
                self._handshakes.failed(event, value, now, self._shield.words)
        if breaks:
            self._unexplained += breaks
            self._is_to_probe = True
        if self._is_to_probe and (now >= self._next_round() or not self._probe_times):
            self._begin_round(max(now, self._next_round()))
        if self._probe_times and now >= self._probe_times[0]:
            self._probe_peers(now)
        return arrivals

    def _receive(self, arrivals: list[Arrival]) -> bool:
        messages, dry = self._messages()
        arrivals += map(self._arrival, messages)
        return dry

    def _arrival(self, frames: list[bytes]) -> Arrival:
        connection = frames.pop(0)
        if connection not in self._peers and connection not in self._lost:
            self._peers.add(connection)
        return (self.name, connection), frames

    def _next_round(self) -> float:
        """When the next round of probes may begin."""
        return self._rounds[0] + PROBE_SECONDS if len(self._rounds) == PROBE_ROUNDS else 0.0

    def _begin_round(self, at: float) -> None:
        self._is_to_probe = False
        # an earlier round may have taken the break that this one is for as explained
        self._unexplained = max(1, self._unexplained)
        self._rounds.append(at)
        self._probe_times = [at + delay for delay in PROBE_DELAYS]

    def _probe_peers(self, now: float) -> None:
        self._probe_times = [at for at in self._probe_times if at > now]
        for peer in tuple(self._peers):
            if not self._sent(peer, self.probe):
                self._unexplained -= 1
        if self._unexplained <= 0 or not self._probe_times:
            # Breaks of connections that never sent anything explain themselves.
            self._unexplained = 0
            self._probe_times = []

    def next_time(self) -> float | None:
        """Now if lost peers are to be reported or a round of probes begins, else when to probe again."""
        if self._lost or (self._is_to_probe and not self._probe_times):
            return 0.0
        return self._probe_times[0] if self._probe_times else None

    def send(self, connection: bytes, frames: list[bytes]) -> None:
        """Send to the peer of this connection, if it is still there."""
        self._sent(connection, frames)

    def _sent(self, connection: bytes, frames: Sequence[bytes]) -> bool:
        try:
            self._try_send((connection, *frames))
        except zmq.ZMQError as error:
            if error.errno == zmq.EAGAIN:
                # it does not read: the message is dropped, which it sees as a gap if it goes on
                return True
            if error.errno != zmq.EHOSTUNREACH:
                raise
            if connection in self._peers:
                self._peers.discard(connection)
                self._lost[connection] = None
            return False
        return True

    def bound_address(self) -> EndpointAddress:
        """Where it is really bound, with the port that the system chose."""
        return EndpointAddress(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def unbind(self) -> None:
        """Take no new connections, and wait (1 s at most) until the address is free."""
        self.socket.unbind(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))
        if self._monitor is not None:
            self._monitor.wait_for(zmq.EVENT_CLOSED, 1.0)

    def release(self) -> None:
        """Remove what an ipc address leaves in its folder; after the socket is closed."""
        forks.unbound(self._bound)
        if self._lock is not None:
            self._lock.remove_socket()
            self._lock.release()
            self._lock = None


class DealerSocket(Hop):
    """A DEALER."""

    kind = zmq.DEALER

    def open(self) -> None:
        """Begin to connect. Raises EndpointError if the address cannot be connected to at all."""
        self._peer = (self.name, b"")
        self._outbox: deque[list[bytes]] = deque(maxlen=OUTBOX_LIMIT)
        self._reopen_at: float | None = None
        self._failed = self._is_to_itself = False
        self._backoff = BACKOFF_FIRST
        self._connect()
        # Threads of one process share no connection that could break or be watched.
        self._connected = self._announce = self.address.protocol == "inproc"

    def _connect(self) -> None:
        self._connected = False
        self._reopen_at = None
        self._new_socket(CONNECTING_EVENTS)
        first, longest = bind.RECONNECT_NEAR if bind.is_near(self.address) else bind.RECONNECT_FAR
        self.socket.reconnect_ivl, self.socket.reconnect_ivl_max = first, longest
        try:
            bind.connect(self.socket, self.address)
        except ConfigurationError:
            super().close(0.0)
            raise

    def gather(self, readable: set[int], now: float, *, ready: bool) -> list[Arrival]:
        """Messages; then what became of the connection: they were sent before it broke."""
        arrivals: list[Arrival] = []
        if self._announce:
            self._announce = False
            arrivals.append(Connected(self.name))
        if ready or self.file in readable:
            messages, dry = self._messages()
            arrivals += map(self._arrival, messages)
            self.comes_alone = len(messages) < 2 and not ready
            if not dry:
                # what is still to be read was sent before the break that the monitor may tell of
                self._monitor_is_new = self._monitor_is_new or self._is_monitored(readable)
                return arrivals
        for event, value in self._monitored(readable):
            self._note(event, value, now, arrivals)
            if event & FAILED:
                self._handshakes.failed(event, value, now, self._shield.words)
        if self._reopen_at is not None and now >= self._reopen_at:
            self._reopen()
        if self._outbox and self._connected:
            self._flush()
        return arrivals

    def _arrival(self, frames: list[bytes]) -> Arrival:
        return self._peer, frames

    def _note(self, event: int, value: int, now: float, arrivals: list[Arrival]) -> None:
        if event == zmq.EVENT_CONNECTED and self.address.protocol == "tcp" and bind.is_to_itself(value):
            self._is_to_itself, self._reopen_at = True, now
        elif self._is_to_itself:
            pass  # it is closed in this turn, whatever has become of it
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._connected, self._failed, self._reopen_at = True, False, None
            self._backoff = BACKOFF_FIRST
            self._handshakes.succeeded()
            arrivals.append(Connected(self.name))
        elif event == zmq.EVENT_DISCONNECTED:
            self._break(now, arrivals)
        elif event == zmq.EVENT_CONNECT_RETRIED:
            if not self._failed:
                self._reopen_at = None
        elif event & FAILED and not self._failed:
            self._failed = True
            self._reopen_at = now + self._backoff
            self._backoff = min(2 * self._backoff, BACKOFF_LAST)

    def _break(self, now: float, arrivals: list[Arrival]) -> None:
        if self._connected:
            self._connected = False
            self._outbox.clear()
            arrivals.append(Disconnected(self.name))
        if self._reopen_at is None:
            self._reopen_at = now + RETRY_GRACE

    def _reopen(self) -> None:
        super().close(0.0)
        self._failed = self._is_to_itself = False
        self._connect()

    def next_time(self) -> float | None:
        """Now if a connection is to be announced, else when the socket is to be opened anew."""
        return 0.0 if self._announce else self._reopen_at

    def send(self, connection: bytes, frames: list[bytes]) -> None:
        """Send, or keep it in the outbox until there is a connection."""
        if self._outbox or not self._connected:
            self._outbox.append(frames)
            return
        try:
            self._try_send(frames)
        except zmq.Again:
            self._outbox.append(frames)

    def _flush(self) -> None:
        try:
            while self._outbox:
                self._try_send(self._outbox[0])
                self._outbox.popleft()
        except zmq.Again:
            pass  # The socket says when it can go on.

    def _wanted(self) -> int:
        return _IN | _OUT if self._outbox and self._connected else _IN

    def close(self, linger: float) -> None:
        """Hand libzmq what is left in the outbox, and close; without a connection there is nothing to wait for."""
        if self._connected and self._outbox:
            self._flush()
        super().close(linger if self._connected else 0.0)
