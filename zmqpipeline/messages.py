"""Messages as single frames: data with the name of its task and what kind of message it is.

They are for programs that store or send data of their own with a task and a type: a frame made here is read by `get`
here. They are not what travels between roles, which speak the richer language of `protocol.messages` with each other
and drop what is none of it: to ask a service, use `ServiceClient`. Handlers get one of these types as their `msgtype`.
"""

from __future__ import annotations

from typing import Any

from zmqpipeline.errors import SerializeError
from zmqpipeline.serialization.pack import pack, unpack

__all__ = [
    "MESSAGE_TYPES",
    "MESSAGE_TYPE_ACK",
    "MESSAGE_TYPE_DATA",
    "MESSAGE_TYPE_EMPTY",
    "MESSAGE_TYPE_END",
    "MESSAGE_TYPE_FAILURE",
    "MESSAGE_TYPE_META_DATA",
    "MESSAGE_TYPE_READY",
    "MESSAGE_TYPE_SUCCESS",
    "create",
    "create_ack",
    "create_data",
    "create_empty",
    "create_end",
    "create_failure",
    "create_metadata",
    "create_ready",
    "create_success",
    "get",
]

MESSAGE_TYPE_ACK = "ACK"
"""An acknowledgement."""
MESSAGE_TYPE_SUCCESS = "SUCCESS"
"""Something succeeded."""
MESSAGE_TYPE_FAILURE = "FAILURE"
"""Something failed."""
MESSAGE_TYPE_READY = "READY"
"""A worker is ready for an item."""
MESSAGE_TYPE_END = "END"
"""The run is over."""
MESSAGE_TYPE_DATA = "DATA"
"""An item, or a result."""
MESSAGE_TYPE_META_DATA = "META_DATA"
"""The metadata of a run."""
MESSAGE_TYPE_EMPTY = "EMPTY"
"""A message without data."""

MESSAGE_TYPES = (
    MESSAGE_TYPE_ACK,
    MESSAGE_TYPE_SUCCESS,
    MESSAGE_TYPE_FAILURE,
    MESSAGE_TYPE_READY,
    MESSAGE_TYPE_END,
    MESSAGE_TYPE_DATA,
    MESSAGE_TYPE_META_DATA,
    MESSAGE_TYPE_EMPTY,
)
"""All of them."""


def create(data: Any, tasktype: str, msgtype: str) -> bytes:
    """Return a frame of one of MESSAGE_TYPES. Raises SerializeError for another type, or data that cannot be packed."""
    if msgtype not in MESSAGE_TYPES:
        raise SerializeError(f"{msgtype!r} is no message type. Known: {', '.join(MESSAGE_TYPES)}.")
    if not isinstance(tasktype, str):
        raise SerializeError(f"The task type of a message is a string, not {type(tasktype).__name__}.")
    return pack([msgtype, tasktype, data])


def get(frame: bytes) -> tuple[Any, str, str]:
    """Return ``(data, task, msgtype)`` of a frame made here. Raises SerializeError for any other bytes."""
    parts = unpack(frame)
    if not isinstance(parts, list) or len(parts) != 3 or parts[0] not in MESSAGE_TYPES or not isinstance(parts[1], str):
        raise SerializeError("The frame is no message: it was not made by a create function of this module.")
    msgtype, task, data = parts
    return data, task, msgtype


def create_data(task: str, data: Any) -> bytes:
    """An item of a task, or a result of it."""
    return create(data, task, MESSAGE_TYPE_DATA)


def create_metadata(metadata: Any) -> bytes:
    """The metadata of a run; it belongs to no task."""
    return create(metadata, "", MESSAGE_TYPE_META_DATA)


def create_ack(task: str = "", data: Any = "") -> bytes:
    """An acknowledgement."""
    return create(data, task, MESSAGE_TYPE_ACK)


def create_success(task: str = "", data: Any = "") -> bytes:
    """A success."""
    return create(data, task, MESSAGE_TYPE_SUCCESS)


def create_failure(task: str = "", data: Any = "") -> bytes:
    """A failure."""
    return create(data, task, MESSAGE_TYPE_FAILURE)


def create_empty(task: str = "", data: Any = "") -> bytes:
    """A message that says nothing."""
    return create(data, task, MESSAGE_TYPE_EMPTY)


def create_ready(task: str = "", data: Any = "") -> bytes:
    """A worker's word that it is ready."""
    return create(data, task, MESSAGE_TYPE_READY)


def create_end(task: str = "", data: Any = "") -> bytes:
    """The end of a run."""
    return create(data, task, MESSAGE_TYPE_END)
