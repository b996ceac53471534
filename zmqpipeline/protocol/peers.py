"""What a machine knows of its peers: where their messages stand, what they said that is false, who is missing.

One side of one hop with one peer: incarnations, message numbers, gaps.

ZeroMQ keeps the order of messages on a connection and drops them in silence when it breaks; a reconnected peer may be
the same process or a new one. A link turns that into four verdicts on each message that arrives:

========  ==========================================================================================================
verdict   meaning, and what the machine does
========  ==========================================================================================================
FRESH     the next one: take it
GAP       newer than the next one, so something was lost: take it, and say (or ask for) a full report
NEW       the peer is another process than before: take it, forget what the former one was told, say a full report
REPEAT    an old one, doubled or late: drop it
========  ==========================================================================================================

It keeps no payloads: whoever owns a thing sends it again when a report shows that it is missing. Message number 0 is
outside the order (probes).

What peers say that cannot be true: counted, told once a peer, and dropped.

Who a role waits for: said after ten seconds, then each minute, for as long as it takes.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Set
from enum import Enum

from zmqpipeline.protocol import commands as c
from zmqpipeline.protocol.events import Peer
from zmqpipeline.protocol.messages import Envelope, Message


class Verdict(Enum):
    """What a link says of a message that arrived."""

    FRESH = "fresh"
    GAP = "gap"
    NEW = "new"
    REPEAT = "repeat"


# each message that arrives asks for one: a member of an enum is looked up anew each time
_FRESH, _GAP = Verdict.FRESH, Verdict.GAP


class Link:
    """The numbers of one hop. `incarnation` is this side's own id."""

    __slots__ = ("confirmed", "incarnation", "peer", "received", "sent")

    def __init__(self, incarnation: bytes) -> None:
        self.incarnation = incarnation
        self.peer = b""
        self.sent = 0
        self.received = 0
        self.confirmed = 0
        """The highest number of ours that the peer has said it received."""

    def wrap(self, body: Message) -> Envelope:
        """This message with the next number."""
        self.sent += 1
        return Envelope(self.incarnation, self.peer, self.sent, self.received, body)

    def admit(self, envelope: Envelope) -> Verdict:
        """Judge a message that arrived, and remember it."""
        if envelope.number == 0:
            return Verdict.REPEAT
        if envelope.sender != self.peer:
            self.peer = envelope.sender
            self.received = envelope.number
            self.confirmed = self._heard(envelope)
            return Verdict.NEW
        if envelope.number <= self.received:
            return Verdict.REPEAT
        verdict = _FRESH if envelope.number == self.received + 1 else _GAP
        self.received = envelope.number
        self.confirmed = max(self.confirmed, self._heard(envelope))
        return verdict

    def _heard(self, envelope: Envelope) -> int:
        # What the peer received from a former process of this role says nothing about this one.
        if envelope.addressee != self.incarnation:
            return 0
        return envelope.received if envelope.received <= self.sent else self.sent


MAX_TOLD = 1000
"""So many peers are told of; what others say is counted only: who comes again and again shall not fill the log."""


class ViolationLog:
    """The lies that one machine was told; `count` is how many."""

    __slots__ = ("_lines", "_told", "count")

    def __init__(self) -> None:
        self.count = self._lines = 0
        self._told: set[Peer] = set()

    def note(self, peer: Peer, said: str) -> list[c.Command]:
        """This peer said something that is dropped; `said` completes a sentence that begins with "A peer on ..."."""
        self.count += 1
        if peer in self._told or self._lines >= MAX_TOLD:
            return []
        self._lines += 1
        self._told.add(peer)
        text = (
            f"A peer on {peer[0]} {said}; that is dropped. Further things of this kind are dropped silently; see what "
            "else connects to this address."
        )
        return [c.Log(30, text)]

    def lost(self, peer: Peer) -> None:
        """This connection is gone."""
        self._told.discard(peer)


WARN_FIRST_SECONDS = 10.0
"""When it is said first: an address may be misspelt, and somebody sits before the terminal."""

WARN_SECONDS = 60.0
"""How often a role that waits for another one says so."""


class MissingPeers:
    """The hops of a role that lead to somebody who is not there; `names` says who that would be, as people call it."""

    def __init__(self, names: Mapping[str, str], patience: float | None = None) -> None:
        """`patience`: after so many seconds it waits no longer (the option `exit_when_idle`)."""
        self._names = names
        self._patience = patience
        self._warn_at: float | None = None
        self._since = 0.0

    def look(self, connected: Set[str], now: float) -> None:
        """Begin or cease to wait; call it with every event."""
        if connected >= self._names.keys():
            self._warn_at = None
        elif self._warn_at is None:
            self._warn_at, self._since = now + WARN_FIRST_SECONDS, now

    def until(self) -> float | None:
        """When it has waited long enough, if it waits."""
        return None if self._patience is None or self._warn_at is None else self._since + self._patience

    def next_time(self) -> float | None:
        """When to warn."""
        return self._warn_at

    def warning(self, connected: Set[str], now: float) -> str | None:
        """What to say now, if it is time."""
        if self._warn_at is None or now < self._warn_at:
            return None
        self._warn_at = now + WARN_SECONDS
        missing = " and ".join(name for hop, name in self._names.items() if hop not in connected)
        return (
            f"Waiting for {missing} to connect to; what is held here is kept. Start it, see whether --endpoint names "
            "its address, or end this worker with Ctrl-C."
        )


def how_to_start(command: str, *role: str) -> str:
    """The end of a message about a role that is missing: what starts it, by the command that starts roles, if known."""
    if not command:
        return "Start the program that runs one."
    return f"Start one: {command} {shlex.join(role)}, with the --endpoint of this role if it has one."
