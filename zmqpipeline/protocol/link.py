"""One side of one hop with one peer: incarnations, message numbers, gaps.

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
"""

from __future__ import annotations

from enum import Enum

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
        heard = self._heard(envelope)
        if heard > self.confirmed:
            self.confirmed = heard
        return verdict

    def _heard(self, envelope: Envelope) -> int:
        # What the peer received from a former process of this role says nothing about this one.
        if envelope.addressee != self.incarnation:
            return 0
        return envelope.received if envelope.received <= self.sent else self.sent
