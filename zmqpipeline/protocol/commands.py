"""What to do: the commands that a machine answers with. The order of the list is meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import TypeAlias

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.events import Peer
from zmqpipeline.protocol.messages import (
    AckNote,
    Blobs,
    Envelope,
    ErrorInfo,
    FailedItem,
    Spans,
    TaskCounts,
    TaskPause,
    TaskProgress,
)


@dataclass(frozen=True, slots=True)
class Send:
    """Send this; if the connection is gone, it is lost, and the machine will hear of it by an event."""

    peer: Peer
    envelope: Envelope


@dataclass(frozen=True, slots=True)
class Log:
    """Write a log line for people. `level` is a number of the logging module (10, 20, 30, 40)."""

    level: int
    text: str
    about: dict[str, str | int] = field(default_factory=dict)
    """Any of task, item, attempt and worker, where the line is about one: for programs that read it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The role is over, with this exit status; `reason` is for the log and for the error that `run()` may raise."""

    status: int
    reason: str = ""


# distributor ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoadMetadata:
    """Call the metadata function of this process; MetadataLoaded answers."""


@dataclass(frozen=True, slots=True)
class StartTasks:
    """The run begins (or is taken over): give the tasks this packed metadata before their first step."""

    metadata: bytes


@dataclass(frozen=True, slots=True)
class Produce:
    """Take up to `count` steps of this task's source for a worker; Produced answers, perhaps in several parts.

    `address` names the worker for `handle`; `ack_task`, `ack_id`, `ack_data` are those of the last Ack.
    Before these, `over` items are passed over: they are done, and nobody needs to see them.
    """

    task: str
    count: int
    address: str
    ack_task: str
    ack_id: int
    ack_data: bytes
    acks: list[AckNote] = field(default_factory=list)
    """For a task with a gate: the ACKs that it has not been asked with, up to that one."""
    over: int = 0


# worker ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetMetadata:
    """The run's metadata, a packed dict, before the first Execute."""

    metadata: bytes


@dataclass(frozen=True, slots=True)
class Execute:
    """Queue these items for the worker's threads; Executed answers, in parts. `timeout` in seconds, 0 for none.

    Those on `trial` were lost with a worker before: each is called alone, also where a call takes several.
    """

    task: str
    attempt: int
    timeout: float
    numbers: Sequence[int]
    payloads: Blobs
    trial: bool = False


@dataclass(frozen=True, slots=True)
class Initialize:
    """Items are here: begin the threads, which call the init functions; InitDone or InitFailed answers, once."""


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Take unstarted items off the queue, the last first; TakenBack answers. `count` None means all of them."""

    count: int | None = None


@dataclass(frozen=True, slots=True)
class LookForEnd:
    """See whether a run has ended at the addresses of this role; if so, EndFound answers."""


# collector ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetRun:
    """The run begins: its metadata, a packed dict, for the collector's functions.

    The rest is for the journal: what a distributor knows of the run that an earlier collector has done. It is empty
    when the run is as the journal holds it.
    """

    run: str
    metadata: bytes
    progress: list[TaskProgress] = field(default_factory=list)
    keys: dict[str, set[bytes]] = field(default_factory=dict)
    failed_keys: dict[str, dict[int, bytes]] = field(default_factory=dict)
    ack_task: str = ""
    ack_data: bytes = b""
    """Those of the last Ack that the distributor has heard."""
    restored: bool = False
    """Whether it comes from the journal."""


@dataclass(frozen=True, slots=True)
class KeepPauses:
    """Write down in the journal, if there is one, that these tasks pause, and no others; nothing answers."""

    pauses: list[TaskPause]


@dataclass(frozen=True, slots=True)
class Collect:
    """Call the collector's function for each of these, in order; Collected answers, in parts of at most 10 ms.

    `keys` are the digests of their keys (KEY_BYTES each, in the order of the spans), for the journal.
    """

    task: str
    attempt: int
    spans: Spans
    payloads: Blobs
    keys: bytes = b""
    each: bool = False
    """Whether the data for the ACK of each item are wanted, not only those of the newest."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Look up items of a fed task: about `count` from number `start` on, none from `stop` on; Fetched answers."""

    task: str
    start: int
    stop: int
    max_bytes: int
    now: float = 0.0
    apart: float = 0.0
    burst: int = 1
    """As in the message of this name."""


@dataclass(frozen=True, slots=True)
class CallFailed:
    """Tell the `failed` function of these items; FailedCalled answers, one for each task among them."""

    failures: list[FailedItem]


@dataclass(frozen=True, slots=True)
class CallFinished:
    """Every item is done: write that down, call `finished`, write down that it returned; FinishedCalled answers."""

    ok: bool
    counts: list[TaskCounts] = field(default_factory=list)


# service client -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resolve:
    """These requests are answered, with these packed values."""

    numbers: list[int]
    payloads: Blobs


@dataclass(frozen=True, slots=True)
class Reject:
    """These requests get no answer. `kind` is "timeout" or one of messages.DECLINED_KINDS."""

    numbers: list[int]
    kind: str
    trouble: ErrorInfo


Command: TypeAlias = (
    Send
    | Log
    | Ended
    | LoadMetadata
    | StartTasks
    | Produce
    | SetMetadata
    | Initialize
    | Execute
    | TakeBack
    | LookForEnd
    | SetRun
    | KeepPauses
    | Collect
    | Fetch
    | CallFailed
    | CallFinished
    | Resolve
    | Reject
)
