"""The task: which items there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from examples.class_api import settings
from zmqpipeline import Task, TaskType


class NapTask(Task):
    """So many naps, one a call of `handle`."""

    task_type = settings.NAP
    endpoint = settings.WORKERS
    dependencies: Sequence[TaskType] = ()

    given = 0

    def handle(self, data: dict[str, Any], address: str, msgtype: str) -> dict[str, float] | None:
        """The next item; or, when there is none left, None and the word that the task is complete."""
        if self.given == settings.NAPS:
            self.is_complete = True
            return None
        self.given += 1
        return {"seconds": settings.NAP_SECONDS}
