"""What workers of tasks and of services have in common: how many calls go on at a time, and what makes them."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from zmqpipeline.errors import ConfigurationError
from zmqpipeline.roles.base import CLOSE_SECONDS, Role
from zmqpipeline.runtime.failure_log import FailureLog
from zmqpipeline.runtime.log import about_calls, about_items
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.runtime.threads.lifetime import Lifetime
from zmqpipeline.runtime.threads.pool import Pool
from zmqpipeline.runtime.threads.preparation import Beginning, Preparation
from zmqpipeline.runtime.threads.serial import Post
from zmqpipeline.runtime.threads.shares import QUANTUM

ASYNC_INITS = "init_worker", "init_thread"


class Calling(Role):
    """A role that calls a function for each item or request: on threads, or, if it is async, on one event loop."""

    _calls: ClassVar[str]
    """The name of the method that is called."""

    concurrency: int | None = 100
    """If that method is an `async def`: so many calls of it go on at a time; None: 100."""

    init_timeout: float | None
    _threads: int | None
    _pool: Any
    _preparation: Preparation | None
    _beginning: Beginning | None

    def init_worker(self) -> None:
        """Called once before the first item."""

    def init_thread(self, worker_index: int) -> None:
        """Called once in each thread."""

    def _is_async(self) -> bool:
        return inspect.iscoroutinefunction(getattr(self, self._calls))

    def _slots(self) -> int:
        return self.concurrency or 100 if self._is_async() else self._user_threads()

    def _user_threads(self) -> int:
        return 1 if self._is_async() else self._threads or 1

    def _prepare(self) -> None:
        super()._prepare()
        if not self._is_async():
            for name in ASYNC_INITS:
                if inspect.iscoroutinefunction(getattr(self, name)):
                    cls = type(self).__name__
                    raise ConfigurationError(
                        f"{cls}.{name} is an async method, and {cls}.{self._calls} is a plain one, which has no event "
                        "loop. Write both with `async def`, or both with `def`."
                    )

    def _what(self) -> str:
        """The function that is called, for messages."""
        raise NotImplementedError

    def _init_names(self) -> tuple[str, str]:
        """What the init functions are called in log lines."""
        name = type(self).__name__
        return f"{name}.init_worker", f"{name}.init_thread"

    def _prepared(self, init_worker: Callable[[], object], init_thread: Callable[[int], object]) -> Preparation:
        complete: Callable[[Callable[[], Any]], Any] = _called
        if self._is_async():
            from zmqpipeline.runtime.threads.coroutines import complete as awaited

            complete = awaited
        names = self._init_names()
        worker, threads = Lifetime(names[0]), defaultdict[int, Lifetime](lambda: Lifetime(names[1]))

        def begin_thread(index: int) -> Any:
            return threads[index].open(init_thread(index), partial(self._has_thread, index))

        return Preparation(
            partial(complete, lambda: worker.open(init_worker(), self._has_worker)),
            lambda index: complete(partial(begin_thread, index)),
            names,
            close_worker=partial(complete, worker.close),
            close_thread=lambda index: complete(threads[index].close),
        )

    def _has_worker(self, resource: Any) -> None:
        """What `init_worker` made, for whoever passes it on."""

    def _has_thread(self, index: int, resource: Any) -> None:
        """The same of `init_thread`."""

    def _close(self) -> None:
        """End what executes; what was made for it is closed, and waited for."""
        if self._beginning is not None:
            self._beginning.close()
        if self._pool is not None:
            self._pool.close(CLOSE_SECONDS)
            self._pool = None
        if self._preparation is not None:
            self._preparation.wait(self.options.drain_timeout)

    def _begun(self, preparation: Preparation, post: Post) -> Beginning:
        return Beginning(preparation, self._user_threads(), self.init_timeout, post, self._tell_parent, self._log)

    def _make_pool(
        self,
        execution: Execution,
        post: Post,
        beginning: Beginning,
        *,
        task: str,
        failures: FailureLog,
        quantum: float = QUANTUM,
    ) -> Any:
        """A `Pool` or a `CoroutinePool`: who has no async function does not pay for asyncio when it starts."""
        if self._is_async():
            from zmqpipeline.runtime.threads.coroutines import CoroutinePool

            return CoroutinePool(
                self._slots(),
                execution,
                post,
                thread_start=beginning.begin,
                thread_end=self._preparation.finish if self._preparation else None,
                quantum=quantum,
                task=task,
                failures=failures,
                what=self._what(),
            )
        return Pool(
            self._slots(),
            execution,
            post,
            thread_start=beginning.begin,
            thread_end=self._preparation.finish if self._preparation else None,
            leadership=self._leadership,
            quantum=quantum,
            task=task,
            failures=failures,
        )

    def _about(self, task: str, call: Callable[[Any, int, int, int], Any]) -> Callable[[Any, int, int, int], Any]:
        """The same call; log lines of it are about its item."""
        return about_calls(task, call) if self._is_async() else about_items(task, call)


def _called(call: Callable[[], Any]) -> Any:
    return call()
