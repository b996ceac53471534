"""Ledgers, and what happens to their items."""

from __future__ import annotations

from zmqpipeline.protocol.messages import ErrorInfo, FailedItem

TROUBLE = ErrorInfo("ValueError", "no")


MEBIBYTE = 1 << 20


def failure(number: int, attempts: int = 1, stage: str = "worker") -> FailedItem:
    """What a worker says of an item for which its function raised."""
    return FailedItem("A", number, attempts, stage, TROUBLE, b"")
