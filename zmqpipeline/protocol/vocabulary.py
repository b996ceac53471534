"""Who may say what: the messages that each hop carries, each way.

A key opens the doors of one role. So what comes through a door must be what that role has to say: a worker that sends
the collector what only a distributor says is not listened to, nor a client that reports as a worker.
"""

from __future__ import annotations

from zmqpipeline.errors import WireError
from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.events import Peer

_ANYBODY: tuple[type, ...] = (m.Probe, m.Refused)

TO_BOUND: dict[str, frozenset[type]] = {
    "workers": frozenset((m.WorkerReport, m.ItemsFailed, m.ItemsReturned, m.Goodbye, m.Results, *_ANYBODY)),
    "results": frozenset((m.Results, m.Kept, *_ANYBODY)),
    "acks": frozenset((m.Propose, m.Begin, m.Keys, m.GiveUp, m.Finish, m.Bye, *_ANYBODY)),
    "metadata": frozenset((m.Metadata, *_ANYBODY)),
    "clients": frozenset((m.Requests, m.Asking, m.Withdrawn, *_ANYBODY)),
    "status": frozenset((m.AskStatus, *_ANYBODY)),
}
"""By hop: what the connecting side says. The workers of a pipeline and those of a broker have one hop's name."""

TO_CONNECTED: dict[str, frozenset[type]] = {
    "workers": frozenset((m.Welcome, m.Work, m.Settled, m.Recall, m.Missing, m.RunEnded, *_ANYBODY)),
    "results": frozenset((m.Missing, *_ANYBODY)),
    "acks": frozenset((m.Holding, m.Keys, m.Ack, m.Finished, *_ANYBODY)),
    "metadata": frozenset((m.MetadataTaken, *_ANYBODY)),
    "clients": frozenset((m.Replies, m.Declined, m.Unknown, *_ANYBODY)),
    "status": frozenset((m.Status, *_ANYBODY)),
}
"""By hop: what the bound side says."""


def check_place(peer: Peer, body: m.Message) -> None:
    """Raise WireError if this message is none that comes by this hop from that side.

    Hops that are none of the table carry what they like. A bound side tells its connections apart; a connecting one has
    only one, whose name is empty.
    """
    hop, connection = peer
    told = (TO_BOUND if connection else TO_CONNECTED).get(hop.partition("/")[0])
    if told is not None and type(body) not in told:
        raise WireError(f"{type(body).__name__} is not said on {hop}; such a peer has no right to it")
