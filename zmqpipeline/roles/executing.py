"""What workers of tasks and of services have in common: user code that is called for an item, on threads of a pool."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from zmqpipeline.errors import ConfigurationError
from zmqpipeline.options import Options
from zmqpipeline.protocol.commands import Execute, Initialize, TakeBack
from zmqpipeline.roles.attributes import is_async, with_accepted_args
from zmqpipeline.roles.calls import FIRST, guarded
from zmqpipeline.roles.runner import CLOSE_SECONDS, Actions, RoleRunner, RunnerSettings
from zmqpipeline.runtime import child_report
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.lifetime import Lifetime, complete
from zmqpipeline.runtime.threads.pool import Pool
from zmqpipeline.runtime.threads.preparation import Beginning, Preparation
from zmqpipeline.runtime.threads.shares import QUANTUM
from zmqpipeline.runtime.threads.times import TimeCounter
from zmqpipeline.serialization.pack import MAX_DEPTH

if TYPE_CHECKING:
    from zmqpipeline.runtime.threads.coroutines import CoroutinePool
    from zmqpipeline.runtime.traces import Tracing


CONCURRENCY = 100
"""How many calls of an async method go on at a time, if its class says None."""


class ItemHandler(ABC):
    """The handler of an item: what a worker calls, be it a class of the user or decorated functions."""

    @abstractmethod
    def slots(self) -> int:
        """On how many threads it is called at the same time."""

    @abstractmethod
    def execution(self, options: Options) -> Execution:
        """What is called for each item; made anew when the run's metadata are known."""

    def concurrency(self) -> int | None:
        """How many calls of an async function go on at a time; None: it is a plain one, which is called on threads."""
        return None

    def batch(self) -> int:
        """How many items a call takes at most, as a list; 0: it takes one item."""
        return 0

    @abstractmethod
    def what(self) -> str:
        """What is called, for messages."""

    def check(self) -> None:  # noqa: B027 - functions are checked when they are registered
        """Raise ConfigurationError if it cannot be called."""

    @abstractmethod
    def inits(self) -> tuple[Callable[[], object], Callable[[int], object]]:
        """What is called once, just before the first item, and then once in each thread with its index, from 0.

        Each may return what is to be awaited, or a generator that closes what it made; see `Lifetime`.
        """

    def has_inits(self) -> bool:
        """Whether the `inits` do anything."""
        return True

    def keep(self, resource: Any) -> None:  # noqa: B027 - methods keep for themselves what they make
        """What the first of the `inits` made."""

    def keep_own(self, index: int, resource: Any) -> None:  # noqa: B027
        """What the second one made in this thread."""

    @abstractmethod
    def init_names(self) -> tuple[str, str]:
        """What these two are called in log lines."""


class ClassHandler(ItemHandler):
    """The methods of a user's worker class; a subclass knows which of them is called for an item."""

    method: ClassVar[str]
    """The name of that."""

    def __init__(self, worker: Any) -> None:
        """`worker` has `init_worker` and `init_thread`."""
        self.worker = worker

    def slots(self) -> int:
        """One, unless the class says otherwise."""
        return 1

    def concurrency(self) -> int | None:
        """As the class declares, of an async method."""
        if not inspect.iscoroutinefunction(getattr(self.worker, self.method)):
            return None
        return int(self.worker.concurrency or CONCURRENCY)

    def what(self) -> str:
        """The method, with where it is written."""
        return named(f"{type(self.worker).__name__}.{self.method}", getattr(self.worker, self.method))

    def check(self) -> None:
        """Async init methods need an async method."""
        name = type(self.worker).__name__
        for init in ("init_worker", "init_thread"):
            if is_async(getattr(self.worker, init)) and self.concurrency() is None:
                raise ConfigurationError(
                    f"{name}.{init} is an async method, and {name}.{self.method} is a plain one, which has no event "
                    "loop. Write both with `async def`, or both with `def`."
                )

    def inits(self) -> tuple[Callable[[], object], Callable[[int], object]]:
        """The user's methods; that for threads may leave the index out."""
        return self.worker.init_worker, with_accepted_args(self.worker.init_thread, 1)

    def has_inits(self) -> bool:
        """Whether the class has one of its own; those that do nothing are where this handler is."""
        ours = type(self).__module__
        return any(getattr(self.worker, name).__module__ != ours for name in ("init_worker", "init_thread"))

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
        self.slowest = 0
        """So many of the slowest items are told to whoever started the process, at its end; then each call is timed."""
        self._threads = threads
        self._times = TimeCounter()
        self._pool: Pool | CoroutinePool | None = None
        self._preparation: Preparation | None = None
        self._beginning: Beginning | None = None

    def prepare(self) -> None:
        """Look whether what is called can be called."""
        self.handler.check()
        self._times = TimeCounter(self.calls(), self.slowest)

    def slots(self) -> int:
        """How many items are executed at a time: in as many calls as it was told, or as the handler has."""
        return self.calls() * (self.handler.batch() or 1)

    def calls(self) -> int:
        """How many calls go on at a time."""
        return self.handler.concurrency() or self.threads()

    def threads(self) -> int:
        """Async calls share one."""
        return 1 if self.handler.concurrency() else self._threads or self.handler.slots()

    def preparation(self) -> Preparation:
        """What readies the threads, and closes at the end what was opened."""
        handler, names = self.handler, self.handler.init_names()
        init_worker, init_thread = handler.inits()
        opened = Lifetime(names[0])
        in_thread: dict[int, Lifetime] = {}
        call: Callable[[Callable[[], Any]], Any] = _call
        if handler.concurrency():
            call = complete

        def begin() -> Any:
            self._log.debug("The first item is here: init_worker is called.")
            return opened.open(init_worker(), handler.keep)

        def begin_thread(index: int) -> Any:
            in_thread[index] = Lifetime(names[1])
            return in_thread[index].open(init_thread(index), partial(handler.keep_own, index))

        return Preparation(
            partial(call, begin),
            lambda index: call(partial(begin_thread, index)),
            names,
            close_worker=partial(call, opened.close),
            close_thread=lambda index: call(in_thread[index].close) if index in in_thread else None,
        )

    def execution(self) -> Execution:
        """What the threads call for an item: user code, with what the options ask for around it."""
        made = self.handler.execution(self.options)
        if self._tracing is not None:
            self._trace(made, self._tracing)
        if self.watch is not None:
            made = self.watch(made)
        made.call, made.placed = guarded(
            made.call,
            self._guards_of_list() if made.batch else self._guards(),
            self._about_batch if made.batch else self._about,
            value=FIRST,
            placed=made.placed,
            is_async=made.is_async,
        )
        return made

    def _trace(self, made: Execution, tracing: Tracing) -> None:
        """Put spans around it."""
        task, call = str(self.role.task_type), made.with_place()
        made.call = tracing.executing(task, call, is_async=made.is_async, batch=bool(made.batch))
        made.placed = True
        if self.end_to_end:
            # what a client of a service gets is nobody's parent
            pack_of, most = made.packer, self.options.max_message_bytes
            made.packer = lambda: tracing.packing(pack_of(), most)

    def _guards(self) -> Options:
        """The options for what is around each call."""
        return self.options

    def _guards_of_list(self) -> Options:
        # a list is one level deeper than the items in it
        return replace(self.options, max_depth=min(MAX_DEPTH, self.options.max_depth + 1))

    def _about(self, item: Any, index: int, number: int, attempt: int) -> dict[str, str | int]:
        return {"task": str(self.role.task_type), "item": number, "attempt": attempt}

    def _about_batch(self, items: Any, index: int, numbers: Any, attempt: int) -> dict[str, str | int]:
        of_one = {"item": numbers[0]} if len(numbers) == 1 else {"items": len(numbers)}
        return {"task": str(self.role.task_type), **of_one, "attempt": attempt}

    def _start_pool(
        self,
        post: Callable[[Any], None],
        pool_post: Callable[[Any], None],
        failures: FailureLog,
        quantum: float = QUANTUM,
    ) -> Actions:
        """Make the pool, which answers by `pool_post`; what to do with the commands that are for it."""
        self._preparation, tell = self.preparation(), self.process.tell_parent
        self._beginning = Beginning(self._preparation, self.threads(), self.role.init_timeout, post, tell, self._log)
        settings: dict[str, Any] = {
            "thread_start": self._beginning.begin,
            "thread_end": self._preparation.finish,
            "task": str(self.role.task_type),
            "failures": failures,
            "quantum": quantum,
            "times": self._times,
        }
        pool: Pool | CoroutinePool
        if self.handler.concurrency():
            # who has no async function does not pay for asyncio when it starts
            from zmqpipeline.runtime.threads.coroutines import CoroutinePool

            pool = CoroutinePool(self.calls(), self.execution(), pool_post, what=self.handler.what(), **settings)
        else:
            pool = Pool(self.calls(), self.execution(), pool_post, leadership=self._leadership, **settings)
        self._pool = pool
        return {
            Initialize: lambda command: pool.begin(),
            Execute: pool.submit,
            TakeBack: lambda command: pool.take_back(command.count),
        }

    def _close(self) -> None:
        # what it opened may take long to close: whoever started this process waits for that
        self.process.tell_parent(child_report.CLOSING)
        if self._beginning is not None:
            self._beginning.close()
        if self._pool is not None:
            self._pool.close(CLOSE_SECONDS)
            self._pool = None
        if self._preparation is not None:
            self._preparation.wait(self.options.drain_timeout)
        if self.slowest:
            times = self._times
            self.process.tell_parent(child_report.work_done(times.read(), times.slowest(), self.slots()))

    def _raise_failed_init(self, whose: str) -> None:
        """Raise WorkerInitError if an init function raised."""
        if self._preparation is not None:
            self._preparation.conclude(whose)


def _call(function: Callable[[], Any]) -> Any:
    return function()
