"""The metadata worker's machine: says its metadata each second until the distributor has taken it; and the other side.

They are taken when the collector has the run that they belong to: if the distributor dies before, nobody but the
metadata worker knows them. Without a distributor it says who it waits for, and ends with the option
`exit_when_idle`.
"""

from __future__ import annotations

from collections.abc import Callable

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol import events as e
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.early_end import EarlyEnd
from zmqpipeline.protocol.machine import soonest
from zmqpipeline.protocol.peers import Link, MissingPeers, Verdict, ViolationLog
from zmqpipeline.protocol.waiting import NOBODY_CAME

REPEAT_SECONDS = 1.0
"""How often it is said."""


class MetadataMachine:
    """`payload` is the packed dict. Hop: ``metadata``."""

    def __init__(
        self, payload: bytes, *, incarnation: bytes, exit_when_idle: float | None = None, age: float | None = None
    ) -> None:
        """`exit_when_idle`: after so many seconds without a distributor it ends. `age` is that of `EarlyEnd`."""
        self._early_end = EarlyEnd(age)
        self._payload = payload
        self._patience = exit_when_idle
        self._missing = MissingPeers({"metadata": "a distributor"}, exit_when_idle)
        self._link = Link(incarnation)
        self._connected = False
        self._next: float | None = None
        self.taken = False
        self._is_over = False
        self._has_looked = False

    def handle(self, event: e.Event, now: float) -> list[c.Command]:
        """See `Machine.handle`."""
        if self._is_over:
            return []
        match event:
            case e.Connected():
                self._connected = True
                self._look(now)
                return self._say(now)
            case e.Disconnected():
                self._connected = False
            case e.EndFound() if why := self._early_end.verdict(event, now):
                return [c.Log(30, why), *self._end(0, "the run has ended early")]
            case e.Drain():
                return self._end(0, "stopped before any distributor took the metadata")
            case e.Received(_, envelope) if self._link.admit(envelope) is not Verdict.REPEAT:
                if isinstance(envelope.body, m.MetadataTaken):
                    self.taken = True
                    return self._end(0, "the distributor has the metadata")
        return self._by_the_clock(now)

    def _by_the_clock(self, now: float) -> list[c.Command]:
        self._look(now)
        until, here = self._missing.until(), {"metadata"} if self._connected else set()
        if until is not None and now >= until:
            return self._end(NOBODY_CAME, f"No distributor was there for {self._patience:g} s (exit_when_idle).")
        if self._early_end.is_due(now):
            return [c.LookForEnd()]
        if text := self._missing.warning(here, now):
            return [c.Log(30, text)]
        if self._next is not None and now >= self._next:
            return self._say(now)
        return []

    def _look(self, now: float) -> None:
        self._has_looked = True
        self._missing.look({"metadata"} if self._connected else set(), now)
        self._early_end.wait(now, alone=not self._connected)

    def _end(self, status: int, reason: str) -> list[c.Command]:
        self._is_over, self._next = True, None
        return [c.Ended(status, reason)]

    def _say(self, now: float) -> list[c.Command]:
        if not self._connected:
            self._next = None
            return []
        self._next = now + REPEAT_SECONDS
        return [c.Send(("metadata", b""), self._link.wrap(m.Metadata(self._payload)))]

    def next_deadline(self) -> float | None:
        """See `Machine.next_deadline`."""
        if self._is_over:
            return None
        if not self._has_looked:
            return 0.0
        return soonest((self._next, self._missing.next_time(), self._missing.until(), self._early_end.next_time()))

    def snapshot(self) -> bool:
        """Whether the metadata is taken."""
        return self.taken

    def check(self) -> None:
        """Nothing is due once the metadata is taken."""
        assert self._next is None or not self.taken, "something is due although the metadata is taken"


class MetadataGiven:
    """A distributor's side: what was offered, and who waits for the word that it is taken."""

    def __init__(self, is_dict: Callable[[bytes], bool], strangers: ViolationLog) -> None:
        """`is_dict` tells whether a packed value is a dict."""
        self.offered: bytes | None = None
        self._is_dict = is_dict
        self._violations = strangers
        self._givers: dict[e.Peer, Link] = {}

    def given(self, payload: bytes, peer: e.Peer, link: Link, *, is_open: bool) -> list[c.Command]:
        """A metadata worker says this; later ones change nothing once it `is_open` no more. What is to be logged."""
        # it is said each second: the same is not opened again
        if is_open and payload != self.offered:
            if not self._is_dict(payload):
                return self._violations.note(peer, "gave metadata that are no packed dict")
            self.offered = payload
        self._givers[peer] = link
        return []

    def take(self) -> list[c.Command]:
        """The collector has the run: whoever gave metadata may go."""
        said: list[c.Command] = [c.Send(peer, link.wrap(m.MetadataTaken())) for peer, link in self._givers.items()]
        self._givers.clear()
        return said

    def lost(self, peer: e.Peer) -> None:
        """This connection is gone."""
        self._givers.pop(peer, None)
