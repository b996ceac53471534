"""The sockets of one role, by the names of its hops.

Everything here happens on the one thread that runs the role's loop; only `Transport.wake` may be called from others.
"""

from __future__ import annotations

import math
import select
import threading
import time
import weakref
from types import TracebackType

import zmq

from zmqpipeline.addresses import EndpointAddress
from zmqpipeline.options import Options
from zmqpipeline.protocol import codec
from zmqpipeline.protocol.events import Peer
from zmqpipeline.protocol.messages import Envelope, Probe
from zmqpipeline.runtime.bind import Socket
from zmqpipeline.runtime.security.curve import Security, SocketSecurity
from zmqpipeline.runtime.security.issued import NO_RUN_KEYS, RunKeys
from zmqpipeline.runtime.security.zap import ZapHandler
from zmqpipeline.runtime.transport.sockets import Arrival, DealerSocket, Hop, RouterSocket
from zmqpipeline.runtime.transport.wakeup import Waker

Context = zmq.Context[Socket]
"""A context whose sockets receive bytes."""


_shared: list[Context] = []
_shared_lock = threading.Lock()


def shared_context() -> Context:
    """The one context of this process for inproc addresses, which only sockets of one context can share.

    It is never terminated, since nobody knows who still uses it. May be called from any thread.
    """
    with _shared_lock:
        if not _shared:
            _shared.append(zmq.Context())
        return _shared[0]


_open: weakref.WeakSet[Transport] = weakref.WeakSet()


def open_transports() -> list[Transport]:
    """Those of this process that are not closed, for tests of what is left behind. May be called from any thread."""
    with _shared_lock:
        return list(_open)


class Transport:
    """Opens, polls and closes the sockets of a role."""

    def __init__(self, options: Options, *, context: Context | None = None, run_keys: RunKeys = NO_RUN_KEYS) -> None:
        """Without a `context` it makes its own and terminates it; for inproc addresses pass `shared_context()`.

        Sockets with keys are always in one of its own: libzmq asks one gate a context who is let in.
        """
        self.options = options
        self._given = context
        self._own: Context | None = None
        self._gate: ZapHandler | None = None
        self._security = Security(options, self._open_gate, run_keys)
        self._hops: dict[str, Hop] = {}
        self._order: list[Hop] = []
        self._poller = select.poll()
        self._waker = Waker()
        self._poller.register(self._waker.file, select.POLLIN)
        self._closed = False
        with _shared_lock:
            _open.add(self)

    def __enter__(self) -> Transport:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close."""
        self.close()

    def bind(self, hop: str, address: EndpointAddress) -> None:
        """Bind a ROUTER under this name.

        Raises:
            EndpointInUse: another process, or another role of this one, is bound to the address.
            EndpointError: it cannot be bound here: the path is too long, no such folder or interface, no permission.
            KeysError: keys are missing or wrong, or other machines could reach it and there are no keys.
        """
        shield = self._security.bound(hop, address)
        bound = RouterSocket(hop, address, self.options, self._context(shield), self._poller, shield)
        bound.probe = codec.encode(Envelope(sender=b"", addressee=b"", number=0, received=0, body=Probe()))
        bound.open()
        self._add(hop, bound)

    def connect(self, hop: str, address: EndpointAddress) -> None:
        """Connect a DEALER under this name, now if somebody is bound there, else as soon as somebody is.

        Raises:
            EndpointError: nobody can ever be reached at this address.
            KeysError: keys are missing or wrong.
        """
        shield = self._security.connected(hop, address)
        connected = DealerSocket(hop, address, self.options, self._context(shield), self._poller, shield)
        connected.open()
        self._add(hop, connected)

    def _context(self, shield: SocketSecurity) -> Context:
        return self._own_context() if self._given is None or shield.protects else self._given

    def _own_context(self) -> Context:
        if self._own is None:
            self._own = zmq.Context(self.options.io_threads)
        return self._own

    def _open_gate(self) -> ZapHandler:
        if self._gate is None:
            self._gate = ZapHandler(self._own_context(), self._poller)
        return self._gate

    def _add(self, name: str, hop: Hop) -> None:
        self._hops[name] = hop
        self._order = list(self._hops.values())

    def address(self, hop: str) -> EndpointAddress:
        """The address of a hop; of a bound one with the port that the system chose."""
        found = self._hops[hop]
        return found.bound_address() if isinstance(found, RouterSocket) else found.address

    def poll(self, timeout: float | None) -> list[Arrival]:
        """Wait until something arrives, `wake` is called, or `timeout` (seconds; None: for ever) is over.

        Returns what came, per hop in order: ``(peer, frames)`` for a message, Connected, Disconnected or PeerLost. It
        may be empty.
        """
        ready = [hop for hop in self._order if hop.is_ready()]
        if ready:
            found = self._poller.poll(0)
        else:
            wait, is_timed = self._milliseconds(timeout)
            found = self._poller.poll(wait)
            if len(found) == 1 and not is_timed:
                # as a rule: a message that comes alone, and nothing else to see to
                file = found[0][0]
                for hop in self._order:
                    if hop.file == file and hop.comes_alone:
                        return hop.receive_one()
        readable = {file for file, _ in found}
        if self._waker.file in readable:
            self._waker.clear()
        if self._gate is not None and self._gate.file in readable:
            self._gate.answer()
        now = time.monotonic()
        arrivals: list[Arrival] = []
        for hop in self._order:
            if (is_ready := hop in ready) or hop.next_time() is not None or not hop.files.isdisjoint(readable):
                arrivals += hop.gather(readable, now, ready=is_ready)
        return arrivals

    def _milliseconds(self, timeout: float | None) -> tuple[int | None, bool]:
        """The wait, cut short where a hop has something to do by then; whether one has."""
        is_timed = False
        for hop in self._order:
            if (at := hop.next_time()) is not None:
                is_timed = True
                left = at - time.monotonic()
                timeout = left if timeout is None or left < timeout else timeout
        return None if timeout is None else max(0, math.ceil(timeout * 1000)), is_timed

    def send(self, peer: Peer, frames: list[bytes]) -> None:
        """Send without waiting.

        A bound hop reports a peer that is gone at the next poll; a connected one keeps the message until there is a
        connection, and drops it when one breaks. KeyError for an unknown hop.
        """
        hop, connection = peer
        self._hops[hop].send(connection, frames)

    def wake(self) -> None:
        """Make `poll` return; from any thread or signal handler, also after `close`, when it does nothing."""
        self._waker.wake()

    def wake_file(self) -> int:
        """The file number that a written byte wakes the poll by, for `signal.set_wakeup_fd`."""
        return self._waker.number()

    def close(self, linger: float | None = None) -> None:
        """Close every socket. Waits at most `linger` seconds (by default that of the options) for what is unsent."""
        if self._closed:
            return
        self._closed = True
        seconds = self.options.linger if linger is None else linger
        bound = [hop for hop in self._hops.values() if isinstance(hop, RouterSocket)]
        try:
            self._close_sockets(bound, seconds)
        finally:
            for hop in bound:
                hop.release()
            self._waker.close()
            with _shared_lock:
                _open.discard(self)

    def _close_sockets(self, bound: list[RouterSocket], linger: float) -> None:
        if self._given is not None:
            for hop in bound:
                hop.unbind()
        for one in self._hops.values():
            one.close(linger)
        if self._gate is not None:
            self._gate.close()
        if self._own is not None:
            # with sockets that nobody knows of, should something have come between their making and that
            self._own.destroy(linger=0)
