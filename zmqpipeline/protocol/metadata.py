"""The metadata worker's machine: says its metadata each second until the distributor has taken it."""

from __future__ import annotations

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.link import Link, Verdict

REPEAT_SECONDS = 1.0
"""How often it is said."""


class MetadataMachine:
    """`payload` is the packed dict. Hop: ``metadata``."""

    def __init__(self, payload: bytes, *, incarnation: bytes) -> None:
        self._payload = payload
        self._link = Link(incarnation)
        self._connected = False
        self._next: float | None = None
        self.taken = False

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """See `Machine.handle`."""
        if self.taken:
            return []
        match event:
            case e.Connected():
                self._connected = True
                return self._say(now)
            case e.Disconnected():
                self._connected = False
            case e.Drain():
                self._next = None
                return [c.Ended(0, "stopped before any distributor took the metadata")]
            case e.Received(_, envelope) if self._link.admit(envelope) is not Verdict.REPEAT:
                if isinstance(envelope.body, m.MetadataTaken):
                    self.taken, self._next = True, None
                    return [c.Ended(0, "the distributor has the metadata")]
        if self._next is not None and now >= self._next:
            return self._say(now)
        return []

    def _say(self, now: float) -> list[c.Command]:
        if not self._connected:
            self._next = None
            return []
        self._next = now + REPEAT_SECONDS
        return [c.Send(("metadata", b""), self._link.wrap(m.Metadata(self._payload)))]

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        return self._next

    def snapshot(self) -> bool:
        """Whether the metadata is taken."""
        return self.taken

    def check(self) -> None:
        """Nothing is due once the metadata is taken."""
        assert self._next is None or not self.taken, "something is due although the metadata is taken"
