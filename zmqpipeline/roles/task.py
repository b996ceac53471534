"""Task: a named kind of work; what each item holds, and when there are no more."""

from __future__ import annotations

import hashlib
import inspect
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar

from zmqpipeline.addresses import EndpointAddress, WorkerAddress
from zmqpipeline.errors import DefinitionError
from zmqpipeline.messages import MESSAGE_TYPE_READY
from zmqpipeline.protocol.commands import Produce
from zmqpipeline.protocol.delivery.dependencies import TaskSpec
from zmqpipeline.protocol.delivery.gates import AckLog
from zmqpipeline.protocol.messages import AckNote
from zmqpipeline.roles.attributes import (
    COUNT_LIMIT,
    DEPENDENCIES,
    ENDPOINT,
    RATE,
    TASK_TYPE,
    AttributeSpec,
    Declarative,
    is_overridden,
    per_second,
    with_accepted_args,
)
from zmqpipeline.roles.sources import ItemSource, Step
from zmqpipeline.roles.task_type import TaskType
from zmqpipeline.runtime import forks
from zmqpipeline.runtime.error_text import named
from zmqpipeline.runtime.threads.source import Begun, Exhausted, Gated
from zmqpipeline.serialization.pack import pack_identity, pack_item, unpack

_log = logging.getLogger("zmqpipeline.task")


class Task(Declarative):
    """A kind of work. Subclass it, declare `task_type`, `endpoint` and `dependencies`, and write `handle`."""

    _declares: ClassVar[dict[str, AttributeSpec]] = {
        "task_type": TASK_TYPE,
        "endpoint": ENDPOINT,
        "dependencies": DEPENDENCIES,
        "rate": RATE,
        "limit": COUNT_LIMIT,
    }

    task_type: TaskType
    """The name of the task; its worker has the same."""

    endpoint: EndpointAddress | str
    """The address where the distributor gives out this task's items. Several tasks may share one."""

    dependencies: Sequence[TaskType]
    """The tasks of which every item must be acknowledged before the first of this one is given out."""

    is_complete: bool = False
    """Set it to True in `handle`: the item returned by that call is the last (with None: there is none)."""

    key: Any = None
    """What its items are known by: a field's name, or a method ``key(self, item)``. None: by their place in the order.

    An item whose key waits, is with a worker or is acknowledged is not sent again.
    """

    rate: str | None = None
    """So many items are handed out at most, in the whole run: "20/s", "1500/m" (a minute), "90000/h"."""

    limit: int | None = None
    """So many items are with workers at once at most, in the whole run."""

    n_count: int = 0
    """A counter for your own use, as in ``self.n_count += 1``; the library never touches it."""

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The run's metadata, from `initialize`."""
        return {}

    def initialize(self, metadata: dict[str, Any] = {}) -> None:  # noqa: B006
        """Called once, before the first `handle`; keeps the metadata on the task.

        Override it as ``initialize(self, metadata, start)`` if `handle` can begin later: `start` items, from the first
        without a gap, are done by an earlier life of the run, and the first call of `handle` makes the next one.
        """
        self.metadata = metadata

    @abstractmethod
    def handle(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Make one item: ``handle(self, data, address, msgtype, ack_data)``, of which it takes as many as it likes.

        Args:
            data: the run's metadata, or an empty dict.
            address: which worker the item is for, an EndpointAddress of its own kind: ``HOST/PID``, as `host` and
                `process`.
            msgtype: `messages.MESSAGE_TYPE_READY`.
            ack_data: the last ACK; with `is_available_for_handling`, the one for which that returned True.

        Returns:
            The item; None for an empty one. Anything but a dict is a `TypeError` out of `Distributor.run()`.
        """

    def is_available_for_handling(self, last_ack_data: dict[str, Any]) -> bool:
        """Override it to hold the next item back until some ACK has come: return False for "not now".

        It is asked before each item, with one ACK: with the one of the last time as long as it returns True. When it
        returns False it is asked with the next one, once with each, in order, until it returns True.

        Args:
            last_ack_data: what the collector attached to that ACK, with ``_task_type`` and ``_id``, the number of items
                that were acknowledged by then; an empty type and 0 before the first.
        """
        return True


class ClassSource(ItemSource):
    """The methods of a user's task, each with as many arguments as it takes."""

    def __init__(self, task: Task, endpoint: EndpointAddress | None = None) -> None:
        """`endpoint` is where its items are given out in place of where the class declares."""
        self._task, self._endpoint = task, endpoint

    @property
    def endpoint(self) -> EndpointAddress:
        """As it was given, or as the task has it."""
        return self._endpoint or EndpointAddress(self._task.endpoint)

    def spec(self) -> TaskSpec:
        """As the class declares it."""
        task = self._task
        return TaskSpec(
            str(task.task_type),
            tuple(str(one) for one in task.dependencies),
            keyed=self._key() is not None,
            has_gate=self._has_gate(),
            rate=None if task.rate is None else per_second(task.rate),
            limit=task.limit,
        )

    def start(self, metadata: dict[str, Any], start: int = 0) -> Step:
        """`initialize` is called here, `handle` for each item."""
        task = self._task
        _log.info("Task %r begins.", str(task.task_type))
        takes_start = "start" in inspect.signature(task.initialize).parameters
        if takes_start:
            task.initialize(metadata, start=start)  # type: ignore[call-arg]
        else:
            with_accepted_args(task.initialize, 1)(metadata)
        handle = with_accepted_args(task.handle, 4)
        gate = with_accepted_args(task.is_available_for_handling, 1) if self._has_gate() else None
        what = named(f"{type(task).__name__}.handle", task.handle)
        acks = LastAck(gated=gate is not None)

        def step(command: Produce) -> bytes:
            if task.is_complete:
                raise Exhausted
            if gate is not None:
                acks.pass_gate(command, gate)
            item = handle(dict(metadata), WorkerAddress(command.address), MESSAGE_TYPE_READY, acks.of(command))
            if task.is_complete:
                raise Exhausted if item is None else Exhausted(pack_item(item, what))
            return pack_item(item, what)

        if takes_start:
            return Begun(step, start)
        key = self._key()
        return step if key is None else keyed(step, key, str(task.task_type))

    def _key(self) -> str | Callable[[dict[str, Any]], Any] | None:
        key: Any = self._task.key
        if key is None or isinstance(key, str):
            return key
        if callable(key):
            taking: Callable[[dict[str, Any]], Any] = with_accepted_args(key, 1)
            return taking
        raise DefinitionError(
            f"{type(self._task).__name__}.key must be the name of a field or a method that takes the item, not "
            f"{key!r}. Write key = 'url', or def key(self, item): return item['url']."
        )

    def _has_gate(self) -> bool:
        return is_overridden(self._task, "is_available_for_handling", Task)


def keyed(step: Step, key: str | Callable[[dict[str, Any]], Any], task_type: str) -> Step:
    """A step of a task with keys: it gives each item with the digest of its key."""
    digest = digest_of(key, task_type)

    def with_digest(packed: bytes | tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        if forks.in_child:
            forks.end_child()
        assert isinstance(packed, bytes)
        return packed, digest(unpack(packed))

    def step_with_key(command: Produce) -> tuple[bytes, bytes]:
        try:
            return with_digest(step(command))
        except Exhausted as end:
            raise Exhausted(end.last and with_digest(end.last)) from None

    return step_with_key


def digest_of(
    key: str | Callable[[dict[str, Any]], Any], task_type: str, what: str = "which is its key"
) -> Callable[[dict[str, Any]], bytes]:
    """What makes the digest of an item's key, or of another field; `what` says what it is, for messages."""

    def digest(item: dict[str, Any]) -> bytes:
        if callable(key):
            value = key(item)
        elif key in item:
            value = item[key]
        else:
            raise LookupError(
                f"An item of task {task_type!r} has no field {key!r}, {what}. "
                f"It has: {', '.join(map(repr, item)) or 'none'}."
            )
        return hashlib.blake2b(pack_identity(value), digest_size=16).digest()

    return digest


def _asked(gate: Callable[[dict[str, Any]], object], ack: dict[str, Any]) -> object:
    answer = gate(ack)
    if forks.in_child:
        forks.end_child()
    return answer


class LastAck:
    """The ACK that a task's functions are called with: the last one; behind a gate, the one that it has let pass.

    Each is opened once; each call gets a copy of its own.
    """

    def __init__(self, *, gated: bool = False) -> None:
        """`gated`: the task has a gate, which is asked with each ACK, in order."""
        self._is_gated = gated
        self._command: Produce | None = None
        self._now = AckNote("", 0, 0, b"")
        self._opened: tuple[AckNote, dict[str, Any]] | None = None
        self._unasked = AckLog()
        self._was_refused = False
        """The gate has said no to the ACK that it was asked with last."""
        self._known = 0
        """The number of the newest ACK that has come here."""

    def of(self, command: Produce) -> dict[str, Any]:
        """The user's data, with ``_task_type`` and ``_id``."""
        if not self._is_gated and command is not self._command:
            self._command = command
            self._now = AckNote(command.ack_task, command.ack_id, command.ack_id, command.ack_data)
        return self._open()

    def pass_gate(self, command: Produce, gate: Callable[[dict[str, Any]], object]) -> None:
        """Ask the gate with the ACK of the last time, then with each that came after it, until it says yes.

        Raises Gated if it says no to all of them.
        """
        if command is not self._command:
            self._take(command)
        while self._was_refused or not _asked(gate, self._open()):
            self._was_refused = True
            following = self._unasked.next()
            if following is None:
                raise Gated
            self._now, self._was_refused = following, False

    def _take(self, command: Produce) -> None:
        self._command = command
        notes = list(command.acks)
        if command.ack_id > (notes[-1].last if notes else self._known):
            notes.append(AckNote(command.ack_task, command.ack_id, command.ack_id, command.ack_data))
        unheard = 0
        for note in notes:
            unheard += note.first - self._known - 1
            self._known = note.last
            self._unasked.add(note)
        if lost := unheard + self._unasked.dropped:
            self._unasked.dropped = 0
            _log.warning(
                "The gate of task %r is not asked with %d ACK(s), but with those after them: nobody knows any more "
                "what they carried. A process was started again, or the gate was open for very long.",
                *(command.task, lost),
            )

    def _open(self) -> dict[str, Any]:
        now = self._now
        if self._opened is None or self._opened[0] is not now:
            data = unpack(now.data) if now.data else {}
            self._opened = now, {**data, "_task_type": now.task, "_id": now.last}
        return dict(self._opened[1])
