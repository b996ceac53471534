"""Execution: the shares of a worker's threads, and what each of them is at."""

from __future__ import annotations

from typing import Any

from zmqpipeline.runtime.threads.execution import Execution, Job, Piece, Slot
from zmqpipeline.serialization.pack import pack


class _Growing(list[Any]):
    """Results of a thread that goes on: there is one more each time that they are counted."""

    def __len__(self) -> int:
        self.append(b"")
        return super().__len__() - 1


def test_who_looks_at_a_thread_that_goes_on_is_never_wrong() -> None:
    """It appends results while its items are counted: what it has done by then is no trouble."""
    slot = Slot(0)
    execution = Execution(lambda value: value, lambda: bytes)
    slot.load(Piece(Job(1, 0.0), execution, [5, 6, 7], [pack(b"")] * 3), 3)
    assert slot.running() == []
    slot.todo.popleft()
    assert slot.running() == [5]
    slot.todo.clear()
    slot.part = _Growing()
    assert [slot.running() for _ in range(5)] == [[5, 6, 7], [6, 7], [7], [], []]
