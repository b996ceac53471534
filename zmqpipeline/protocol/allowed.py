"""Who may say what: the messages that each hop carries, each way.

A key opens the doors of one role. So what comes through a door must be what that role has to say: a worker that sends
the collector what only a distributor says is not listened to, nor a client that reports as a worker.
"""

from __future__ import annotations

from zmqpipeline.protocol import messages as m
from zmqpipeline.protocol.events import Peer

_ANYBODY: tuple[type, ...] = (m.Probe, m.Refused)

TO_BOUND: dict[str, frozenset[type]] = {
    "workers": frozenset((m.WorkerReport, m.ItemsFailed, m.ItemsReturned, m.Goodbye, m.Results, *_ANYBODY)),
    "results": frozenset((m.Results, m.Kept, *_ANYBODY)),
    "acks": frozenset(
        (
            *(m.Propose, m.Begin, m.Keys, m.Ranges, m.GiveUp, m.Unready, m.Pauses, m.Fetch, m.Finish, m.Bye),
            *(m.RunEnded, *_ANYBODY),
        )
    ),
    "metadata": frozenset((m.Metadata, *_ANYBODY)),
    "clients": frozenset((m.Requests, m.Asking, m.Withdrawn, m.AskStatus, *_ANYBODY)),
    "status": frozenset((m.AskStatus, *_ANYBODY)),
}
"""By hop: what the connecting side says. The workers of a pipeline and those of a broker have one hop's name."""

TO_CONNECTED: dict[str, frozenset[type]] = {
    "workers": frozenset((m.Welcome, m.Work, m.Settled, m.Recall, m.Missing, m.RunEnded, *_ANYBODY)),
    "results": frozenset((m.Missing, m.Credit, m.RunEnded, *_ANYBODY)),
    "acks": frozenset(
        (
            *(m.Holding, m.Keys, m.Ranges, m.Ack, m.Fetched, m.Noted, m.Failing, m.Finished, m.Bye),
            *(m.RunEnded, *_ANYBODY),
        )
    ),
    "metadata": frozenset((m.MetadataTaken, *_ANYBODY)),
    "clients": frozenset((m.Replies, m.Declined, m.Unknown, m.Status, *_ANYBODY)),
    "status": frozenset((m.Status, *_ANYBODY)),
}
"""By hop: what the bound side says."""


def allowed_on(peer: Peer) -> frozenset[type] | None:
    """The messages that come by this hop from that side; None if any may.

    Hops that are none of the table carry what they like. A bound side tells its connections apart; a connecting one has
    only one, whose name is empty.
    """
    hop, connection = peer
    table = TO_BOUND if connection else TO_CONNECTED
    said = table.get(hop)
    return table.get(hop.partition("/")[0]) if said is None else said
