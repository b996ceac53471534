"""The vocabulary that processes speak to each other, as frozen dataclasses.

A message says what is so (state), never what changed: any of them may be lost, doubled or late, and the next one of
its kind mends it. Item numbers travel as **spans**: a flat tuple ``(start, stop, start, stop, ...)`` of half-open
ranges in ascending order, so that ten thousand neighbours cost two integers. User data travels as bytes that nobody on
the way opens.

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

from collections.abc import Sequence
from dataclasses import field
from typing import TYPE_CHECKING, TypeAlias

from zmqpipeline.protocol.error_info import ErrorInfo as ErrorInfo
from zmqpipeline.protocol.error_info import FailedItem as FailedItem
from zmqpipeline.protocol.error_info import FailedKind as FailedKind
from zmqpipeline.protocol.error_info import TaskError as TaskError
from zmqpipeline.protocol.status_records import WORKER_STATES as WORKER_STATES
from zmqpipeline.protocol.status_records import AskStatus as AskStatus
from zmqpipeline.protocol.status_records import RunningItem as RunningItem
from zmqpipeline.protocol.status_records import Status as Status
from zmqpipeline.protocol.status_records import TaskCounts as TaskCounts
from zmqpipeline.protocol.status_records import TaskStatus as TaskStatus
from zmqpipeline.protocol.status_records import WorkerStatus as WorkerStatus

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    from zmqpipeline.protocol.frozen import dataclass

Spans: TypeAlias = tuple[int, ...]
"""Half-open ranges of item numbers, flattened: ``(0, 3, 7, 8)`` is 0, 1, 2 and 7."""

Blobs: TypeAlias = Sequence[bytes]
"""Packed user values, one an item, in the order of the spans beside them: a list, or a `Packed` that came in one piece.

A large one may be a memoryview of the message that it came in, which spares a copy; whoever needs bytes makes them.
"""

KEY_BYTES = 16
"""The size of the digest of a key."""


@dataclass(frozen=True, slots=True)
class TaskProgress:
    """The numbers of one task that are done, as a collector holds them.

    `keys` and `failed_keys` say how many digests of keys belong to it, which travel in `Keys`. `repeated` of the
    collected numbers stand for a key that had another number before, and was not collected again.
    """

    task: str
    collected: Spans
    failed: Spans
    keys: int = 0
    failed_keys: int = 0
    repeated: int = 0
    told: int = 0
    """So many done items are told by `Ranges`, in place of those here."""


@dataclass(frozen=True, slots=True)
class AckNote:
    """What the ACKs with the numbers `first` to `last`, all of one task, carried: a packed dict, or nothing."""

    task: str
    first: int
    last: int
    data: bytes


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


# distributor -> collector ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Propose:
    """A distributor without a run asks what the collector holds, and offers a run id in case it holds none."""

    pipeline: str
    run: str


@dataclass(frozen=True, slots=True)
class Begin:
    """The run as the distributor knows it: said at each connection and answered by Holding. Idempotent.

    `ack_task` and `ack_data` are those of the last Ack that it has heard.
    """

    pipeline: str
    run: str
    metadata: bytes
    progress: list[TaskProgress]
    ack_task: str = ""
    ack_data: bytes = b""
    gated: bool = False
    """Whether a task has a gate: then each ACK is told by itself (`Ack.notes`)."""
    ack_id: int = 0
    """Up to which number it has heard of each ACK; of the others it is told before the Holding."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Items that the distributor has given up; the collector answers them with an Ack like collected ones."""

    run: str
    failures: list[FailedItem]


@dataclass(frozen=True, slots=True)
class Unready:
    """A worker of this task could not be initialized, for the collector's log; `seconds` is how long another has."""

    run: str
    task: str
    trouble: ErrorInfo
    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """Every item is acknowledged. `ok` is False if anything failed or was aborted. Answered by Finished."""

    run: str
    ok: bool
    counts: list[TaskCounts]
    troubles: list[TaskError] = field(default_factory=list)
    """Why not everything was sent, if so."""


@dataclass(frozen=True, slots=True)
class Bye:
    """The distributor has heard Finished and leaves; the collector need not stay for it, and answers the same."""

    run: str


# distributor <-> collector: what one of them forgot -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keys:
    """A part of the keys of one task that are done: said before a Holding or a Begin whose progress counts them.

    `keys` are digests of collected items, KEY_BYTES each; `failed_keys` those of the failed items in `failed`.
    """

    run: str
    task: str
    keys: bytes
    failed: Spans
    failed_keys: bytes


@dataclass(frozen=True, slots=True)
class Ranges:
    """A part of what is done of one task: said before a Holding or a Begin, if all of it is too much for these."""

    run: str
    task: str
    collected: Spans
    failed: Spans


# collector -> distributor ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Holding:
    """What the collector holds. An empty `run`: nothing yet. `count` is the number of items acknowledged so far.

    `ack_task` and `ack_data` are those of its last Ack, for the gates of a distributor that has not heard it. Every
    item is done if it is `finishing` (`finished` is called, and has not returned) or `finished`: then `counts` are
    those of its Finish, and `ok` is whether the run's exit status will be 0, as far as it is known.
    """

    run: str
    finished: bool
    metadata: bytes
    count: int
    progress: list[TaskProgress]
    ack_task: str = ""
    ack_data: bytes = b""
    kept_from: int = 0
    """As in Ack."""
    finishing: bool = False
    ok: bool = True
    counts: list[TaskCounts] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ack:
    """These items are collected, those are written down as failed. `data` is a packed dict, or empty.

    `count` is the `_id` of the spec: how many items of all tasks are done, from 1, no repeats.
    """

    run: str
    task: str
    collected: Spans
    failed: Spans
    duplicates: int
    count: int
    data: bytes
    repeated: int = 0
    """As in TaskProgress, of the whole task."""
    data_of: str = ""
    """Of which task the newest ACK was, if of another one: this one says again what it brought."""
    notes: list[AckNote] = field(default_factory=list)
    """For gates: each of the ACKs that this message stands for, or of earlier ones that were not heard."""
    kept_from: int = 0
    """The oldest ACK that the collector can tell of again; 0 if it tells of none by itself."""
    queued: int = 0
    """How many bytes of results wait for the collector's function."""


@dataclass(frozen=True, slots=True)
class Noted:
    """The collector's answer to GiveUp: it has these, and need not be told again while it lives; their Ack follows."""

    run: str
    task: str
    spans: Spans


@dataclass(frozen=True, slots=True)
class Finished:
    """The collector has run `finished`. `troubles` are what `finished`, `failed` and `ack_data` raised, by these names.

    `data` is what `finished` returned, a packed dict, or empty: the data of the run's last ACK. `kinds` are the items
    that failed in the collector.
    """

    run: str
    troubles: list[TaskError] = field(default_factory=list)
    data: bytes = b""
    kinds: list[FailedKind] = field(default_factory=list)


# metadata worker <-> distributor --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Metadata:
    """The packed dict of a metadata worker; said each second until MetadataTaken answers."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class MetadataTaken:
    """The distributor has the metadata; the metadata worker ends."""


# service client -> broker; requests are numbered by the client, from 0 ------------------------------------------------


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


# broker -> service client ---------------------------------------------------------------------------------------------


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


# on any hop -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks nothing: a bound side sends it to learn whether the connection is still there."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The bound side will not talk to this peer, and why, as a sentence for its user."""

    reason: str


Message: TypeAlias = (
    WorkerReport
    | ItemsFailed
    | ItemsReturned
    | Goodbye
    | Welcome
    | Work
    | Settled
    | Recall
    | RunEnded
    | Results
    | Kept
    | Missing
    | Credit
    | Propose
    | Begin
    | GiveUp
    | Unready
    | Finish
    | Bye
    | Keys
    | Ranges
    | Holding
    | Ack
    | Noted
    | Finished
    | Metadata
    | MetadataTaken
    | AskStatus
    | Status
    | Requests
    | Asking
    | Withdrawn
    | Replies
    | Declined
    | Unknown
    | Probe
    | Refused
)


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
