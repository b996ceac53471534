"""What all programs of the example agree on: the task type and the addresses."""

from __future__ import annotations

import os

from zmqpipeline import EndpointAddress, TaskType

TaskType.register_type("NAP")
NAP = TaskType("NAP")

_SERVER = os.environ.get("NAP_SERVER", "")
"""The distributor's and collector's machine; without it everything is on this one, over ipc."""

_FOLDER = os.environ.get("NAP_FOLDER", ".")
"""Where the ipc sockets are, for all programs the same."""


_PORT = int(os.environ.get("NAP_PORT", "5561"))
"""The first of three ports, for tcp."""


def _address(name: str, step: int) -> EndpointAddress:
    return EndpointAddress(f"tcp://{_SERVER}:{_PORT + step}" if _SERVER else f"ipc://{_FOLDER}/{name}.ipc")


WORKERS = _address("workers", 0)
RESULTS = _address("results", 1)
ACKS = _address("acks", 2)

NAPS = int(os.environ.get("NAP_COUNT", "100"))
NAP_SECONDS = 0.01
