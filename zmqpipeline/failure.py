"""One item that was given up, as `@app.failed` functions and tests see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zmqpipeline.errors import SerializeError
from zmqpipeline.protocol.messages import FailedItem
from zmqpipeline.serialize import unpack


@dataclass(frozen=True)
class Failure:
    """What failed, where, and why; errors are text, since the exception was raised in another process."""

    task_type: str
    """The task that the item belongs to."""

    data: dict[str, Any]
    """The item as the task yielded it; empty if it could not be read."""

    stage: str
    """Where it failed: worker, collector, distributor, or crash (it took its worker with it)."""

    error: str
    """The type of the exception: ``ValueError``, ``json.JSONDecodeError``."""

    message: str
    """The text of the exception."""

    traceback: str
    """The traceback as text, or empty."""

    attempts: int
    """How often the item was tried."""

    @classmethod
    def from_item(cls, item: FailedItem) -> Failure:
        """The failure as the wire carries it, with its item opened."""
        trouble = item.trouble
        return cls(
            item.task,
            _opened(item.payload),
            item.stage,
            trouble.error,
            trouble.message,
            trouble.traceback,
            item.attempts,
        )

    def __str__(self) -> str:
        tries = f"{self.attempts} attempts" if self.attempts != 1 else "1 attempt"
        return f"An item of task {self.task_type!r} failed ({self.stage}, {tries}): {self.error}: {self.message}"


def _opened(payload: bytes) -> dict[str, Any]:
    if not payload:
        return {}
    try:
        data = unpack(payload)
    except SerializeError:
        return {}
    return data if isinstance(data, dict) else {}
