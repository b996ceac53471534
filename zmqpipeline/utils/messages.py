"""The same as `zmqpipeline.messages`, under the name of the first edition of the library."""

from __future__ import annotations

from zmqpipeline.messages import (
    MESSAGE_TYPE_ACK,
    MESSAGE_TYPE_DATA,
    MESSAGE_TYPE_EMPTY,
    MESSAGE_TYPE_END,
    MESSAGE_TYPE_FAILURE,
    MESSAGE_TYPE_META_DATA,
    MESSAGE_TYPE_READY,
    MESSAGE_TYPE_SUCCESS,
    MESSAGE_TYPES,
    create,
    create_ack,
    create_data,
    create_empty,
    create_end,
    create_failure,
    create_metadata,
    create_ready,
    create_success,
    get,
)

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
