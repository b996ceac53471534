"""What happened: the events that a machine is told, and nothing else ever changes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TypeAlias

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.messages import (
    Blobs,
    Envelope,
    ErrorInfo,
    Outbox,
    Spans,
    TaskCounts,
    TaskPause,
    TaskProgress,
)

Peer: TypeAlias = tuple[str, bytes]
"""Hop name and connection: the routing id that a ROUTER gave it, or b"" for the one connection of a DEALER."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The connecting side's handshake on this hop succeeded (again)."""

    hop: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection of this hop broke; what was on its way may be lost."""

    hop: str


@dataclass(frozen=True, slots=True)
class Received:
    """A well-formed message arrived."""

    peer: Peer
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The bound side found this connection gone."""

    peer: Peer


@dataclass(frozen=True, slots=True)
class Tick:
    """The time of `next_deadline()` has come."""


@dataclass(frozen=True, slots=True)
class Drain:
    """End in good order: take nothing new, finish what runs, hand back the rest; give up after `seconds`.

    A worker may be given `math.inf`: it never gives up.

    `final`: nobody is to come in the place of this role, so that a run without it ends, too, and the others are told.
    """

    seconds: float
    final: bool = False


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """Whoever started this process saw it end; `how` is for people: "killed by SIGKILL", "exit status 70"."""

    pid: int
    how: str


@dataclass(frozen=True, slots=True)
class WorkersDesired:
    """Whoever starts the workers of this task gives it so many from now on."""

    task: str
    number: int


# distributor: answers to Produce and LoadMetadata --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Produced:
    """Items of a task's source, packed. `state` is one of PRODUCED_STATES; all but "more" end the Produce they answer.

    more: some now, the rest follows. ready: as many as asked for. gated: the gate said no. exhausted: there will be no
    more. failed: user code raised (`trouble`); the payloads before it count. `keys` are digests, one an item, or None.
    `over` items were passed over before these.
    """

    task: str
    state: str
    payloads: Blobs = field(default_factory=list)
    keys: Blobs | None = None
    trouble: ErrorInfo | None = None
    over: int = 0
    values: Blobs | None = None
    """Digests of what a rate goes by (`rate_by`), one an item."""


PRODUCED_STATES = ("more", "ready", "gated", "exhausted", "failed")


@dataclass(frozen=True, slots=True)
class MetadataLoaded:
    """The distributor's own metadata function returned (a packed dict) or raised."""

    payload: bytes
    trouble: ErrorInfo | None = None


# worker: answers to Execute and TakeBack ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Executed:
    """User code ran for these items of one attempt: `numbers[i]` returned `payloads[i]`; the others failed.

    `seconds` is the time that one thread was busy with all of them, from which the service time is observed.
    """

    attempt: int
    numbers: Sequence[int]
    payloads: Blobs
    failures: list[tuple[int, ErrorInfo]]
    seconds: float


@dataclass(frozen=True, slots=True)
class Running:
    """Each thread has been busy for some milliseconds, with these; until one of them ends, nothing else begins."""

    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class TakenBack:
    """The answer to TakeBack: these items had not been started, and will not be."""

    numbers: list[int]


@dataclass(frozen=True, slots=True)
class EndFound:
    """The answer to LookForEnd, if there is a note: the run that was over at this address last, and how long ago.

    `ended_by` is who ended a run early, at its user's word: "collector" or "distributor". Which run is not said then.
    """

    run: str
    seconds: float
    ended_by: str = ""


@dataclass(frozen=True, slots=True)
class InitDone:
    """The answer to Initialize: the init functions have returned, in each thread."""


@dataclass(frozen=True, slots=True)
class InitFailed:
    """`init_worker` or `init_thread` raised; nothing can be executed here."""

    trouble: ErrorInfo


@dataclass(frozen=True, slots=True)
class Retire:
    """This process shall end its work in good order, however long that takes, so that another takes its place.

    `reason` follows "The worker ends its work:"; `level` is that of the log line.
    """

    reason: str
    level: int = 20


@dataclass(frozen=True, slots=True)
class ThreadLost:
    """An item ran past its timeout (its failure comes in an Executed): its thread is lost, `free` are left.

    None is left also if a thread had no memory to go on with: what it was at is known to nobody.
    """

    free: int


# collector: what its journal holds, and answers to Collect, CallFailed and CallFinished ------------------------------


@dataclass(frozen=True, slots=True)
class DistributorEnds:
    """Whoever started this collector ends its distributor, and starts no other."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a journal held when it was opened: told to the machine before anything else. `metadata` is a packed dict.

    `keys` holds, by task, the digests of collected keys; `failed_keys` those of failed items, by number. `ack_task` and
    `ack_data` are those of the last Ack. `over`: every item is done, with these `counts`, and `ok` says whether all are
    collected; `finished`: the `finished` function has returned, too.
    """

    run: str
    metadata: bytes
    progress: list[TaskProgress]
    keys: dict[str, set[bytes]] = field(default_factory=dict)
    failed_keys: dict[str, dict[int, bytes]] = field(default_factory=dict)
    finished: bool = False
    ok: bool = False
    counts: list[TaskCounts] = field(default_factory=list)
    ack_task: str = ""
    ack_data: bytes = b""
    over: bool = False
    outboxes: list[Outbox] = field(default_factory=list)
    pauses: list[TaskPause] = field(default_factory=list)
    """The tasks that pause, and for how much longer."""
    aside: bool = False
    """It counts only if a distributor begins this very run here: nobody has asked for a journal."""


@dataclass(frozen=True, slots=True)
class JournalFailed:
    """The journal cannot be written: what is not in it is not acknowledged, and nothing more is collected.

    `may_pass`: the reason may be gone later, such as a full disk.
    """

    trouble: ErrorInfo
    may_pass: bool = False


@dataclass(frozen=True, slots=True)
class Collected:
    """The collector's function returned for the items in `spans` of one Collect, and raised for those in `failures`.

    `data` is the packed dict for the next Ack, or empty; the payloads of the failed ones come back for the record.
    `trouble` is what `ack_data` raised, if it did.
    """

    task: str
    spans: Spans
    failures: list[tuple[int, ErrorInfo, bytes]]
    data: bytes
    attempt: int = 1
    trouble: ErrorInfo | None = None
    each: list[tuple[int, bytes]] = field(default_factory=list)
    """If they were wanted: the data for the ACK of each item in `spans`, as (how many in a row, data)."""
    outboxes: list[Outbox] = field(default_factory=list)
    """What the outboxes hold now, with all that these items gave."""
    unfed: dict[int, str] = field(default_factory=dict)
    """The failures of a function that makes items of results, not of the collector's own: each with feed or gather."""


@dataclass(frozen=True, slots=True)
class FailedCalled:
    """The `failed` function was told of these items."""

    task: str
    spans: Spans
    trouble: ErrorInfo | None = None
    outboxes: list[Outbox] = field(default_factory=list)
    """As in Collected."""
    ungathered: ErrorInfo | None = None
    """What a function that gathers raised for a group whose last item is one of these."""


@dataclass(frozen=True, slots=True)
class Given:
    """A fed task has more of its own first items, or has all of them."""

    outboxes: list[Outbox]


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to Fetch: these items, in order; what is missing between them is done."""

    task: str
    spans: Spans
    payloads: Blobs
    values: bytes = b""
    until: float = 0.0
    """As in the message of this name."""


@dataclass(frozen=True, slots=True)
class FinishedCalled:
    """The `finished` function returned or raised. `data` is the dict that it returned, packed, or empty."""

    trouble: ErrorInfo | None = None
    data: bytes = b""


# service client: what its user wants ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submit:
    """Requests for one service, numbered by the submitter; `timeout` in seconds, None for ever."""

    service: str
    numbers: list[int]
    payloads: Blobs
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Nobody waits for these requests any more."""

    numbers: list[int]


Event: TypeAlias = (
    Connected
    | Disconnected
    | Received
    | PeerLost
    | Tick
    | Drain
    | WorkerDied
    | WorkersDesired
    | Produced
    | MetadataLoaded
    | Executed
    | Running
    | TakenBack
    | EndFound
    | InitDone
    | InitFailed
    | Retire
    | ThreadLost
    | DistributorEnds
    | Restored
    | JournalFailed
    | Collected
    | FailedCalled
    | Given
    | Fetched
    | FinishedCalled
    | Submit
    | Withdraw
)
