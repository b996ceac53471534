"""The engine of `app.test_run`: the real roles as threads of this process, over ``inproc://``."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from zmqpipeline.errors import ConfigurationError, ItemFailed, PipelineTimeout
from zmqpipeline.events import Event
from zmqpipeline.options import Options
from zmqpipeline.protocol.status_records import MAX_WORKERS
from zmqpipeline.roles.base import Role
from zmqpipeline.roles.collecting import ResultWatcher
from zmqpipeline.roles.collector import Collector, CollectorRunner
from zmqpipeline.roles.results import Failure, Reason, Summary
from zmqpipeline.roles.runner import RoleRunner
from zmqpipeline.roles.worker import Worker, WorkerRunner
from zmqpipeline.runtime.error_text import users_part
from zmqpipeline.runtime.journal import MEMORY
from zmqpipeline.runtime.threads.execution import Execution
from zmqpipeline.testing.hang_report import collector_line, distributor_lines, thread_lines, worker_line

if TYPE_CHECKING:
    from zmqpipeline.app import Pipeline

DRAIN_SECONDS = 2.0
"""How long the roles of a test may take to end when the time is up or something went wrong."""

MAX_SHOWN_CHARACTERS = 500
"""So much of an item is shown when it fails a test."""

STUCK = 70
"""The exit status of a worker whose threads are all stuck."""

_numbers = itertools.count(1)


@dataclass
class TestRun:
    """What came of `app.test_run()`."""

    __test__ = False

    results: list[tuple[str, dict[str, Any]]]
    """What was collected, in order: the task type and what the worker returned."""

    failures: list[Failure]
    """The items that were given up, in the order that the collector heard of them."""

    summary: Summary
    """The counts, and whether all went well."""

    events: list[Event] = field(default_factory=list)
    """What observers of all roles are told (`zmqpipeline.events`), in the order of its time."""


@dataclass
class _Notes(ResultWatcher):
    """What the roles of a test tell; each list is written by one thread at a time."""

    results: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    exceptions: dict[tuple[str, int], BaseException] = field(default_factory=dict)
    """What user code raised last for an item, by task and number: the wire carries only text."""
    first: tuple[Failure, BaseException | None] | None = None
    events: list[Event] = field(default_factory=list)
    first_broken: BaseException | None = None
    """What a function of the collector that is for no one item raised first: it is only logged elsewhere."""

    def collected(self, task: str, number: int, data: dict[str, Any]) -> None:
        """A result."""
        self.results.append((task, data))

    def raised(self, task: str, number: int, error: BaseException) -> None:
        """By the function of a worker or of the collector, for an item."""
        self.exceptions[task, number] = error

    def failed(self, task: str, number: int, failure: Failure) -> None:
        """An item is given up."""
        self.failures.append(failure)
        self.first = self.first or (failure, self.exceptions.get((task, number)))

    def broken(self, error: BaseException) -> None:
        """By a function for no one item."""
        self.first_broken = self.first_broken or error

    def observe(self, event: Event) -> None:
        """What any role tells, each on a thread of its own."""
        self.events.append(event)

    def watch(self, task: str, made: Execution) -> Execution:
        """What a worker calls; what it raises is kept."""
        if made.batch:
            return self._watch_batches(task, made)
        call = made.with_place()
        packers: dict[int, Callable[[Any], bytes]] = {}

        def packed(index: int, result: Any) -> bytes:
            if index not in packers:
                packers[index] = made.packer()
            # what cannot be packed fails the item, too
            return packers[index](result)

        def execute(item: Any, index: int, number: int, attempt: int) -> bytes:
            try:
                return packed(index, call(item, index, number, attempt))
            except BaseException as error:
                self.raised(task, number, error)
                raise

        async def execute_async(item: Any, index: int, number: int, attempt: int) -> bytes:
            try:
                return packed(index, await call(item, index, number, attempt))
            except BaseException as error:
                self.raised(task, number, error)
                raise

        call_it = execute_async if made.is_async else execute
        return Execution(call_it, lambda: bytes, placed=True, is_async=made.is_async)

    def _watch_batches(self, task: str, made: Execution) -> Execution:
        call = made.with_place()

        def keep(numbers: Sequence[int], results: Any) -> Any:
            for number, result in zip(numbers, results, strict=False) if isinstance(results, list) else ():
                if isinstance(result, BaseException):
                    self.raised(task, number, result)
            return results

        def execute(items: Any, index: int, numbers: Sequence[int], attempt: int) -> Any:
            try:
                return keep(numbers, call(items, index, numbers, attempt))
            except BaseException as error:
                keep(numbers, [error] * len(numbers))
                raise

        async def execute_async(items: Any, index: int, numbers: Sequence[int], attempt: int) -> Any:
            try:
                return keep(numbers, await call(items, index, numbers, attempt))
            except BaseException as error:
                keep(numbers, [error] * len(numbers))
                raise

        call_it = execute_async if made.is_async else execute
        return Execution(call_it, made.packer, placed=True, is_async=made.is_async, batch=made.batch, what=made.what)


class RoleThread(threading.Thread):
    """Runs one role; what it raised is kept. It tells of its end by a queue."""

    def __init__(self, name: str, role: Role, ended: SimpleQueue[RoleThread]) -> None:
        """`name` is the thread's name, `ended` the queue into which it puts itself."""
        super().__init__(name=name, daemon=True)
        self.role = role
        self.error: BaseException | None = None
        """What the role raised, if it did."""
        self._queue = ended

    def run(self) -> None:
        """Run the role."""
        try:
            RoleRunner.of(self.role).run(raise_failed_run=False)
        except BaseException as error:
            self.error = error
        finally:
            self._queue.put(self)


def run_in_threads(
    app: Pipeline,
    *,
    workers: int | Mapping[str, int] | None = None,
    metadata: Mapping[str, Any] | None = None,
    timeout: float = 10.0,
    raise_failures: bool = True,
) -> TestRun:
    """Run the real roles of an app as threads over ``inproc://``; with a journal in memory, if a function takes it.

    Args:
        app: the pipeline; its set-up ends here.
        workers: how many for every task, or a dict by task type; 1 each by default.
        metadata: added to what the metadata function returns.
        timeout: seconds for the whole run.
        raise_failures: raise what the first failed item failed of: the exception that user code raised, caused by an
            `ItemFailed` that says which item; or that `ItemFailed` itself, if nothing was raised. Its `failure` is
            the record. Then, what a `finished`, `failed` or `ack_data` function raised.

    Raises:
        PipelineTimeout: it was not over in time; the text says what each role and each user function was doing.
        Exception: what a source, gate, key, metadata or init function raised.
    """
    __tracebackhide__ = True
    began = time.monotonic()
    notes = _Notes()
    options = replace(
        Options.from_environ(app.options, os.environ),
        endpoint=f"inproc://zmqpipeline-test-{os.getpid()}-{next(_numbers)}",
        journal=None,
        drain_timeout=DRAIN_SECONDS,
        idle_timeout=None,
    )
    run = _Run(app, options, worker_numbers(app, workers), metadata, notes)
    run.carry_out(timeout)
    summary = Summary.from_counts(run.counts(), ok=run.ok(), seconds=time.monotonic() - began, reasons=run.reasons())
    if raise_failures and notes.first is not None:
        raise_failure(*notes.first)
    if raise_failures and notes.first_broken is not None:
        raise notes.first_broken
    return TestRun(notes.results, notes.failures, summary, sorted(notes.events, key=attrgetter("time")))


def worker_numbers(app: Pipeline, workers: int | Mapping[str, int] | None) -> dict[str, int]:
    """How many workers each task gets; ends the set-up.

    Raises:
        ConfigurationError: the app does not fit together, a task is unknown, or a number is below 0.
    """
    app.freeze()
    if workers is None or isinstance(workers, int):
        numbers = dict.fromkeys(app.worker_types, 1 if workers is None else workers)
    else:
        numbers = {**dict.fromkeys(app.worker_types, 1), **workers}
    for name, number in numbers.items():
        if name not in app.worker_types:
            raise ConfigurationError(f"workers= names the task {name!r}, for which there is no worker.")
        if not 0 <= number <= MAX_WORKERS:
            raise ConfigurationError(
                f"workers= asks for {number} workers of task {name!r}. Give 0 or more, {MAX_WORKERS} at most."
            )
    return numbers


def raise_failure(failure: Failure, raised: BaseException | None) -> None:
    """Raise what an item failed of, caused by an `ItemFailed`; or that one, if nothing was raised."""
    # pytest shows the frames of the user's function, and not ours around it
    __tracebackhide__ = True
    shown = repr(failure.data)
    shown = shown if len(shown) <= MAX_SHOWN_CHARACTERS else f"{shown[:MAX_SHOWN_CHARACTERS]}..."
    told = ItemFailed(f"{failure}\nThe item: {shown}", failure)
    if raised is None or isinstance(raised, (SystemExit, KeyboardInterrupt)):
        # those would end the test session, not the test
        raise told from raised
    raise raised.with_traceback(users_part(raised.__traceback__) or raised.__traceback__) from told


class _Run:
    """The threads of one test run."""

    def __init__(
        self,
        app: Pipeline,
        options: Options,
        numbers: Mapping[str, int],
        metadata: Mapping[str, Any] | None,
        notes: _Notes,
    ) -> None:
        self._before = set(threading.enumerate())
        self._app, self._options, self._notes = app, options, notes
        self._ended: SimpleQueue[RoleThread] = SimpleQueue()
        self._collector = cast(Collector, app.compile("collector", options=options))
        self._runner = CollectorRunner.of(self._collector)
        if self._runner.handler.journal_user():
            self._runner.journal_path = MEMORY
        self._runner.watcher = notes
        distributor = app.compile("distributor", options=options, metadata=metadata)
        self._distributor = self._new_thread("distributor of a test run", distributor)
        self._threads = [self._new_thread("collector of a test run", self._collector), self._distributor]
        for name, number in numbers.items():
            self._threads += [self._new_worker(name) for _ in range(number)]

    def _new_worker(self, name: str) -> RoleThread:
        worker = cast(Worker, self._app.compile("worker", name, options=self._options))
        # that of all roles of the test, which no successor would have less of
        worker.max_memory = None
        WorkerRunner.of(worker).watch = partial(self._notes.watch, name)
        return self._new_thread(f"worker of {name!r} of a test run", worker)

    def _new_thread(self, name: str, role: Role) -> RoleThread:
        RoleRunner.of(role).listener = self._notes.observe
        return RoleThread(name, role, self._ended)

    def carry_out(self, timeout: float) -> None:
        """Start the threads, wait for the end of the run, end what is left, and raise what went wrong."""
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.start()
        report = "" if self._is_over(deadline) else self._report(timeout)
        self._stop()
        error = self._error()
        if error is not None:
            raise error.with_traceback(users_part(error.__traceback__) or error.__traceback__)
        if report:
            raise PipelineTimeout(report)

    def counts(self) -> Any:
        """What became of the items, as the distributor counts it."""
        return self._distributor.role.counts  # type: ignore[attr-defined]

    def reasons(self) -> list[Reason]:
        """Why not everything was collected."""
        return self._runner.reasons()

    def ok(self) -> bool:
        """True if nothing failed in any role."""
        return not any(thread.role.status for thread in self._threads[:2]) and bool(self._collector.ok)

    def _error(self) -> BaseException | None:
        """What the first role raised; the distributor's own comes first, since it tells of the cause."""
        threads = [self._distributor, *self._threads]
        return next((thread.error for thread in threads if thread.error is not None), None)

    def _is_over(self, deadline: float) -> bool:
        """Wait until distributor and collector have ended, or a role has raised; False when the time is up."""
        waiting = set(self._threads[:2])
        while waiting:
            try:
                ended = self._ended.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                return False
            ended.join()
            waiting.discard(ended)
            if ended.error is not None:
                return True
            if ended.role.status == STUCK or (isinstance(ended.role, Worker) and ended.role.retired):
                self._replace(ended.role)
        return True

    def _replace(self, left: Role) -> None:
        """Start a worker in the place of one that is stuck or has retired, as the supervisor of `run` does."""
        thread = self._new_worker(str(cast(Worker, left).task_type))
        self._threads.append(thread)
        thread.start()

    def _stop(self) -> None:
        """End what is still there: a worker that came after END waits for another run, which there is not."""
        running = [thread for thread in self._threads if thread.is_alive()]
        # workers and distributor first: a collector that goes before them could not acknowledge what they finish
        for thread in reversed(running):
            RoleRunner.of(thread.role).end(final=False)
        give_up = time.monotonic() + 2 * DRAIN_SECONDS
        for thread in running:
            thread.join(max(0.0, give_up - time.monotonic()))

    def _report(self, timeout: float) -> str:
        lines = [f"The test run was not over within {timeout:g} s. What each role waits for:"]
        for thread in self._threads:
            first, *more = self._waits_for(thread)
            lines += [f"{thread.name}: {first}", *(f"  {line}" for line in more)]
        lines += thread_lines(set(threading.enumerate()) - self._before - set(self._threads))
        return "\n".join(lines)

    def _waits_for(self, thread: RoleThread) -> list[str]:
        machine = thread.role.machine
        if not thread.is_alive():
            return ["has ended"]
        if machine is None:
            return ["has not begun"]
        if thread is self._distributor:
            return distributor_lines(machine.facts(), time.monotonic())
        if thread.role is self._collector:
            return [collector_line(machine.snapshot())]
        return [worker_line(machine.snapshot())]
