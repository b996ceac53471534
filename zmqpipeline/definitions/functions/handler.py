"""What decorated functions of workers and of services have in common: their resources, and the names that they take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from zmqpipeline.definitions.functions.names import name_of
from zmqpipeline.definitions.keywords import ServiceKeywords, WorkerKeywords
from zmqpipeline.definitions.signatures import Handler
from zmqpipeline.options import Options
from zmqpipeline.roles.executing import ItemHandler
from zmqpipeline.runtime.threads.execution import Execution

Packer = Callable[[], Callable[[Any], bytes]]
"""Makes what packs results, for one thread."""


class FunctionHandler(ItemHandler):
    """A function that is called for an item, and those that make its resources."""

    def __init__(
        self,
        plan: Handler,
        keywords: WorkerKeywords | ServiceKeywords,
        inits: tuple[Handler | None, Handler | None],
        constants: Callable[[], Mapping[str, Any]],
        packer: Callable[[str, Options], Packer],
    ) -> None:
        """`inits` are for the worker and for each thread; `packer` packs what a function returned.

        What an init function returns is the function's `resource`, the thread's own one first. `constants` are the
        values by name that stay the same for a run.
        """
        self._plan, self._keywords, self._constants, self._packer = plan, keywords, constants, packer
        self._worker_init, self._thread_init = inits
        self._resource: Any = None
        self._resources: dict[int, Any] = {}

    def slots(self) -> int:
        """As it was decorated."""
        return self._keywords["threads"]

    def concurrency(self) -> int | None:
        """As it was decorated."""
        return self._keywords["concurrency"] if self._plan.is_async else None

    def batch(self) -> int:
        """As it was decorated."""
        given: Mapping[str, Any] = self._keywords
        return given.get("batch") or 0

    def what(self) -> str:
        """The function, with where it is written."""
        return f"The {name_of(self._plan)}"

    def inits(self) -> tuple[Callable[[], object], Callable[[int], object]]:
        """What makes the resources, by the init functions if there are any."""
        return self._init_worker, self._init_thread

    def has_inits(self) -> bool:
        """Whether there is an init function."""
        return self._worker_init is not None or self._thread_init is not None

    def init_names(self) -> tuple[str, str]:
        """The init functions."""
        worker, thread = self._worker_init, self._thread_init
        return "init_worker" if worker is None else worker.what, "init_thread" if thread is None else thread.what

    def _init_worker(self) -> Any:
        return None if self._worker_init is None else self._worker_init.bind(self._constants())()

    def _init_thread(self, index: int) -> Any:
        if self._thread_init is None:
            return None
        return self._thread_init.bind(self._constants())(thread_index=index, resource=self._resource)

    def keep(self, resource: Any) -> None:
        """All threads have it."""
        self._resource = resource

    def keep_own(self, index: int, resource: Any) -> None:
        """The thread has it; if it is None, that of the worker."""
        self._resources[index] = self._resource if resource is None else resource

    def execution(self, options: Options) -> Execution:
        """The function as it is, if it takes the item alone; else with what it takes by name."""
        bound = self._plan.bind(self._constants())
        function, rest, packer = bound.function, bound.rest, self._packer(self.what(), options)
        more: dict[str, Any] = {"is_async": self._plan.is_async, "batch": self.batch(), "what": self.what()}
        if not rest:
            return Execution(function, packer, **more)
        resources = self._resources

        def call(item: Any, index: int, number: int, attempt: int) -> Any:
            resource = resources.get(index)
            values = {
                "thread_index": index,
                "number": number,
                "numbers": number,
                "attempt": attempt,
                "resource": resource,
            }
            return function(item, **{name: values[name] for name in rest})

        return Execution(call, packer, placed=True, **more)
