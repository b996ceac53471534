"""User code on its own threads, in order: the collector's functions, and whatever a role calls once.

The threads are daemons, so that user code which never returns does not keep a process alive. What user code raises
becomes a Trouble, SystemExit and KeyboardInterrupt included: a function does not end the process that calls it.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

from zmqpipeline.protocol.commands import CallFailed, CallFinished, Collect
from zmqpipeline.protocol.events import Collected, Event, FailedCalled, FinishedCalled
from zmqpipeline.protocol.messages import FailedItem, Spans, Trouble

Post = Callable[[Event], None]
"""How the threads answer: `Loop.post`."""

PART_SECONDS = 0.01
"""So long the collector calls its function before it hands over what was collected."""

TEXT_LIMIT = 65536
"""The most characters of a message or a traceback that travel with a failure."""

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_log = logging.getLogger("zmqpipeline.runtime")


def trouble_of(error: BaseException) -> Trouble:
    """What was raised, as text that can be sent: the type's name, the message, the traceback without our own frames."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception as second:
        message = f"(its message cannot be shown: str() raised {type(second).__name__})"
    return Trouble(name, _sendable(message)[:TEXT_LIMIT], _sendable(_traceback(error))[-TEXT_LIMIT:])


def _traceback(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, _users_part(error.__traceback__)))
    except Exception as second:
        return f"(its traceback cannot be shown: {type(second).__name__})"


def _users_part(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frames = frames.tb_next
    return frames


def _sendable(text: str) -> str:
    # A message may quote a file name with lone surrogates, which UTF-8 has no bytes for.
    return text.encode("utf-8", "backslashreplace").decode()


class Serial:
    """One thread that calls what is submitted, in order."""

    def __init__(self, name: str) -> None:
        """`name` is that of the thread, which starts with the first call."""
        self._waiting: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._lock = threading.Lock()
        self._started = False

    def submit(self, call: Callable[[], object]) -> None:
        """Have this called after all that was submitted before; from any thread. What it raises is logged."""
        self._waiting.put(call)
        with self._lock:
            if not self._started:
                self._started = True
                self._thread.start()

    def _run(self) -> None:
        while (call := self._waiting.get()) is not None:
            try:
                call()
            except BaseException:
                _log.exception("A call on the thread %r raised. The thread goes on with the next.", self._thread.name)

    def close(self, timeout: float) -> None:
        """End the thread after what was submitted; wait for it at most `timeout` seconds."""
        self._waiting.put(None)
        if self._started:
            self._thread.join(timeout)


CollectItem = Callable[[str, int, int, bytes], bytes]
"""``collect(task, attempt, number, payload)``; returns the packed data of this item's Ack, or b""."""


class Gatherer:
    """The collector's thread: all its functions are called here, one after the other."""

    def __init__(
        self,
        collect: CollectItem,
        call_failed: Callable[[FailedItem], object],
        call_finished: Callable[[CallFinished], bytes | None],
        post: Post,
        *,
        ack_data: Callable[[], bytes] | None = None,
    ) -> None:
        """`ack_data` is called once a part, after its items; what it returns, unless b"", goes before theirs."""
        self._collect_item = collect
        self._call_failed = call_failed
        self._call_finished = call_finished
        self._ack_data = ack_data
        self._post = post
        self._serial = Serial("zmqpipeline-collect")

    def collect(self, command: Collect) -> None:
        """Call the function for each item; Collected answers, in parts of at most 10 ms and the call that ends them."""
        self._serial.submit(lambda: self._collect(command))

    def call_failed(self, command: CallFailed) -> None:
        """Call the `failed` function for each item; FailedCalled answers, one for each task."""
        self._serial.submit(lambda: self._tell_failed(command))

    def call_finished(self, command: CallFinished) -> None:
        """Call the `finished` function; FinishedCalled answers, with the packed data that it returned."""
        self._serial.submit(lambda: self._finish(command))

    def submit(self, call: Callable[[], object]) -> None:
        """Have something else called on this thread, in its turn."""
        self._serial.submit(call)

    def close(self, timeout: float) -> None:
        """End the thread after what was asked for; wait for it at most `timeout` seconds."""
        self._serial.close(timeout)

    def _collect(self, command: Collect) -> None:
        numbers = [n for i in range(0, len(command.spans), 2) for n in range(command.spans[i], command.spans[i + 1])]
        done = 0
        while done < len(numbers):
            done = self._collect_part(command, numbers, done)

    def _collect_part(self, command: Collect, numbers: list[int], first: int) -> int:
        """Collect from `first` on until the part's time is over; returns where the next part begins."""
        task, attempt, payloads, collect_item = command.task, command.attempt, command.payloads, self._collect_item
        failures: list[tuple[int, Trouble, bytes]] = []
        data, clock, index = b"", time.perf_counter, first
        end = clock() + PART_SECONDS
        while index < len(numbers):
            number, payload = numbers[index], payloads[index]
            index += 1
            try:
                data = collect_item(task, attempt, number, payload) or data
            except BaseException as error:
                failures.append((number, trouble_of(error), payload))
            if clock() > end:
                break
        self._post_part(command, numbers[first:index], failures, data)
        return index

    def _post_part(
        self, command: Collect, numbers: list[int], failures: list[tuple[int, Trouble, bytes]], data: bytes
    ) -> None:
        trouble = None
        if self._ack_data is not None:
            try:
                data = self._ack_data() or data
            except BaseException as error:
                trouble = trouble_of(error)
        if failures:
            raised = {number for number, _, _ in failures}
            numbers = [number for number in numbers if number not in raised]
        self._post(Collected(command.task, _spans(numbers), failures, data, command.attempt, trouble))

    def _tell_failed(self, command: CallFailed) -> None:
        told: dict[str, tuple[list[int], list[Trouble]]] = {}
        for item in command.failures:
            numbers, troubles = told.setdefault(item.task, ([], []))
            numbers.append(item.number)
            if trouble := self._troubled(self._call_failed, item):
                troubles.append(trouble)
        for task, (numbers, troubles) in told.items():
            self._post(FailedCalled(task, _spans(sorted(set(numbers))), troubles[0] if troubles else None))

    def _finish(self, command: CallFinished) -> None:
        try:
            data = self._call_finished(command) or b""
        except BaseException as error:
            self._post(FinishedCalled(trouble_of(error)))
        else:
            self._post(FinishedCalled(None, data))

    @staticmethod
    def _troubled(call: Callable[..., object], argument: object) -> Trouble | None:
        try:
            call(argument)
        except BaseException as error:
            return trouble_of(error)
        return None


def _spans(numbers: list[int]) -> Spans:
    """Ascending numbers as half-open ranges."""
    spans: list[int] = []
    for number in numbers:
        if spans and spans[-1] == number:
            spans[-1] += 1
        else:
            spans += (number, number + 1)
    return tuple(spans)
