"""What the init functions of a worker made, for its threads: each has its own, or that of the whole worker."""

from __future__ import annotations

from typing import Any


class Resources:
    """See the module."""

    def __init__(self) -> None:
        """There are none yet."""
        self.shared: Any = None
        """What `worker_init` made."""
        self._own: dict[int, Any] = {}

    def of(self, index: int) -> Any:
        """The resource of this thread."""
        return self._own.get(index)

    def keep_own(self, index: int, resource: Any) -> None:
        """What `thread_init` made there; if it is None, the thread has that of the worker."""
        self._own[index] = self.shared if resource is None else resource
