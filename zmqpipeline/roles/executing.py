"""What workers of tasks and of services have in common: user code that is called for an item, on threads of a pool."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from zmqpipeline.options import Options
from zmqpipeline.protocol.commands import Execute, TakeBack
from zmqpipeline.roles.attributes import with_accepted_args
from zmqpipeline.roles.calls import FIRST, guarded
from zmqpipeline.roles.runner import CLOSE_SECONDS, Actions, RoleRunner, RunnerSettings
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.pool import Pool
from zmqpipeline.runtime.threads.preparation import Beginning, Preparation
from zmqpipeline.runtime.threads.shares import QUANTUM


class ItemHandler(ABC):
    """The handler of an item: what a worker calls, be it a class of the user or decorated functions."""

    @abstractmethod
    def slots(self) -> int:
        """On how many threads it is called at the same time."""

    @abstractmethod
    def execution(self, options: Options) -> Execution:
        """What is called for each item; made anew when the run's metadata are known."""

    @abstractmethod
    def inits(self) -> tuple[Callable[[], object], Callable[[int], object]]:
        """What is called once, just before the first item, and then once in each thread with its index, from 0."""

    @abstractmethod
    def init_names(self) -> tuple[str, str]:
        """What these two are called in log lines."""


class ClassHandler(ItemHandler):
    """The methods of a user's worker class; a subclass knows which of them is called for an item."""

    def __init__(self, worker: Any) -> None:
        """`worker` has `init_worker` and `init_thread`."""
        self.worker = worker

    def slots(self) -> int:
        """One, unless the class says otherwise."""
        return 1

    def inits(self) -> tuple[Callable[[], object], Callable[[int], object]]:
        """The user's methods; that for threads may leave the index out."""
        return self.worker.init_worker, with_accepted_args(self.worker.init_thread, 1)

    def init_names(self) -> tuple[str, str]:
        """With the name of the class."""
        name = type(self.worker).__name__
        return f"{name}.init_worker", f"{name}.init_thread"


class ExecutingRunner(RoleRunner):
    """Runs a worker: its pool of threads, and how they begin."""

    def __init__(
        self,
        role: Any,
        settings: RunnerSettings | None = None,
        *,
        handler: ItemHandler,
        threads: int | None = None,
    ) -> None:
        """`threads`: instead of as many as the handler has."""
        super().__init__(role, settings)
        self.handler = handler
        self.watch: Callable[[Execution], Execution] | None = None
        """What a test run puts around the user's function."""
        self._threads = threads
        self._pool: Pool | None = None
        self._preparation: Preparation | None = None
        self._beginning: Beginning | None = None

    def slots(self) -> int:
        """As many as it was told, or as the handler has."""
        return self._threads or self.handler.slots()

    def preparation(self) -> Preparation:
        """What readies the threads."""
        init_worker, init_thread = self.handler.inits()

        def begin() -> None:
            self._log.debug("The first item is here: init_worker is called.")
            init_worker()

        return Preparation(begin, init_thread, self.handler.init_names())

    def execution(self) -> Execution:
        """What the threads call for an item: user code, with what the options ask for around it."""
        made = self.handler.execution(self.options)
        if self.watch is not None:
            made = self.watch(made)
        made.call, made.placed = guarded(made.call, self._guards(), self._about, value=FIRST, placed=made.placed)
        return made

    def _guards(self) -> Options:
        """The options for what is around each call."""
        return self.options

    def _about(self, item: Any, index: int, number: int, attempt: int) -> dict[str, str | int]:
        return {"task": str(self.role.task_type), "item": number, "attempt": attempt}

    def _start_pool(
        self,
        post: Callable[[Any], None],
        pool_post: Callable[[Any], None],
        failures: FailureLog,
        quantum: float = QUANTUM,
    ) -> Actions:
        """Make the pool, which answers by `pool_post`; what to do with the commands that are for it."""
        self._preparation, slots, tell = self.preparation(), self.slots(), self.process.tell_parent
        self._beginning = Beginning(self._preparation, slots, self.role.init_timeout, post, tell, self._log)
        self._pool = pool = Pool(
            slots,
            self.execution(),
            pool_post,
            thread_start=self._beginning.begin,
            leadership=self._leadership,
            task=str(self.role.task_type),
            failures=failures,
            quantum=quantum,
        )
        return {Execute: pool.submit, TakeBack: lambda command: pool.take_back(command.count)}

    def _close(self) -> None:
        if self._beginning is not None:
            self._beginning.close()
        if self._pool is not None:
            self._pool.close(CLOSE_SECONDS)
            self._pool = None

    def _raise_failed_init(self, whose: str) -> None:
        """Raise WorkerInitError if an init function raised."""
        if self._preparation is not None:
            self._preparation.conclude(whose)
