"""The places of a `CoroutinePool`, and the items that wait for one."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from zmqpipeline.runtime.threads.execution import Execution, Piece


class Lot(NamedTuple):
    """What the items of one Execute have in common."""

    call: Callable[..., Any]
    pack: Callable[[Any], bytes]
    placed: bool
    attempt: int
    timeout: float
    batch: int = 0
    """So many items at most go into a call; 0: it takes one, and no list."""


class Place:
    """One of the calls that go on at a time."""

    __slots__ = ("began", "due", "is_cancelled", "is_late", "is_lost", "lot", "numbers", "rest", "task")

    def __init__(self) -> None:
        self.task: PlaceTask | None = None
        self.numbers: Sequence[int] = ()
        """The items that it is at; none between two calls."""
        self.rest: list[list[tuple[int, Any]]] = []
        """What of a batch is to be called after this call; the next part last."""
        self.lot: Lot | None = None
        self.began = 0.0
        self.due = 0.0
        """When to look at it again, by `time.perf_counter`: its item's time is over, or the grace; 0: never."""
        self.is_cancelled = False
        """Its task was, by whomever: what is left of that might reach another call."""
        self.is_late = False
        """The pool has cancelled the call that it is at, since its time is over."""
        self.is_lost = False
        """And that did not end it."""

    def go_on(self, calls: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
        """These are made in a task that begins now, with what is left of a batch."""
        self.numbers, self.due = (), 0.0
        self.is_cancelled = self.is_late = self.is_lost = False
        self.task = PlaceTask(calls, loop=loop)
        self.task.place = self


class PlaceTask(asyncio.Task[None]):
    """The task of a place. It tells that it was cancelled, of which asyncio keeps no account before Python 3.11."""

    __slots__ = ("place",)
    # without a method of its own to make it, and a dict, it costs no more than any task
    place: Place

    def cancel(self, msg: Any = None) -> bool:
        """As any task."""
        self.place.is_cancelled = True
        return super().cancel(msg)


class Queue:
    """Items that no call has taken. The role's thread puts them there, and takes them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[Piece] = deque()
        self.todo: deque[tuple[int, Any, Lot]] = deque()
        """Items that are opened. Places take from the left, whoever takes back from the right; each is atomic."""
        self._packs: tuple[Execution, Callable[[Any], bytes]] | None = None

    def put(self, piece: Piece) -> None:
        """These come last."""
        with self._lock:
            self._pieces.append(piece)

    def take_back(self, count: int | None) -> list[int]:
        """Take up to `count` items (None: all) off, the last first; their numbers, ascending."""
        numbers: list[int] = []
        with self._lock:
            while self._pieces and (count is None or len(numbers) < count):
                last = self._pieces[-1]
                most = len(last.numbers) if count is None else count - len(numbers)
                numbers += last.drop(min(most, len(last.numbers)))
                if not last.numbers:
                    self._pieces.pop()
            while self.todo and (count is None or len(numbers) < count):
                try:
                    numbers.append(self.todo.pop()[0])
                except IndexError:
                    break  # The event loop was faster.
        return sorted(numbers)

    def clear(self) -> None:
        """Drop all of them."""
        with self._lock:
            self._pieces.clear()
            self.todo.clear()

    def count(self) -> int:
        """How many there are; from any thread."""
        # a copy, made in one step: the role's thread appends
        return len(self.todo) + sum(len(one.numbers) for one in tuple(self._pieces))

    # on the event loop's thread ---------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Open the piece that came first; False if there is none."""
        with self._lock:
            if not self._pieces:
                return False
            piece = self._pieces.popleft()
            numbers, values = piece.take(len(piece.numbers))
            execution, job = piece.execution, piece.job
            lot = Lot(
                *(execution.call, self._packer(execution), execution.placed, job.attempt, job.timeout),
                batch=1 if job.trial and execution.batch else execution.batch,
            )
            self.todo.extend(zip(numbers, values, repeat(lot)))
        return True

    def _packer(self, execution: Execution) -> Callable[[Any], bytes]:
        if self._packs is None or self._packs[0] is not execution:
            self._packs = execution, execution.packer()
        return self._packs[1]

    def at_hand(self, number: int, value: Any, lot: Lot) -> list[tuple[int, Any]]:
        """This item, and those behind it that may go into the same call."""
        items, todo = [(number, value)], self.todo
        while len(items) < lot.batch and (todo or self.open()):
            try:
                if todo[0][2] != lot:
                    break
                items.append(todo.popleft()[:2])
            except IndexError:
                break  # Whoever takes back was faster.
        return items

    def give_back(self, parts: list[list[tuple[int, Any]]], lot: Lot) -> None:
        """These come first, the last part before the others."""
        self.todo.extendleft((*item, lot) for part in parts for item in reversed(part))
