"""The messages of service clients and brokers to each other, on the hop ``clients``; see `protocol.messages`."""

from __future__ import annotations

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.error_info import ErrorInfo
from zmqpipeline.protocol.spans import Blobs, Spans

# client -> broker; requests are numbered by the client, from 0 --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests for one service. `again`: an earlier broker may have had them, and they may have been executed."""

    service: str
    again: bool
    spans: Spans
    payloads: Blobs


@dataclass(frozen=True, slots=True)
class Asking:
    """All requests that the client waits for; said at each connection and each second while it waits."""

    spans: Spans


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The client no longer waits for these."""

    spans: Spans


# broker -> client -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Replies:
    """What the handler returned for these requests; kept by the broker until the client has said anything since."""

    spans: Spans
    payloads: Blobs


@dataclass(frozen=True, slots=True)
class Declined:
    """These requests get no reply. `kind` is one of DECLINED_KINDS."""

    kind: str
    spans: Spans
    trouble: ErrorInfo


DECLINED_KINDS = ("unavailable", "error", "lost")


@dataclass(frozen=True, slots=True)
class Unknown:
    """Of those that a client asks for, the broker has never heard of these; an empty answer is an answer, too.

    `unserved` are all requests of this client that wait since nobody serves their names at the moment. `room`: it asks
    for no more at once than has replies of so many bytes; 0: as much as it likes.
    """

    spans: Spans
    unserved: Spans = ()
    room: int = 0
