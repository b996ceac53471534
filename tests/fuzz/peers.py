"""Hostile peers: one thread a role, which talks to each of its sockets, and waits for the role now and then."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import zmq

from tests.fuzz.frames import KINDS, Forger
from tests.fuzz.site import Site
from zmqpipeline.protocol import codec, fields
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.peers import Link

SOCKETS = {
    "distributor": ("workers", "metadata", "status"),
    "collector": ("results", "acks"),
    "service": ("service-clients", "service-workers"),
}
"""By role: what it binds."""

BURST = 200
"""So many messages to each socket, and then the role is waited for: what is measured is not what waits in a queue."""

LIFE = 5
"""After so many bursts a peer connects anew, as another process."""

PATIENCE = 60.0
"""Seconds that a role may take for what it was sent."""


class Honest:
    """A peer that asks a role something which it answers after all that was there before."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, run: str = "") -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(address)
        self._link = Link(b"honest" + address.encode()[-8:])
        self.run = run

    def close(self) -> None:
        """Close the socket."""
        self._socket.close(0)

    def asks(self, body: m.Message, answer: type) -> Any:
        """Say this; the first answer of this kind. Fails if none comes in time."""
        self._socket.send_multipart(codec.encode(self._link.wrap(body)))
        end = time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0:
            if self._socket.poll(min(1000, int(left * 1000) + 1)):
                envelope = codec.decode(self._socket.recv_multipart())
                self._link.admit(envelope)
                if isinstance(envelope.body, answer):
                    return envelope.body
            else:
                # a role that has no run yet does not answer everything
                self._socket.send_multipart(codec.encode(self._link.wrap(body)))
        raise AssertionError(f"no {answer.__name__} within {PATIENCE} s")


class Hostile(threading.Thread):
    """Talks to the sockets of one role until its share is sent; `sent` counts by kind, `error` is why it gave up."""

    def __init__(self, site: Site, role: str, frames: int, seed: int, run: str) -> None:
        super().__init__(name=f"hostile to the {role}")
        self.sent: Counter[str] = Counter()
        self.error = ""
        self._site, self._role, self._frames, self._run = site, role, frames, run
        recorded = site.taps["results" if role == "collector" else "workers"].recorded
        self._forger = Forger(seed, recorded)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: dict[tuple[str, str], zmq.Socket[bytes]] = {}

    def run(self) -> None:
        """See the class."""
        try:
            self._talk()
        except (AssertionError, zmq.ZMQError) as error:
            self.error = f"{self.name}: {error}"
        finally:
            self._context.destroy(0)

    def _talk(self) -> None:
        honest, wait = self._barrier()
        try:
            self._burst(wait)
        finally:
            for one in (honest, *self._sockets.values()):
                one.close()

    def _burst(self, wait: Callable[[], object]) -> None:
        bursts = 0
        while self.sent.total() < self._frames:
            if bursts % LIFE == 0:
                self._connect()
            bursts += 1
            for (_, kind), socket in self._sockets.items():
                for _ in range(BURST // len(KINDS)):
                    self._say(socket, kind)
            wait()

    def _connect(self) -> None:
        for socket in self._sockets.values():
            socket.close(0)
        self._forger.rename()
        for hop in SOCKETS[self._role]:
            for kind in KINDS:
                # none of them ever reads
                socket = self._sockets[hop, kind] = self._context.socket(zmq.DEALER)
                socket.linger, socket.rcvhwm, socket.sndtimeo = 0, 1, int(PATIENCE * 1000)
                socket.connect(self._site.address(hop))

    def _say(self, socket: zmq.Socket[bytes], kind: str) -> None:
        if kind == "forged" and self._role == "distributor" and self._forger.rng.random() < 0.05:
            frames = self._claims()
        else:
            frames = self._forger.make(kind)
        if not frames:
            return
        socket.send_multipart(frames)
        self.sent[kind] += 1

    def _claims(self) -> list[bytes]:
        """A lie of one that knows the run's id: it wants no work, and claims all there is."""
        every = (0, fields.MAX_NUMBER)
        report = m.WorkerReport(self._run, "C", 1, 0, 0, False, every, every, "box", 1)
        body = self._forger.rng.choice((report, m.ItemsReturned(self._run, "C", every)))
        self._forger._number += 1
        return codec.encode(m.Envelope(self._forger.sender, b"", self._forger._number, 0, body))

    def _barrier(self) -> tuple[Honest, Callable[[], object]]:
        if self._role == "distributor":
            status = Honest(self._context, self._site.address("status"))
            return status, lambda: status.asks(m.AskStatus(), m.Status)
        if self._role == "collector":
            worker = Honest(self._context, self._site.address("results"), self._run)
            return worker, lambda: worker.asks(m.Kept(self._run, "C", ()), m.Missing)
        client = Honest(self._context, self._site.address("service-clients"))
        return client, lambda: client.asks(m.Asking(()), m.Unknown)


def run_of(site: Site) -> str:
    """The id of the run, as anybody can learn it where there are no keys."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        asker = Honest(context, site.address("status"))
        run = str(asker.asks(m.AskStatus(), m.Status).run)
        asker.close()
        return run
    finally:
        context.destroy(0)
