"""What the init functions of a worker make, for its threads: each has its own, or that of the whole worker."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

from zmqpipeline.definitions.signatures import Handler


class Resources:
    """See the module. An async init function makes a coroutine, which is returned for whoever has an event loop."""

    def __init__(self, worker_init: Handler | None, thread_init: Handler | None) -> None:
        """The functions, if there are any."""
        self._worker_init = worker_init
        self._thread_init = thread_init
        self._shared: Any = None
        self._own: dict[int, Any] = {}

    def of(self, index: int) -> Any:
        """The resource of this thread."""
        return self._own.get(index)

    def open_worker(self, constants: Mapping[str, Any]) -> Coroutine[Any, Any, None] | None:
        """Make the resource of the whole worker."""
        if self._worker_init is None:
            return None
        made = self._worker_init.bind(constants)()
        if not isinstance(made, Coroutine):
            self._shared = made
            return None

        async def opened() -> None:
            self._shared = await made

        return opened()

    def open_thread(self, index: int, constants: Mapping[str, Any]) -> Coroutine[Any, Any, None] | None:
        """Make the thread's own resource; without one it has the worker's."""
        made = None
        if self._thread_init is not None:
            made = self._thread_init.bind(constants)(thread_index=index, resource=self._shared)
        if not isinstance(made, Coroutine):
            self._own[index] = self._shared if made is None else made
            return None

        async def opened() -> None:
            own = await made
            self._own[index] = self._shared if own is None else own

        return opened()
