"""Collector functions that take lists: those results that are at hand, of as many messages as there are.

One call is made for up to so many results, and what it writes through the journal is one transaction with their marks.
If it raises, its halves are tried at once, then theirs, until the bad result stands alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from zmqpipeline.protocol.commands import Collect
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.journal import JournalLost
from zmqpipeline.runtime.threads.event_loop import CallCancelled
from zmqpipeline.serialization.pack import unpack


class Opened(Protocol):
    """What one command brought."""

    numbers: Sequence[int]
    values: list[Any]
    one_by_one: bool
    """The values are still packed, since one of them cannot be opened."""


class Waiting:
    """Commands whose results are collected in lists, until the collector's thread comes to them."""

    def __init__(self) -> None:
        """Nothing waits."""
        self._commands: deque[tuple[int, Collect]] = deque()
        self._runs = 0

    def next_run(self) -> None:
        """What comes from here on is of another run, and goes into no list with what came before."""
        self._runs += 1

    def add(self, command: Collect) -> None:
        """From the loop's thread."""
        self._commands.append((self._runs, command))

    def take(self, batch: Callable[[str], int]) -> list[Collect]:
        """The next command, and those behind it that go with it, until there are as many results as its task takes."""
        taken: list[Collect] = []
        count, first = 0, None
        while self._commands and (not taken or count < batch(taken[0].task)):
            run, command = self._commands[0]
            kind = run, command.task, command.attempt, command.each
            if first not in (None, kind):
                break
            first = kind
            self._commands.popleft()
            taken.append(command)
            count += len(command.payloads)
        return taken


class Outcome(NamedTuple):
    """What came of a list: which failed, by their place in it, and what the calls returned."""

    errors: dict[int, BaseException]
    answers: list[Any]


def call_with(
    call: Callable[..., Any], most: int, numbers: Sequence[int], values: list[Any], packed: set[int]
) -> Outcome:
    """Call with these results, in lists of the right length; those in the places `packed` are still to be opened."""
    errors: dict[int, BaseException] = {}
    answers: list[Any] = []
    for at in sorted(packed):
        try:
            values[at] = unpack(values[at])
        except BaseException as error:
            errors[at] = error
    good = [at for at in range(len(values)) if at not in errors]
    parts = [good[begin : begin + most] for begin in range(0, len(good), most)]
    parts.reverse()
    while parts:
        part = parts.pop()
        try:
            answer = call([numbers[at] for at in part], [values[at] for at in part])
            forks.end_child()
            answers.append(answer)
        except (JournalLost, CallCancelled):
            raise
        except BaseException as error:
            forks.end_child(error)
            if len(part) == 1:
                errors[part[0]] = error
            else:
                half = (len(part) + 1) // 2
                parts += [part[half:], part[:half]]
    return Outcome(errors, answers)


def joined(works: Sequence[Opened]) -> tuple[list[int], list[Any], set[int]]:
    """The numbers and values of all of these, and which of the values are still packed."""
    numbers: list[int] = []
    values: list[Any] = []
    packed: set[int] = set()
    for work in works:
        if work.one_by_one:
            packed.update(range(len(values), len(values) + len(work.values)))
        numbers += work.numbers
        values += work.values
    return numbers, values, packed
