"""Task: a named kind of work; what each item holds, and when there are no more."""

from __future__ import annotations

import inspect
import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias, TypeVar

from zmqpipeline.address import EndpointAddress
from zmqpipeline.declared import DEPENDENCIES, ENDPOINT, TASK_TYPE, Declared, Kind
from zmqpipeline.handlers import fitted, is_overridden
from zmqpipeline.protocol.commands import Produce
from zmqpipeline.protocol.graph import TaskSpec
from zmqpipeline.runtime.producer import Begun, Exhausted, Gated
from zmqpipeline.serialize import pack_item, unpack
from zmqpipeline.tasktype import TaskType
from zmqpipeline.utils.messages import MESSAGE_TYPE_READY

_log = logging.getLogger("zmqpipeline.task")

Step: TypeAlias = Callable[[Produce], bytes | tuple[bytes, bytes]]
"""Makes the next item of a source: packed, or packed with the digest of its key."""


AnyTask = TypeVar("AnyTask", bound="Task")


class Task(Declared):
    """A kind of work. Subclass it, declare `task_type`, `endpoint` and `dependencies`, and write `handle`."""

    _declares: ClassVar[dict[str, Kind]] = {
        "task_type": TASK_TYPE,
        "endpoint": ENDPOINT,
        "dependencies": DEPENDENCIES,
    }

    task_type: TaskType
    """The name of the task; its worker has the same."""

    endpoint: EndpointAddress
    """The address where the distributor gives out this task's items. Several tasks may share one."""

    dependencies: Sequence[TaskType]
    """The tasks of which every item must be acknowledged before the first of this one is given out."""

    is_complete: bool = False
    """Set it to True in `handle`: the item returned by that call is the last (with None: there is none)."""

    n_count: int = 0
    """A counter for your own use, as in ``self.n_count += 1``; the library never touches it."""

    metadata: dict[str, Any]
    """The run's metadata, from `initialize`."""

    _addresses: dict[str, EndpointAddress]

    def __new__(cls: type[AnyTask], *args: Any, **kwargs: Any) -> AnyTask:
        """Give the instance empty metadata, so that a subclass need not call ``super().__init__()``."""
        task = super().__new__(cls)
        task._addresses = {}
        if not hasattr(cls, "metadata"):
            task.metadata = {}
        return task

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
            address: which worker the item is for, as text.
            msgtype: `messages.MESSAGE_TYPE_READY`.
            ack_data: the last ACK, as for `is_available_for_handling`.

        Returns:
            The item; None for an empty one. Anything but a dict is a `TypeError` out of `Distributor.run()`.
        """

    def is_available_for_handling(self, last_ack_data: dict[str, Any]) -> bool:
        """Override it to hold the next item back until some ACK has come: return False for "not now".

        Args:
            last_ack_data: what the collector attached to the last ACK, with ``_task_type`` and ``_id``, the number
                of items acknowledged so far; an empty type and 0 before the first.
        """
        return True

    def _spec(self) -> TaskSpec:
        return TaskSpec(str(self.task_type), tuple(str(one) for one in self.dependencies))

    def _start(self, metadata: dict[str, Any], start: int = 0) -> Step:
        """Initialize the task; return what is then called for each item, always on the same thread.

        So many items from the first on are done: `start` is for who can begin after them.
        """
        _log.info("Task %r begins.", str(self.task_type))
        takes_start = "start" in inspect.signature(self.initialize).parameters
        if takes_start:
            self.initialize(metadata, start=start)  # type: ignore[call-arg]
        else:
            fitted(self.initialize, 1)(metadata)
        handle = fitted(self.handle, 4)
        gate = fitted(self.is_available_for_handling, 1) if self._has_gate() else None
        what = f"{type(self).__name__}.handle"
        acks = LastAck()

        def step(command: Produce) -> bytes:
            if self.is_complete:
                raise Exhausted
            if gate is not None and not gate(acks.of(command)):
                raise Gated
            item = handle(dict(metadata), command.address, MESSAGE_TYPE_READY, acks.of(command))
            if self.is_complete:
                raise Exhausted if item is None else Exhausted(pack_item(item, what))
            return pack_item(item, what)

        return Begun(step, start) if takes_start else step

    def _has_gate(self) -> bool:
        return is_overridden(self, "is_available_for_handling", Task)


class LastAck:
    """The last ACK as a dict for user code; opened once for each Produce, a fresh copy for each call."""

    def __init__(self) -> None:
        self._command: Produce | None = None
        self._ack: dict[str, Any] = {}

    def of(self, command: Produce) -> dict[str, Any]:
        """The user's data, with ``_task_type`` and ``_id``."""
        if command is not self._command:
            data = unpack(command.ack_data) if command.ack_data else {}
            self._ack = {**data, "_task_type": command.ack_task, "_id": command.ack_id}
            self._command = command
        return dict(self._ack)
