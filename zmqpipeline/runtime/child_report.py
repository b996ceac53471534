"""What a child process tells its parent of itself. Its end is judged by this alone.

User code may end a process with any exit status and by any signal, so neither says anything. What counts is the last
word that the library itself said there: a child that dies before it is ready has failed to start; a status is what it
chose if it said so (``exit 2``), else an accident.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

from zmqpipeline.protocol.dataclass import dataclass
from zmqpipeline.protocol.messages import ErrorInfo
from zmqpipeline.protocol.status_records import ITEM_SECONDS, ItemTimes
from zmqpipeline.runtime.launch_words import HERE

READY = "ready"
"""The role runs; a worker has no item yet, so that it has not called the user's init functions."""

STARTING = "starting"
"""The user's init functions are called: until they have returned it is not ready."""

WORKING = "working"
"""They have returned, and its first item is about to be executed."""

CLOSING = "closing"
"""Its role is over, and user code closes what it opened: the child ends by itself, in `drain_timeout` at most."""

REPLACE = "replace"
"""It has done all the work that one process may do, and leaves in good order: another one shall take its place."""

ANSWERED = "answered"
"""Its parent asked whether it answers."""

EXIT = "exit"
"""It ends by itself, with the status that follows."""

FAILED_START = "failed-start"
"""One of the user's init functions, or the worker's class as it was made, raised what follows."""

WORK_DONE = "work-done"
"""What it has executed, if its parent wants to know; see `work_done`."""

MAX_TEXT, MAX_TRACEBACK = 500, 4000
"""So many characters of a message and of a traceback, its end, are told."""


def failed_start(trouble: ErrorInfo) -> str:
    """The line that says what an init function raised, or the worker's class."""
    texts = (trouble.error[:MAX_TEXT], trouble.message[:MAX_TEXT], trouble.traceback[-MAX_TRACEBACK:])
    return f"{FAILED_START} {json.dumps([*texts, trouble.place[:MAX_TEXT]])}"


@dataclasses.dataclass(frozen=True, order=True)
class SlowItem:
    """How long an item took, at which attempt, and when that was over, in seconds since the epoch."""

    seconds: float
    number: int
    attempt: int
    ended: float


def work_done(times: ItemTimes, slowest: Sequence[SlowItem], slots: int) -> str:
    """The line that says how long the items took that were executed, `slots` at a time, and which took longest."""
    items = [[round(one.seconds, 6), one.number, one.attempt, round(one.ended, 3)] for one in slowest]
    return f"{WORK_DONE} {json.dumps([times.counts, round(times.seconds, 6), items, slots], separators=(',', ':'))}"


@dataclass(frozen=True)
class Told:
    """What a child had told when it ended."""

    is_ready: bool = False
    """It was initialised, or had nothing to be initialised for."""

    is_starting: bool = False
    """The user's init functions are called."""

    has_worked: bool = False
    """It had begun to execute an item."""

    is_closing: bool = False
    """Its role is over: it closes what user code opened."""

    has_answered: bool = False
    """It was asked whether it answers, and does."""

    wants_successor: bool = False
    """It left so that another process takes its place."""

    init_trouble: ErrorInfo | None = None
    """What one of the user's init functions raised, or the worker's class as it was made."""

    status: int | None = None
    """The exit status that it chose; None if it was killed, crashed, or was ended by user code."""

    host: str = ""
    """Of one that a launch command has started, the machine that it is on; empty for others, or if it told nothing."""

    pid: int = 0
    """Likewise, its process id there."""

    times: ItemTimes | None = None
    """How long its items took, if it was asked to say that."""

    slowest: tuple[SlowItem, ...] = ()
    """Likewise, those that took longest."""

    slots: int = 0
    """Likewise, how many it executed at a time."""

    @classmethod
    def read(cls, text: bytes) -> Told:
        """From its lines, in order; the last one may be torn."""
        lines = [line.partition(" ") for line in text.decode(errors="replace").split("\n")[:-1]]
        words = [word for word, _, _ in lines]
        states = [word for word in words if word in (READY, STARTING, WORKING)]
        raised = [trouble for word, _, value in lines if word == FAILED_START and (trouble := _trouble(value))]
        chosen = [int(value) for word, _, value in lines if word == EXIT and value.isdecimal() and len(value) <= 3]
        here = [value.partition(" ") for word, _, value in lines if word == HERE]
        did = [found for word, _, value in lines if word == WORK_DONE and (found := _work(value))]
        times, slowest, slots = did[-1] if did else (None, (), 0)
        pid, _, host = here[0] if here else ("", "", "")
        return cls(
            is_ready=bool(states) and states[-1] != STARTING,
            is_starting=states[-1:] == [STARTING],
            has_worked=WORKING in states,
            is_closing=CLOSING in words,
            has_answered=ANSWERED in words,
            wants_successor=REPLACE in words,
            init_trouble=raised[-1] if raised else None,
            status=chosen[-1] if chosen else None,
            host=host,
            pid=int(pid) if pid.isdecimal() and len(pid) <= 9 else 0,
            times=times,
            slowest=slowest,
            slots=slots,
        )


def _trouble(text: str) -> ErrorInfo | None:
    """What `failed_start` said; None if another text came in between, as it can on the standard error of a worker."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(said, list) and len(said) == 4 and all(isinstance(one, str) for one in said)
    return ErrorInfo(*said) if whole else None


def _work(text: str) -> tuple[ItemTimes, tuple[SlowItem, ...], int] | None:
    """What `work_done` said; None if another text came in between."""
    try:
        counts, seconds, items, at_a_time = json.loads(text)
        slowest = tuple(
            SlowItem(float(one), int(number), int(attempt), float(at)) for one, number, attempt, at in items
        )
        times, slots = ItemTimes([int(one) for one in counts], float(seconds)), int(at_a_time)
    except (ValueError, TypeError, OverflowError):
        return None
    numbers = (times.seconds, *(value for one in slowest for value in (one.seconds, one.ended)))
    is_sound = len(times.counts) == len(ITEM_SECONDS) + 1 and all(map(math.isfinite, numbers))
    return (times, slowest, slots) if is_sound else None
