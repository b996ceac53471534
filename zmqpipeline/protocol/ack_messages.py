"""The messages of distributor and collector to each other, on the hop ``acks``; see `protocol.messages`."""

from __future__ import annotations

from dataclasses import field

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.error_info import ErrorInfo, FailedItem, FailedKind, TaskError
from zmqpipeline.protocol.spans import Blobs, Spans
from zmqpipeline.protocol.status_records import TaskCounts


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
    redelivered: int = 0
    """How many deliveries after the first one are known of, by whichever of both knows of more."""
    duplicates: int = 0
    """How many results came again."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """What a collector has for a task that results of others feed: all items with a number below `count`.

    It is never said before the ACK of the parents that gave them, and always together with that.
    """

    task: str
    count: int
    waiting: int
    """How many bytes the packed items have that are not done."""
    closed: bool
    """Its own first items are all among them, or there are none to come."""
    trouble: ErrorInfo | None = None
    """Why there are no more of its own first items, if their source raised."""


@dataclass(frozen=True, slots=True)
class AckNote:
    """What the ACKs with the numbers `first` to `last`, all of one task, carried: a packed dict, or nothing."""

    task: str
    first: int
    last: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TaskPause:
    """Nothing of this task is handed out for so many seconds from when this is said."""

    task: str
    seconds: float


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
    pauses: list[TaskPause] = field(default_factory=list)
    """As in Pauses."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Items that the distributor has given up; the collector answers them with an Ack like collected ones."""

    run: str
    failures: list[FailedItem]


@dataclass(frozen=True, slots=True)
class Pauses:
    """All tasks that pause, as functions of workers asked for; the collector keeps it for the next distributor."""

    run: str
    pauses: list[TaskPause]


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
class Fetch:
    """Items of a fed task from number `start` on: about `count` of them, of at most `max_bytes`; one, if it has more.

    Said again until Fetched answers; the newest counts.
    """

    run: str
    task: str
    start: int
    count: int
    max_bytes: int
    now: float = 0.0
    apart: float = 0.0
    burst: int = 1
    """If `apart` is not 0, so many seconds are to be between two items of one value, and so many may come at once.

    `now` is the distributor's clock.
    """


@dataclass(frozen=True, slots=True)
class Bye:
    """The distributor has heard Finished and leaves; the collector need not stay for it, and answers the same."""

    run: str


# both ways: what one of them forgot -----------------------------------------------------------------------------------


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
    outboxes: list[Outbox] = field(default_factory=list)
    """As in Holding, of a collector: what is done is not told before what it gave."""


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
    outboxes: list[Outbox] = field(default_factory=list)
    """What it has for tasks that results feed; with all that the items gave which are done by this."""
    pauses: list[TaskPause] = field(default_factory=list)
    """As it was told last, less the time that has passed since."""


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
    outboxes: list[Outbox] = field(default_factory=list)
    """As in Holding."""
    commits: int = 0
    """How many transactions this process has written to its journal, if there is one."""
    commit_seconds: float = 0.0
    """How long these took."""
    redelivered: int = 0
    """As in TaskProgress, of the whole task."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to Fetch: these items, in order. What is missing between the first and the last of them is done."""

    run: str
    task: str
    spans: Spans
    payloads: Blobs
    values: bytes = b""
    """Digests of the values that a rate goes by, KEY_BYTES each; empty if there is none."""
    until: float = 0.0
    """There are items, and none may be handed out before this time by the distributor's clock."""


@dataclass(frozen=True, slots=True)
class Noted:
    """The collector's answer to GiveUp: it has these, and need not be told again while it lives; their Ack follows."""

    run: str
    task: str
    spans: Spans


@dataclass(frozen=True, slots=True)
class Failing:
    """Why items failed, as far as the collector knows: said when that has changed, at most once a second.

    It is for whoever asks how the run stands, and nothing else depends on it. `kinds` are of its whole life.
    """

    run: str
    kinds: list[FailedKind]


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
