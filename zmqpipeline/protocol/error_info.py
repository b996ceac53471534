"""What user code raised, and for which items: records of messages."""

from __future__ import annotations

from zmqpipeline.protocol.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """Why a call of user code failed, as text: the type's name, its message, the traceback.

    `place` is where it was raised, ``boom.py:14 collect``; empty if nothing was raised. `span` is that of the call, if
    traces are on.
    """

    error: str
    message: str
    traceback: str = ""
    place: str = ""
    span: bytes = b""


NEVER_RETRIED = frozenset({"zmqpipeline.errors.FieldError"})
"""Errors that the same item would meet again."""


RETRY = "zmqpipeline.errors.Retry"
"""What a function raises that wants its item again."""


@dataclass(frozen=True, slots=True)
class TaskError:
    """What the source, gate, key or metadata function of a task raised; `task` is "metadata" for the last."""

    task: str
    trouble: ErrorInfo


@dataclass(frozen=True, slots=True)
class FailedItem:
    """One item that is given up. `stage` is where: worker, collector, feed, gather, distributor or crash."""

    task: str
    number: int
    attempts: int
    stage: str
    trouble: ErrorInfo
    payload: bytes
    key: bytes = b""
    """The digest of its key, if its task has keys."""


@dataclass(frozen=True, slots=True)
class FailedKind:
    """So many items failed alike, and the first of them, perhaps without its payload."""

    items: int
    first: FailedItem
