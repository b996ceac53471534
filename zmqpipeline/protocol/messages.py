"""The vocabulary that processes speak to each other, as frozen dataclasses.

A message says what is so (state), never what changed: any of them may be lost, doubled or late, and the next one of
its kind mends it. Item numbers travel as **spans**: a flat tuple ``(start, stop, start, stop, ...)`` of half-open
ranges in ascending order, so that ten thousand neighbours cost two integers. User data travels as bytes that nobody on
the way opens.

Those of the hop ``acks`` are in `ack_messages`, those of services in `service_messages`; all names are here, too.

Hops (the bound side is a ROUTER, the connecting side a DEALER):

====================  =========================  ==========================================
hop                   bound by                   connected by
====================  =========================  ==========================================
``workers``           distributor (one a task    each worker
                      endpoint)
``results``           collector                  each worker
``acks``              collector                  distributor
``metadata``          distributor                metadata worker
``status``            distributor                whoever asks how the run stands
``clients``           service broker             each service client
``workers``           service broker             each service worker
====================  =========================  ==========================================
"""

from __future__ import annotations

from dataclasses import field
from typing import TypeAlias

from zmqpipeline.protocol.ack_messages import Ack as Ack
from zmqpipeline.protocol.ack_messages import AckNote as AckNote
from zmqpipeline.protocol.ack_messages import Begin as Begin
from zmqpipeline.protocol.ack_messages import Bye as Bye
from zmqpipeline.protocol.ack_messages import Failing as Failing
from zmqpipeline.protocol.ack_messages import Fetch as Fetch
from zmqpipeline.protocol.ack_messages import Fetched as Fetched
from zmqpipeline.protocol.ack_messages import Finish as Finish
from zmqpipeline.protocol.ack_messages import Finished as Finished
from zmqpipeline.protocol.ack_messages import GiveUp as GiveUp
from zmqpipeline.protocol.ack_messages import Holding as Holding
from zmqpipeline.protocol.ack_messages import Keys as Keys
from zmqpipeline.protocol.ack_messages import Noted as Noted
from zmqpipeline.protocol.ack_messages import Outbox as Outbox
from zmqpipeline.protocol.ack_messages import Pauses as Pauses
from zmqpipeline.protocol.ack_messages import Propose as Propose
from zmqpipeline.protocol.ack_messages import Ranges as Ranges
from zmqpipeline.protocol.ack_messages import TaskPause as TaskPause
from zmqpipeline.protocol.ack_messages import TaskProgress as TaskProgress
from zmqpipeline.protocol.ack_messages import Unready as Unready
from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.error_info import ErrorInfo as ErrorInfo
from zmqpipeline.protocol.error_info import FailedItem as FailedItem
from zmqpipeline.protocol.error_info import FailedKind as FailedKind
from zmqpipeline.protocol.error_info import TaskError as TaskError
from zmqpipeline.protocol.service_messages import DECLINED_KINDS as DECLINED_KINDS
from zmqpipeline.protocol.service_messages import Asking as Asking
from zmqpipeline.protocol.service_messages import Declined as Declined
from zmqpipeline.protocol.service_messages import Replies as Replies
from zmqpipeline.protocol.service_messages import Requests as Requests
from zmqpipeline.protocol.service_messages import Unknown as Unknown
from zmqpipeline.protocol.service_messages import Withdrawn as Withdrawn
from zmqpipeline.protocol.spans import KEY_BYTES as KEY_BYTES
from zmqpipeline.protocol.spans import Blobs as Blobs
from zmqpipeline.protocol.spans import Spans as Spans
from zmqpipeline.protocol.status_records import WORKER_STATES as WORKER_STATES
from zmqpipeline.protocol.status_records import AskStatus as AskStatus
from zmqpipeline.protocol.status_records import FailureStatus as FailureStatus
from zmqpipeline.protocol.status_records import ItemTimes as ItemTimes
from zmqpipeline.protocol.status_records import LogLine as LogLine
from zmqpipeline.protocol.status_records import LostWorker as LostWorker
from zmqpipeline.protocol.status_records import RunningItem as RunningItem
from zmqpipeline.protocol.status_records import Status as Status
from zmqpipeline.protocol.status_records import TaskCounts as TaskCounts
from zmqpipeline.protocol.status_records import TaskStatus as TaskStatus
from zmqpipeline.protocol.status_records import WorkerStatus as WorkerStatus

MAX_NAMED = 64
"""So many running items of one worker are named."""


# worker -> distributor ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """How a worker stands. `window` is how many unstarted and running items it wants, `backlog` how many it has.

    `held` (all items not yet released, results included) is given in a full report, after a connection, a gap or a
    second of silence; otherwise None. `done` are those of them with a result or a failure.
    """

    run: str
    task: str
    slots: int
    window: int
    backlog: int
    draining: bool
    held: Spans | None
    done: Spans | None
    host: str
    pid: int
    idempotent: bool | None = None
    """Of service workers: whether a request that was lost with its worker may be given to another one."""
    executed: int = 0
    """How many items it has executed in its life, failed ones included."""
    running: list[RunningItem] | None = None
    """What its threads execute now; in a full report."""
    begun: Spans | None = None
    """Given while each thread is busy with an item that takes long: these have begun, and nothing behind them can."""
    kept_bytes: int = 0
    """How many bytes the results have that it keeps."""
    times: ItemTimes | None = None
    """How long its items of this run took; in a full report."""
    service_time: float = 0.0
    """Seconds that one of its last items took; 0 before the first."""


@dataclass(frozen=True, slots=True)
class ItemsFailed:
    """User code raised for these items; kept by the worker, and said again, until they are released."""

    run: str
    failures: list[FailedItem]


@dataclass(frozen=True, slots=True)
class ItemsReturned:
    """Unstarted items that a worker hands back: it drains, or was asked to. Perhaps none: that is an answer, too."""

    run: str
    task: str
    spans: Spans


@dataclass(frozen=True, slots=True)
class Goodbye:
    """A worker leaves in good order and holds nothing any more. `trouble` says why if it is not by request."""

    run: str
    task: str
    trouble: ErrorInfo | None = None
    times: ItemTimes | None = None
    """As in `WorkerReport`: all of them."""


# distributor -> worker ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """The distributor's answer to a full report. An empty `run`: none has begun yet. `metadata` is a packed dict."""

    run: str
    metadata: bytes


@dataclass(frozen=True, slots=True)
class Work:
    """Items to execute. They are leased from now until acknowledged. `timeout` is in seconds an item, 0 for none.

    `keys` are the digests of their keys, KEY_BYTES each, in the order of the spans; empty if the task has none.
    """

    run: str
    task: str
    attempt: int
    timeout: float
    spans: Spans
    released: Spans
    payloads: Blobs
    keys: bytes = b""
    trial: bool = False
    """They were lost with a worker before: begin them when the distributor has heard that they are here."""


@dataclass(frozen=True, slots=True)
class Settled:
    """These items are acknowledged or given up: drop what you keep of them. `resync` asks for a full report."""

    run: str
    task: str
    released: Spans
    resync: bool = False
    report_seconds: float = 0.0
    """How often a full report is wanted, if that is more seldom than it is said otherwise."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Hand back up to `most` items that you have not started, the last first. Answered by ItemsReturned."""

    run: str
    task: str
    most: int


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over; a worker answers Goodbye and ends.

    On the hop ``acks`` either side says it if it ends the run early, and is answered by the same. A collector that ends
    it early says it on ``results``, too, for workers that have no distributor.

    `ok` is False if not everything was collected; `reason` says why, as a sentence, and `troubles` what was raised.
    """

    run: str
    ok: bool = True
    reason: str = ""
    troubles: list[TaskError] = field(default_factory=list)

    def concerns(self, run: str) -> bool:
        """Whether a role of this run, or of none yet, is meant. A collector that was started anew knows of none."""
        return not run or self.run in ("", run)


# worker -> collector, and back ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Results:
    """What user code returned for these items; kept by the worker until the distributor releases them."""

    run: str
    task: str
    attempt: int
    spans: Spans
    payloads: Blobs
    keys: bytes = b""
    """The digests of their keys, as they came with the items."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The results that a worker still keeps; said at each connection, each second while any is kept.

    Said at once when one waits for more credit, and in answer to each Credit.
    """

    run: str
    task: str
    spans: Spans
    credit: int = 0
    """How many bytes of them it may have sent, as it was told last."""
    wants: int = 0
    """The bytes of the next message that this keeps back; 0 if none."""


@dataclass(frozen=True, slots=True)
class Missing:
    """The collector's answer to Kept: of those it has never seen these. An empty answer is an answer, too."""

    run: str
    task: str
    spans: Spans


@dataclass(frozen=True, slots=True)
class Credit:
    """How many bytes of results a worker may have sent that are not released; answered by Kept.

    `once`: a message of so many bytes may follow now, whatever the credit; 0 for none.
    """

    credit: int
    once: int = 0


# metadata worker <-> distributor --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metadata:
    """The packed dict of a metadata worker; said each second until MetadataTaken answers."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class MetadataTaken:
    """The distributor has the metadata; the metadata worker ends."""


# on any hop -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks nothing: a bound side sends it to learn whether the connection is still there."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The bound side will not talk to this peer, and why, as a sentence for its user."""

    reason: str


Message: TypeAlias = (
    Probe
    | Refused
    | WorkerReport
    | ItemsFailed
    | ItemsReturned
    | Goodbye
    | Welcome
    | Work
    | Settled
    | RunEnded
    | Results
    | Kept
    | Missing
    | Propose
    | Begin
    | GiveUp
    | Finish
    | Bye
    | Holding
    | Ack
    | Finished
    | Metadata
    | MetadataTaken
    | Requests
    | Asking
    | Withdrawn
    | Replies
    | Declined
    | Unknown
    | Recall
    | Keys
    | AskStatus
    | Status
    | Credit
    | Noted
    | Ranges
    | Unready
    | Fetch
    | Fetched
    | Pauses
    | Failing
)
"""In the order of their codes on the wire: a new one comes last, and who may say it is in `protocol.allowed`."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message with its place on the hop: who says it (incarnation), to whom, which number it has, what was received.

    `received` counts in the numbers of the incarnation `addressee`; both are empty (b"" and 0) while none is known.
    """

    sender: bytes
    addressee: bytes
    number: int
    received: int
    body: Message = field(default_factory=Probe)
