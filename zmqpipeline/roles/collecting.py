"""The user code of a collector: what is called for a result, a failure, an ACK and the end, and how it is called."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from zmqpipeline.errors import SerializeError
from zmqpipeline.options import Options
from zmqpipeline.protocol.messages import FailedItem
from zmqpipeline.roles.calls import LAST, guarded
from zmqpipeline.roles.results import Failure
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.journal import Journal
from zmqpipeline.runtime.threads.feeding import Feeds
from zmqpipeline.serialization.pack import ACK_DATA_BYTES, MAX_DEPTH, check_depth, pack_aside, pack_item

if TYPE_CHECKING:
    from zmqpipeline.runtime.traces import Tracing

Collection: TypeAlias = Callable[[str, int], tuple[Callable[..., Any], bool]]
"""By task and attempt: the user code for a result, and whether it is called with the item's number and the data."""


class Stages(Protocol):
    """How results of tasks become items of others, as an app says it."""

    @property
    def fed(self) -> tuple[str, ...]:
        """The tasks that get such items."""

    def feeds(self, metadata: dict[str, Any], max_bytes: int) -> Feeds:
        """The functions, for a run with this metadata; an item has at most so many bytes."""

    def close(self, timeout: float) -> None:
        """No more is asked of them: what they have under way is ended within so many seconds."""


def refuse_unrun(answer: object, what: str) -> None:
    """Raise SerializeError if a function returned what is still to be run: a result would count that nobody took."""
    if isinstance(answer, (Generator, Coroutine, AsyncGenerator)):
        kind = type(answer).__name__.replace("_", " ")
        if not isinstance(answer, AsyncGenerator):
            answer.close()
        raise SerializeError(
            f"{what} returned {'an' if kind[0] == 'a' else 'a'} {kind}, of which nothing was executed. Have it run, "
            "and return a dict or None."
        )


class ResultHandler(ABC):
    """The handler of a result: what a collector calls, be it a class of the user or decorated functions."""

    journal: Journal | None = None
    """What a function may write into while the collector runs, if it keeps one."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in messages."""

    @abstractmethod
    def collection(self) -> Collection:
        """What is called for a result; made anew when the run's metadata are known."""

    def check(self) -> None:  # noqa: B027 - functions are checked when they are registered
        """Raise ConfigurationError if it cannot be called."""

    def batch(self, task: str) -> int:
        """How many results the function of this task takes at once; 0: it takes one, and no list."""
        return 0

    def close(self, timeout: float) -> None:  # noqa: B027 - most have nothing to end
        """Nothing more is called: what is under way is ended within so many seconds."""

    @abstractmethod
    def failed(self, failure: Failure) -> None:
        """Called for each item that was given up."""

    @abstractmethod
    def finished(self, tasks: Sequence[str]) -> Any:
        """Called once at the end of a run of these tasks; a dict goes to the distributor."""

    @abstractmethod
    def has_ack_data(self) -> bool:
        """Whether there is anything to call for an ACK."""

    @abstractmethod
    def ack_data(self, task: str) -> Any:
        """Called before each ACK, and only if `has_ack_data`: what goes along with it; `task` was called for last."""

    @abstractmethod
    def whose(self, what: str) -> str:
        """The function for "finished" or "ack_data", for messages about what it returned."""

    @abstractmethod
    def journal_user(self) -> str:
        """Which function takes `journal`, for messages; empty if none does."""


class ResultWatcher:
    """Told on the collector's thread what came of its calls, for who needs the values themselves: a test run, say."""

    def collected(self, task: str, number: int, data: dict[str, Any]) -> None:
        """The function for a result returned; `data` is what it was called with."""

    def raised(self, task: str, number: int, error: BaseException) -> None:
        """The function for a result raised."""

    def failed(self, task: str, number: int, failure: Failure) -> None:
        """An item was given up, wherever."""

    def broken(self, error: BaseException) -> None:
        """A function raised that is for no one result: finished, failed or ack_data."""


class ResultCalls:
    """Calls the handler of a result, and packs what goes along with the next ACK."""

    def __init__(self, handler: ResultHandler, options: Options, tracing: Tracing | None = None) -> None:
        self._handler, self._options, self._tracing = handler, options, tracing
        self._ack: dict[str, Any] = {}
        self._last_task = ""
        self._collection = handler.collection()

    def begin(self) -> None:
        """A run begins: its metadata are known."""
        self._collection = self._handler.collection()

    def collecting(self, task: str, attempt: int) -> tuple[Callable[..., Any], bool]:
        """What is called for each item of a part, and whether with its number."""
        self._last_task = task
        call, takes_number = self._collection(task, attempt)
        if self._tracing is not None:
            batch = bool(self._handler.batch(task))
            call = self._tracing.collecting(task, attempt, call, takes_number=takes_number, batch=batch)
            takes_number = True
        if self._handler.batch(task):
            return self._checking_each(call), True

        def about(number: int, data: Any) -> dict[str, str | int]:
            return {"task": task, "item": number, "attempt": attempt}

        return guarded(call, self._options, about, value=LAST, placed=takes_number)

    def _checking_each(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Of a call with lists, or with one number and one result."""
        most = self._options.max_depth

        def checked(numbers: Any, values: Any) -> Any:
            if isinstance(numbers, int):
                numbers, values = [numbers], [values]
            for value in values if most < MAX_DEPTH else ():
                check_depth(value, most)
            return call(numbers, values)

        return checked

    def batch(self, task: str) -> int:
        """How many results the function of this task takes at once; 0: it takes one, and no list."""
        return self._handler.batch(task)

    def note(self, answer: Any) -> None:
        """What the call for an item returned: a dict goes along with the next ACK."""
        if isinstance(answer, dict):
            self._ack.update(answer)
        else:
            refuse_unrun(answer, f"What {self._handler.name} calls for a result")

    def take_ack_data(self) -> bytes:
        """What is attached to the next ACK, packed: what the items of this part returned, and the ACK data."""
        ack, self._ack = self._ack, {}
        if self._handler.has_ack_data():
            more = self._handler.ack_data(self._last_task)
            forks.end_child()
            if more is not None and not isinstance(more, dict):
                pack_item(more, self._handler.whose("ack_data"))
            ack.update(more or {})
        return pack_aside(ack, f"the ACK data of {self._handler.name}", ACK_DATA_BYTES) if ack else b""

    def call_failed(self, item: FailedItem) -> None:
        """Call the function for a failure."""
        self._handler.failed(Failure.from_item(item))
        forks.end_child()

    def call_finished(self, tasks: Sequence[str]) -> bytes:
        """Call the function for the end of a run of these tasks; what goes to the distributor, packed."""
        answer = self._handler.finished(tasks)
        forks.end_child()
        if answer is None:
            return b""
        if not isinstance(answer, dict):
            refuse_unrun(answer, self._handler.whose("finished"))
            return b""
        return pack_aside(answer, self._handler.whose("finished"), ACK_DATA_BYTES)


class WatchedCalls(ResultCalls):
    """The same, and somebody is told what came of each call."""

    def __init__(
        self, handler: ResultHandler, options: Options, watcher: ResultWatcher, tracing: Tracing | None = None
    ) -> None:
        super().__init__(handler, options, tracing)
        self._watcher = watcher

    def collecting(self, task: str, attempt: int) -> tuple[Callable[..., Any], bool]:
        """What is called for each item of a part: always with its number."""
        call, takes_number = super().collecting(task, attempt)
        watcher = self._watcher
        if self._handler.batch(task):
            return self._watched_lists(task, call), True

        def watched(number: int, data: Any) -> Any:
            # the function may change its own
            seen = copy.deepcopy(data)
            try:
                answer = call(number, data) if takes_number else call(data)
            except BaseException as error:
                watcher.raised(task, number, error)
                raise
            watcher.collected(task, number, seen)
            return answer

        return watched, True

    def _watched_lists(self, task: str, call: Callable[..., Any]) -> Callable[..., Any]:
        watcher = self._watcher

        def watched(numbers: Any, values: Any) -> Any:
            if isinstance(numbers, int):
                numbers, values = [numbers], [values]
            seen = copy.deepcopy(values)
            try:
                answer = call(numbers, values)
            except BaseException as error:
                for number in numbers if len(numbers) == 1 else ():
                    watcher.raised(task, number, error)
                raise
            for number, data in zip(numbers, seen, strict=True):
                watcher.collected(task, number, data)
            return answer

        return watched

    def take_ack_data(self) -> bytes:
        """What it raises is told."""
        with self._telling():
            return super().take_ack_data()

    def call_failed(self, item: FailedItem) -> None:
        """The failure is told, then what the function for it raises."""
        self._watcher.failed(item.task, item.number, Failure.from_item(item))
        with self._telling():
            super().call_failed(item)

    def call_finished(self, tasks: Sequence[str]) -> bytes:
        """What it raises is told."""
        with self._telling():
            return super().call_finished(tasks)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._watcher.broken(error)
            raise
