"""What workers of tasks and of services have in common: how their threads begin."""

from __future__ import annotations

import threading
from collections.abc import Callable

from zmqpipeline.errors import WorkerInitError


class Preparation:
    """Readies a worker's threads: the first one initializes the worker while the others wait, then each itself.

    `error` is what an initialization raised, if one did; then no further thread begins.
    """

    def __init__(self, init_worker: Callable[[], object], init_thread: Callable[[int], object]) -> None:
        """Both are the user's; `init_thread` gets the number of its thread, from 0."""
        self.error: BaseException | None = None
        self._init_worker = init_worker
        self._init_thread = init_thread
        self._lock = threading.Lock()
        self._is_ready = False

    def begin(self, index: int) -> None:
        """Called in each thread, first; raises what the user's function raised."""
        try:
            with self._lock:
                if self.error is not None:
                    raise self.error
                if not self._is_ready:
                    self._init_worker()
                    self._is_ready = True
            self._init_thread(index)
        except BaseException as error:
            self.error = error
            raise

    def conclude(self, whose: str) -> None:
        """Raise WorkerInitError, caused by the error, if there was one; `whose` names the worker."""
        if self.error is not None:
            text = f"{whose} could not start: {type(self.error).__name__}: {self.error}"
            raise WorkerInitError(text) from self.error
